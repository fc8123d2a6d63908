// SPDX-License-Identifier: Apache-2.0
// The schemas that init installs, and the scripts that install them. The files of sql/ are embedded
// at build time: see sql/README.md.
#pragma once

#include <array>
#include <span>
#include <string>
#include <vector>

namespace relay {

// The schemas that this program installs, in the order in which it does. Each stands for itself,
// with a version and an owner of its own: a consumer's database need not have an outbox.
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

// A file of sql/SCHEMA/. Those with a version run once, the others at each init.
struct SchemaFile {
  // In the order in which they run.
  enum class Kind {
    roles,      // 000_roles.sql, by the login
    schema,     // creates the schema, by the login; %OWNER% stands for the name of its owner
    version,    // NNN_*.sql, by the owner of the schema, like those that follow
    functions,  // functions/*.sql
    grants      // 999_grants.sql
  };
  Kind kind;
  int version;  // 0 but for Kind::version
  const char* name;
  const char* sql;
};

// All files of a schema, in the order in which they run; embedded at build time.
const std::vector<SchemaFile>& schema_files(Schema schema);

// The version of the schema that these files make.
int newest_version(std::span<const SchemaFile> files);

// The version of the schema that this program works with.
inline int schema_version(Schema schema) { return newest_version(schema_files(schema)); }

// Must be the first statement of the transaction that installs: of several at once, each sees what
// those before it installed.
std::string install_lock_sql();

// Creates the schema if it is missing; refuses one that is not init's, and changes nothing of it.
std::string schema_sql(Schema schema, std::span<const SchemaFile> files, bool roles);

// What the login runs: creates the roles, if `roles`, and the schema. Can be repeated.
std::vector<std::string> create_script(Schema schema, std::span<const SchemaFile> files,
                                       bool roles);

// What the owner of the schema runs: versions above `installed`, then functions and grants. The
// login becomes the owner, if `roles`.
std::vector<std::string> install_script(Schema schema, std::span<const SchemaFile> files,
                                        int installed, bool roles);

}  // namespace relay
