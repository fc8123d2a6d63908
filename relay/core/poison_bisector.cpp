// SPDX-License-Identifier: Apache-2.0
#include "relay/core/poison_bisector.h"

#include <algorithm>

namespace relay {
namespace {

// More record batches find the cause in fewer probes, and a probe must end before its transaction
// times out.
constexpr std::size_t record_batches_per_probe = 64;

}  // namespace

void PoisonBisector::split(const std::vector<Rejection>& refused) {
  suspected_.clear();
  for (const Rejection& r : refused) suspected_.insert(r.seq);
  const std::size_t size =
      (refused.size() + record_batches_per_probe - 1) / record_batches_per_probe;
  // Smaller each time, whatever is refused, so that the search ends.
  record_batch_max_ = record_batch_max_ == 0
                          ? size
                          : std::max<std::size_t>(1, std::min(size, record_batch_max_ / 2));
}

void PoisonBisector::clear() {
  suspected_.clear();
  record_batch_max_ = 0;
}

PoisonBisector::Attempt PoisonBisector::next(const Page& page, const PageMask& parked) const {
  if (suspected_.empty()) return {parked};
  PageMask masked = parked;
  for (std::size_t i = 0; i < page.messages.size(); ++i) {
    if (!suspected_.contains(page.messages[i].seq)) masked.add(i);
  }
  // Nothing to try apart from the rest.
  if (masked.empty() || masked.count() == page.messages.size()) return {parked};
  return {std::move(masked), true};
}

}  // namespace relay
