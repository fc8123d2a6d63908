// SPDX-License-Identifier: Apache-2.0
// docs/sql.md is generated from the catalog of a database with the three schemas, and from
// docs/sql_examples, which are executed. What has an example there is for users of the schema; the
// functions without one are listed as internal.
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <regex>
#include <sstream>

#include "tests/support/generated_file.h"
#include "tests/support/test_outbox.h"

namespace relay {
namespace {

struct Schema {
  std::string name;
  const char* examples;
};
const Schema schemas[] = {{"outbox", "docs/sql_examples/outbox.sql"},
                          {"inbox", "docs/sql_examples/inbox.sql"},
                          {"effect", "docs/sql_examples/effect.sql"}};

struct Example {
  std::string object;  // schema.name
  std::string role;
  std::string statements;
};

std::vector<Example> examples_of(const Schema& schema) {
  static const std::regex title("-- (\\w+\\.\\w+), as (\\w+)");
  std::vector<Example> found;
  std::ifstream in(std::string(OUTBOX_SOURCE_DIR) + "/" + schema.examples);
  for (std::string line; std::getline(in, line);) {
    std::smatch match;
    if (std::regex_match(line, match, title)) {
      found.push_back({match[1], match[2], ""});
    } else if (!found.empty() && !(line.empty() && found.back().statements.empty())) {
      found.back().statements += line + "\n";
    }
  }
  for (Example& example : found) {
    while (example.statements.ends_with("\n\n")) example.statements.pop_back();
  }
  return found;
}

std::string replaced(std::string text, const char* pattern, const char* by) {
  return std::regex_replace(text, std::regex(pattern), by);
}

// A type or a list of arguments, as one writes it.
std::string shortened(std::string text) {
  text = replaced(std::move(text), "::[a-z]+( (with|without) time zone)?", "");
  text = replaced(std::move(text), "timestamp with time zone", "timestamptz");
  text = replaced(std::move(text), "DEFAULT NULL", "default null");
  text = replaced(std::move(text), "DEFAULT", "default");
  text = replaced(std::move(text), "SETOF", "setof");
  return replaced(std::move(text), "\\bTABLE\\(", "table(");
}

// A paragraph, in lines of at most 118 characters.
std::string wrapped(const std::string& text) {
  std::istringstream words(text);
  std::string out;
  std::size_t column = 0;
  for (std::string word; words >> word; column += word.size() + 1) {
    if (column + word.size() > 118) column = 0;
    if (!out.empty()) out += column == 0 ? '\n' : ' ';
    out += word;
  }
  return out + "\n";
}

// For a cell of a table.
std::string cell(const pqxx::field& field) {
  return field.is_null() ? "" : replaced(field.c_str(), "\\|", "\\|");
}

class SqlReference : public ::testing::Test {
 protected:
  // The roles of the schema $1 that `may` holds for, without their prefix.
  static std::string roles(const std::string& may) {
    return "(select string_agg(substr(r.rolname, length(n.nspname) + 2), ', ' order by r.rolname) "
           "from pg_roles r where r.rolname ~ ('^' || n.nspname || '_[a-z]+$') and "
           "r.rolname <> n.nspname || '_owner' and has_schema_privilege(r.oid, n.oid, 'usage') "
           "and " +
           may + ")";
  }

  pqxx::result functions(const std::string& schema) const {
    return db.sql(
        "select p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), "
        "obj_description(p.oid, 'pg_proc'), " +
        roles("has_function_privilege(r.oid, p.oid, 'execute')") +
        " from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname = '" +
        schema + "' and p.prorettype <> 'trigger'::regtype order by p.proname, 2");
  }

  pqxx::result relations(const std::string& schema) const {
    return db.sql(
        "select c.relname, case c.relkind when 'r' then 'Table' when 'v' then 'View' else 'Type' "
        "end, obj_description(c.oid, 'pg_class'), obj_description(c.reltype, 'pg_type'), c.oid "
        "from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = '" +
        schema + "' and c.relkind in ('r', 'v', 'c') order by 2, c.relname");
  }

  // The comment of the column of that name in the first table that has one: views show columns.
  static std::string of_the_table() {
    return "(select col_description(t.oid, ta.attnum) from pg_class t "
           "join pg_attribute ta on ta.attrelid = t.oid and ta.attname = a.attname "
           "where c.relkind = 'v' and t.relnamespace = n.oid and t.relkind in ('r', 'v') and "
           "col_description(t.oid, ta.attnum) is not null order by t.relkind, t.oid limit 1)";
  }

  pqxx::result columns(const std::string& relation) const {
    const auto holders = [](const std::string& privilege) {
      return roles("c.relkind <> 'c' and has_column_privilege(r.oid, c.oid, a.attnum, '" +
                   privilege + "')");
    };
    return db.sql(
        "select a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, "
        "coalesce(col_description(c.oid, a.attnum), " +
        of_the_table() + "), " + holders("select") + ", " + holders("insert") + ", " +
        holders("update") +
        " from pg_class c join pg_namespace n on n.oid = c.relnamespace "
        "join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped "
        "where c.oid = " +
        relation + " order by a.attnum");
  }

  std::string roles_of(const std::string& schema) const {
    std::string out = "| role | |\n| --- | --- |\n";
    for (const auto& row :
         db.sql("select r.rolname, shobj_description(r.oid, 'pg_authid') from pg_roles r "
                "where r.rolname ~ '^" +
                schema + "_[a-z]+$' order by 1")) {
      out += "| `" + cell(row[0]) + "` | " + cell(row[1]) + " |\n";
    }
    return out;
  }

  static std::string example_block(const std::vector<Example>& examples, const std::string& name) {
    std::string out;
    for (const Example& example : examples) {
      if (example.object == name)
        out += "\nAs `" + example.role + "`:\n\n```sql\n" + example.statements + "```\n";
    }
    return out;
  }

  std::string functions_of(const std::string& schema, const std::vector<Example>& examples) const {
    std::map<std::string, std::string> shown;  // all functions of a name
    std::string internal;
    for (const auto& row : functions(schema)) {
      const std::string name = schema + "." + row[0].c_str();
      std::string signature = name + "(" + shortened(row[1].c_str()) + ")";
      if (signature.size() > 100)
        signature = replaced(replaced(std::move(signature), "\\(", "(\n  "), ", ", ",\n  ");
      const bool is_public = !example_block(examples, name).empty();
      if (is_public) {
        shown[name] += "```\n" + signature + "\n  returns " + shortened(row[2].c_str()) +
                       "\n```\n\n" +
                       wrapped(row[3].as<std::string>("") + " Roles: " + cell(row[4]) + ".") + "\n";
      } else {
        internal += "| `" + name + "` | " + cell(row[3]) + " |\n";
      }
    }
    std::string out;
    for (const auto& [name, text] : shown) {
      out += "### " + name + "\n\n" + text.substr(0, text.size() - 1) +
             example_block(examples, name) + "\n";
    }
    return out + "### Internal functions of " + schema +
           "\n\nFor the functions above and for the programs of this project; they may change.\n\n"
           "| function | |\n| --- | --- |\n" +
           internal + "\n";
  }

  std::string relations_of(const std::string& schema, const std::vector<Example>& examples) const {
    std::string out;
    for (const auto& relation : relations(schema)) {
      const std::string name = schema + "." + relation[0].c_str();
      const bool is_type = relation[1].as<std::string>() == "Type";
      const auto comment = is_type ? relation[3] : relation[2];
      out += "### " + name + "\n\n" +
             wrapped(relation[1].as<std::string>() + ". " + comment.as<std::string>("")) + "\n";
      out += is_type ? "| column | type | |\n| --- | --- | --- |\n"
                     : "| column | type | | read by | inserted by | updated by |\n"
                       "| --- | --- | --- | --- | --- | --- |\n";
      for (const auto& row : columns(relation[4].c_str())) {
        out += "| `" + cell(row[0]) + "` | " + shortened(row[1].c_str()) +
               (row[2].as<bool>() ? ", not null" : "") + " | " + cell(row[3]) + " |";
        if (!is_type)
          out += " " + cell(row[4]) + " | " + cell(row[5]) + " | " + cell(row[6]) + " |";
        out += "\n";
      }
      out += example_block(examples, name) + "\n";
    }
    return out;
  }

  std::string section(const Schema& schema) const {
    const auto examples = examples_of(schema);
    return "## Schema " + schema.name + "\n\n" +
           wrapped(db.value("select obj_description('" + schema.name +
                            "'::regnamespace, 'pg_namespace')")) +
           "\n" + roles_of(schema.name) + "\n" + functions_of(schema.name, examples) +
           relations_of(schema.name, examples);
  }

  test::TestOutbox db{test::shared_postgres(), nullptr, "outbox,inbox,effect"};
};

constexpr const char* introduction =
    "Functions, tables and views of the schemas `outbox` ([ordering](ordering.md), "
    "[protocol](protocol.md)), `inbox` and `effect` ([consumers](consumers.md)), which "
    "`outbox-relay init` creates. Functions run with the rights of their caller. The roles cannot "
    "log in: grant them to your logins. Below, roles are named without the prefix of their schema, "
    "and the owner, who may do everything, is left out.";

TEST_F(SqlReference, ThePageIsCurrent) {
  std::string page =
      "<!-- SPDX-License-Identifier: Apache-2.0 -->\n"
      "<!-- Generated from the catalog and docs/sql_examples; do not edit. -->\n"
      "# SQL reference\n\n" +
      wrapped(introduction) + "\n";
  for (const Schema& schema : schemas) page += section(schema);
  page.pop_back();
  test::expect_current("docs/sql.md", page);
}

TEST_F(SqlReference, EveryExampleRunsAsTheRoleThatItNames) {
  for (const Schema& file : schemas) {
    const std::string& schema = file.name;
    const auto examples = examples_of(file);
    EXPECT_GE(examples.size(), 5U) << schema;
    for (const Example& example : examples) {
      EXPECT_TRUE(example.object.starts_with(schema + ".")) << example.object;
      EXPECT_NE(db.value("select to_regclass('" + example.object +
                         "') is not null or exists "
                         "(select from pg_proc p where p.pronamespace = '" +
                         schema + "'::regnamespace and p.proname = '" +
                         example.object.substr(schema.size() + 1) + "')"),
                "f")
          << "there is no " << example.object;
      const auto done = test::run_command({"/usr/bin/env", "psql", "-X", "-v", "ON_ERROR_STOP=1",
                                           "-d", db.login(example.role), "-c", example.statements},
                                          {});
      EXPECT_EQ(done.code, 0) << example.object << " as " << example.role << ":\n"
                              << example.statements << done.output;
      EXPECT_EQ(done.output.find("WARNING"), std::string::npos) << example.object << done.output;
    }
  }
}

TEST_F(SqlReference, EveryObjectAndColumnHasAComment) {
  for (const auto& [schema, examples] : schemas) {
    for (const auto& row : functions(schema)) EXPECT_FALSE(row[3].is_null()) << row[0].c_str();
    for (const auto& relation : relations(schema)) {
      const std::string name = schema + "." + relation[0].c_str();
      EXPECT_FALSE(relation[relation[1].as<std::string>() == "Type" ? 3 : 2].is_null()) << name;
      for (const auto& row : columns(relation[4].c_str())) {
        EXPECT_FALSE(row[3].is_null()) << name << "." << row[0].c_str();
      }
    }
  }
}

}  // namespace
}  // namespace relay
