// SPDX-License-Identifier: Apache-2.0
// CHECK: asserts an invariant of the protocol, in release builds as well. Aborts the process if it
// does not hold. Never for bad data, which is an Error.
#pragma once

#include <cstdio>
#include <cstdlib>

#define CHECK(condition)                                                                   \
  do {                                                                                     \
    if (!(condition)) [[unlikely]] {                                                       \
      std::fprintf(stderr, "CHECK failed: %s at %s:%d\n", #condition, __FILE__, __LINE__); \
      std::abort();                                                                        \
    }                                                                                      \
  } while (false)
