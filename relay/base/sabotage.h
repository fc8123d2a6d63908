// SPDX-License-Identifier: Apache-2.0
// Deliberate defects, so that the tests can show that their checkers catch them. They exist only in outbox-relay-sabotaged,
// which CMake refuses to build in a Release; everywhere else SABOTAGED() is the constant false.
#pragma once

#ifdef OUTBOX_SABOTAGE
#include <cstdlib>
#include <string_view>

namespace outbox {
inline bool sabotaged(std::string_view defect) {
  static const char* const chosen = std::getenv("OUTBOX_SABOTAGE");
  return chosen != nullptr && defect == chosen;
}
}  // namespace outbox
#define SABOTAGED(defect) (::outbox::sabotaged(#defect))
#else
#define SABOTAGED(defect) false
#endif
