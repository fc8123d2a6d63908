// SPDX-License-Identifier: Apache-2.0
#include "relay/config/mistakes.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "relay/base/check.h"

namespace outbox::config {

std::string Place::text() const { return in_file() ? fmt::format("{}:{}:{}", source, line, column) : source; }

void Mistakes::add(Place place, std::string what, std::string hint) {
  all_.push_back(Mistake{std::move(place), std::move(what), std::move(hint)});
}

Error Mistakes::error() && {
  CHECK(!all_.empty());
  const auto order = [](const Mistake& m) { return std::tuple(!m.place.in_file(), m.place.line, m.place.column); };
  std::stable_sort(all_.begin(), all_.end(), [&](const Mistake& a, const Mistake& b) { return order(a) < order(b); });
  std::string what;
  for (const Mistake& mistake : all_) {
    what += fmt::format("{}: {}", mistake.place.text(), mistake.what);
    if (&mistake != &all_.back()) what += fmt::format("\nHINT: {}\n", mistake.hint);
  }
  return Error{Fault::usage, std::move(what), all_.back().hint};
}

}  // namespace outbox::config
