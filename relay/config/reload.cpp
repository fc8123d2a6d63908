// SPDX-License-Identifier: Apache-2.0
#include "relay/config/reload.h"

#include <algorithm>

#include "relay/config/options.h"

namespace relay::config {
namespace {

bool same_properties(const Config& a, const Config& b) {
  const auto same = [](const auto& x, const auto& y) {
    return x.first == y.first && x.second.reveal() == y.second.reveal();
  };
  return a.kafka.properties == b.kafka.properties &&
         std::equal(a.kafka.secret_properties.begin(), a.kafka.secret_properties.end(),
                    b.kafka.secret_properties.begin(), b.kafka.secret_properties.end(), same);
}

// Both come from the same operator, so that comparing secrets leaks nothing.
struct Same {
  Config& a;
  Config& b;
  bool operator()(std::monostate) const { return same_properties(a, b); }
  bool operator()(Secret& (*member)(Config&)) const {
    return member(a).reveal() == member(b).reveal();
  }
  bool operator()(const ChoiceMember& member) const { return member.get(a) == member.get(b); }
  template <class T>
  bool operator()(T& (*member)(Config&)) const {
    return member(a) == member(b);
  }
};

struct Take {
  Config& from;
  Config& to;
  void operator()(std::monostate) const { to.kafka.properties = from.kafka.properties; }
  void operator()(const ChoiceMember& member) const { member.set(to, member.get(from)); }
  template <class T>
  void operator()(T& (*member)(Config&)) const {
    member(to) = member(from);
  }
};

}  // namespace

Reloaded reloaded(const Config& running, Config next) {
  Reloaded out{running, {}, {}};
  for (const Option& option : options()) {
    if (std::visit(Same{out.config, next}, option.member)) continue;
    (option.reloadable ? out.changed : out.ignored).push_back(full_name(option));
    if (option.reloadable) std::visit(Take{next, out.config}, option.member);
  }
  return out;
}

}  // namespace relay::config
