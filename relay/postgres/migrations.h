// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace outbox {

// A file of sql/: 0 creates the roles, 999 grants, the others are the versions of the schema.
struct Migration {
  int number;
  const char* name;
  const char* sql;
};

constexpr int roles_number = 0;
constexpr int grants_number = 999;

// All of them, ascending; embedded at build time.
const std::vector<Migration>& migrations();

// The version of the schema that this program works with.
inline int schema_version() {
  int newest = 0;
  for (const Migration& m : migrations()) {
    if (m.number != grants_number) newest = m.number;
  }
  return newest;
}

}  // namespace outbox
