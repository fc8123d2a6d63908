// SPDX-License-Identifier: Apache-2.0
// What makes a run longer, or repeats it.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <random>
#include <string>

namespace relay::test {

// A number that the environment can set; `otherwise` if it does not.
inline std::int64_t number_from(const char* variable, std::int64_t otherwise) {
  const char* const text = std::getenv(variable);
  return text != nullptr ? std::stoll(text) : otherwise;
}

// OUTBOX_SEED, or another one each time. Printed, so that the run can be repeated.
inline std::uint32_t seed_of_this_run() {
  const auto seed = static_cast<std::uint32_t>(number_from("OUTBOX_SEED", std::random_device{}()));
  std::cout << "OUTBOX_SEED=" << seed << std::endl;
  return seed;
}

}  // namespace relay::test
