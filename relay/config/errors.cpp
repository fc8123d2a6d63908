// SPDX-License-Identifier: Apache-2.0
#include "relay/config/errors.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "common/check.h"

namespace relay::config {

std::string Position::text() const {
  return in_file() ? fmt::format("{}:{}:{}", source, line, column) : source;
}

Error usage_error(std::string what, std::string hint) {
  return Error{Fault::usage, std::move(what), std::move(hint)};
}

void Errors::add(Position position, std::string what, std::string hint) {
  all_.push_back(Entry{std::move(position), std::move(what), std::move(hint)});
}

Error Errors::error() && {
  CHECK(!all_.empty());
  const auto order = [](const Entry& e) {
    return std::tuple(!e.position.in_file(), e.position.line, e.position.column);
  };
  std::stable_sort(all_.begin(), all_.end(),
                   [&](const Entry& a, const Entry& b) { return order(a) < order(b); });
  std::string what;
  for (const Entry& entry : all_) {
    what += fmt::format("{}: {}", entry.position.text(), entry.what);
    if (&entry != &all_.back()) what += fmt::format("\nHINT: {}\n", entry.hint);
  }
  return Error{Fault::usage, std::move(what), all_.back().hint};
}

}  // namespace relay::config
