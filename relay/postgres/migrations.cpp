// SPDX-License-Identifier: Apache-2.0
#include "relay/postgres/migrations.h"

#include <algorithm>

namespace relay {
namespace {

using Kind = SchemaFile::Kind;

// "outbox" in ASCII. Advisory locks are those of one database, and every program in it can take
// them.
constexpr long long install_lock = 0x6f7574626f78;

std::string with_owner(std::string sql, const std::string& owner) {
  const std::string placeholder = "%OWNER%";
  for (auto at = sql.find(placeholder); at != std::string::npos;
       at = sql.find(placeholder, at + owner.size())) {
    sql.replace(at, placeholder.size(), owner);
  }
  return sql;
}

std::string recorded(const std::string& schema, const SchemaFile& file) {
  return "insert into " + schema + ".schema_version (number, name) values (" +
         std::to_string(file.version) + ", '" + file.name + "')";
}

}  // namespace

int newest_version(std::span<const SchemaFile> files) {
  int newest = 0;
  for (const SchemaFile& file : files) newest = std::max(newest, file.version);
  return newest;
}

std::string install_lock_sql() {
  return "select pg_catalog.pg_advisory_xact_lock(" + std::to_string(install_lock) + ")";
}

std::string schema_sql(Schema schema, std::span<const SchemaFile> files, bool roles) {
  const std::string owner = roles ? "'" + std::string(name_of(schema)) + "_owner'" : "current_user";
  std::string sql;
  for (const SchemaFile& file : files) {
    if (file.kind == Kind::schema) sql = with_owner(file.sql, owner);
  }
  return sql;
}

std::vector<std::string> create_script(Schema schema, std::span<const SchemaFile> files,
                                       bool roles) {
  std::vector<std::string> script;
  for (const SchemaFile& file : files) {
    if (file.kind == Kind::roles && roles) script.emplace_back(file.sql);
  }
  script.push_back(schema_sql(schema, files, roles));
  return script;
}

std::vector<std::string> install_script(Schema schema, std::span<const SchemaFile> files,
                                        int installed, bool roles) {
  const std::string name = name_of(schema);
  std::vector<std::string> script;
  if (roles) script.push_back("set local role " + name + "_owner");
  for (const SchemaFile& file : files) {
    if (file.kind < Kind::version || (file.kind == Kind::version && file.version <= installed))
      continue;
    script.emplace_back(file.sql);
    if (file.kind == Kind::version) script.push_back(recorded(name, file));
  }
  return script;
}

}  // namespace relay
