// SPDX-License-Identifier: Apache-2.0
#include "relay/core/snapshot.h"

#include <algorithm>
#include <charconv>

namespace relay {
namespace {

// Takes a number that ends at `stop` or at the end of `rest`.
std::optional<Xid> take_number(std::string_view& rest, char stop) {
  Xid value = 0;
  const char* const end = rest.data() + rest.size();
  const auto [at, failure] = std::from_chars(rest.data(), end, value);
  if (failure != std::errc{} || (at != end && *at != stop)) return std::nullopt;
  rest.remove_prefix(static_cast<std::size_t>(at - rest.data()) + (at != end ? 1 : 0));
  return value;
}

}  // namespace

std::optional<Snapshot> Snapshot::parse(std::string_view text) {
  if (std::count(text.begin(), text.end(), ':') != 2) return std::nullopt;
  Snapshot s;
  s.text_ = text;
  std::string_view rest = text;
  const auto xmin = take_number(rest, ':');
  const auto xmax = take_number(rest, ':');
  if (!xmin || !xmax || *xmin > *xmax) return std::nullopt;
  s.xmin_ = *xmin;
  s.xmax_ = *xmax;
  if (!rest.empty() && rest.back() == ',') return std::nullopt;
  while (!rest.empty()) {
    const auto xid = take_number(rest, ',');
    if (!xid || *xid < s.xmin_ || *xid >= s.xmax_) return std::nullopt;
    if (!s.running_.empty() && s.running_.back() >= *xid) return std::nullopt;
    s.running_.push_back(*xid);
  }
  return s;
}

bool Snapshot::finished(Xid xid) const {
  if (xid < xmin_) return true;
  return xid < xmax_ && !std::binary_search(running_.begin(), running_.end(), xid);
}

Difference Difference::between(const Snapshot& base, const Snapshot& upto) {
  Difference d;
  for (const Xid xid : base.running()) {
    if (upto.finished(xid)) d.late.push_back(xid);
  }
  Xid from = base.xmax();
  for (const Xid xid : upto.running()) {
    if (xid < from) continue;
    if (xid > from) d.fresh.push_back({from, xid});
    from = xid + 1;
  }
  if (from < upto.xmax()) d.fresh.push_back({from, upto.xmax()});
  return d;
}

}  // namespace relay
