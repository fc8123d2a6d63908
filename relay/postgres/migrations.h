// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <vector>

namespace outbox {

// The schemas that this program installs, in the order in which it does. Each stands for itself, with a version and an owner of
// its own: a consumer's database need not have an outbox.
enum class Schema { outbox, inbox, effect };
inline constexpr std::array all_schemas = {Schema::outbox, Schema::inbox, Schema::effect};

// Its name in the database, which is also that of its folder in sql/.
constexpr const char* name_of(Schema schema) {
  switch (schema) {
    case Schema::outbox: return "outbox";
    case Schema::inbox: return "inbox";
    case Schema::effect: break;
  }
  return "effect";
}

// A file of sql/SCHEMA/: 0 creates the roles, 999 grants, the others are the versions of the schema.
struct Migration {
  Schema schema;
  int number;
  const char* name;
  const char* sql;
};

constexpr int roles_number = 0;
constexpr int grants_number = 999;

// All of one schema, ascending; embedded at build time.
const std::vector<Migration>& migrations(Schema schema);

// The version of the schema that this program works with.
inline int schema_version(Schema schema) {
  int newest = 0;
  for (const Migration& m : migrations(schema)) {
    if (m.number != grants_number) newest = m.number;
  }
  return newest;
}

}  // namespace outbox
