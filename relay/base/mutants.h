// SPDX-License-Identifier: Apache-2.0
// Deliberate defects, so that the tests can show that their checkers catch them. They exist only in
// outbox-relay-mutants, which CMake refuses to build in a Release; everywhere else MUTANT() is the
// constant false.
#pragma once

#ifdef OUTBOX_MUTANTS
#include <cstdlib>
#include <string_view>

namespace relay {
inline bool is_mutant(std::string_view defect) {
  static const char* const chosen = std::getenv("OUTBOX_MUTANT");
  return chosen != nullptr && defect == chosen;
}
}  // namespace relay
#define MUTANT(defect) (::relay::is_mutant(#defect))
#else
#define MUTANT(defect) false
#endif
