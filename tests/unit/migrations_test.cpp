// SPDX-License-Identifier: Apache-2.0
// The files of the schemas that are embedded into the program, and the scripts that install them.
#include "relay/postgres/migrations.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <regex>
#include <string>

namespace relay {
namespace {

using Kind = SchemaFile::Kind;

const std::vector<SchemaFile> made_up = {
    {Kind::roles, 0, "000_roles", "roles"},
    {Kind::schema, 0, "schema", "schema of %OWNER%: %OWNER%"},
    {Kind::version, 1, "001_tables", "first"},
    {Kind::version, 2, "002_column", "second"},
    {Kind::version, 3, "003_index", "third"},
    {Kind::functions, 0, "accept", "functions"},
    {Kind::grants, 0, "999_grants", "grants"},
};

std::string recorded(int version, const std::string& name) {
  return "insert into inbox.schema_version (number, name) values (" + std::to_string(version) +
         ", '" + name + "')";
}

TEST(SchemaFiles, OfEachSchemaAreRolesSchemaEachVersionFunctionsGrants) {
  for (const Schema schema : all_schemas) {
    const auto& files = schema_files(schema);
    EXPECT_TRUE(std::is_sorted(files.begin(), files.end(), [](auto& a, auto& b) {
      return a.kind < b.kind;
    })) << name_of(schema);
    int version = 0;
    std::map<Kind, int> of_kind;
    for (const SchemaFile& file : files) {
      ++of_kind[file.kind];
      EXPECT_EQ(file.version, file.kind == Kind::version ? ++version : 0)
          << name_of(schema) << "/" << file.name;
    }
    EXPECT_EQ(schema_version(schema), version);
    EXPECT_GE(version, 1);
    EXPECT_GE(of_kind[Kind::functions], 1);
    for (const Kind kind : {Kind::roles, Kind::schema, Kind::grants})
      EXPECT_EQ(of_kind[kind], 1) << name_of(schema);
  }
}

TEST(SchemaFiles, HoldNothingThatIsToBeExpanded) {
  const std::regex placeholder("@include|@[A-Z]+@");
  for (const Schema schema : all_schemas) {
    for (const SchemaFile& file : schema_files(schema)) {
      const std::string sql = file.sql;
      EXPECT_FALSE(std::regex_search(sql, placeholder)) << name_of(schema) << "/" << file.name;
      EXPECT_EQ(sql.find("%OWNER%") != std::string::npos, file.kind == Kind::schema)
          << name_of(schema) << "/" << file.name;
      for (const Schema other : all_schemas) {
        if (other == schema) continue;
        EXPECT_EQ(sql.find(std::string(" ") + name_of(other) + "."), std::string::npos)
            << name_of(schema) << "/" << file.name;
      }
    }
  }
}

TEST(InstallScript, OfAnEmptyDatabaseRunsEverythingInOrderAsTheOwner) {
  EXPECT_EQ(create_script(Schema::inbox, made_up, true),
            (std::vector<std::string>{"roles", "schema of 'inbox_owner': 'inbox_owner'"}));
  EXPECT_EQ(
      install_script(Schema::inbox, made_up, 0, true),
      (std::vector<std::string>{"set local role inbox_owner", "first", recorded(1, "001_tables"),
                                "second", recorded(2, "002_column"), "third",
                                recorded(3, "003_index"), "functions", "grants"}));
}

TEST(InstallScript, OfAnOlderVersionRunsTheLaterOnesOnce) {
  EXPECT_EQ(install_script(Schema::inbox, made_up, 2, true),
            (std::vector<std::string>{"set local role inbox_owner", "third",
                                      recorded(3, "003_index"), "functions", "grants"}));
  EXPECT_EQ(install_script(Schema::inbox, made_up, 3, true),
            (std::vector<std::string>{"set local role inbox_owner", "functions", "grants"}));
}

TEST(InstallScript, WithoutRolesNamesNone) {
  EXPECT_EQ(create_script(Schema::inbox, made_up, false),
            (std::vector<std::string>{"schema of current_user: current_user"}));
  EXPECT_EQ(install_script(Schema::inbox, made_up, 3, false),
            (std::vector<std::string>{"functions", "grants"}));
}

}  // namespace
}  // namespace relay
