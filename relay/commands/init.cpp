// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdio>
#include <map>

#include "relay/commands/commands.h"
#include "relay/commands/context.h"
#include "relay/config/value.h"
#include "relay/kafka/admin.h"
#include "relay/postgres/guards.h"

namespace outbox {
namespace {

using Installed = std::map<Schema, int>;  // 0: not there

std::string recorded(const Migration& m) {
  return std::string("insert into ") + name_of(m.schema) + ".schema_version (number, name) values (" + std::to_string(m.number) + ", '" +
         m.name + "')";
}

// What the login itself creates.
void append_roles(std::vector<std::string>& script, Schema schema, bool create, bool roles) {
  const std::string name = name_of(schema);
  const auto& all = migrations(schema);
  const auto file = std::find_if(all.begin(), all.end(), [](const Migration& m) { return m.number == roles_number; });
  if (roles && file != all.end()) script.emplace_back(file->sql);
  if (create) script.push_back("create schema if not exists " + name + (roles ? " authorization " + name + "_owner" : ""));
}

// What the owner of the schema runs.
void append_versions(std::vector<std::string>& script, Schema schema, int installed, bool roles) {
  if (roles) script.push_back(std::string("set local role ") + name_of(schema) + "_owner");
  for (const Migration& m : migrations(schema)) {
    if (m.number == roles_number || m.number <= installed) continue;
    script.emplace_back(m.sql);
    if (m.number != grants_number) script.push_back(recorded(m));
  }
}

// The statements that bring a database from what is installed to the present versions, in order. What the login must create itself
// comes first, so that no `reset role` is needed between the owners: it would undo a role that was set before a printed script is run.
std::vector<std::string> script_from(const Installed& installed, bool roles) {
  std::vector<std::string> script;
  for (const auto& [schema, version] : installed) append_roles(script, schema, version == 0, roles);
  for (const auto& [schema, version] : installed) append_versions(script, schema, version, roles);
  return script;
}

Result<Installed> look_at(postgres::Control& control, const std::set<Schema>& schemas) {
  Installed installed;
  for (const Schema schema : schemas) {
    auto found = postgres::installed_schema(control, schema);
    if (!found) return found.error();
    const int version = installed[schema] = found->value_or(0);
    if (version <= schema_version(schema)) continue;
    return Error{Fault::refused, std::string("the ") + name_of(schema) + " schema has version " + std::to_string(version) +
                                     ", this program knows only " + std::to_string(schema_version(schema)), "run a newer outbox-relay"};
  }
  return installed;
}

void print_plan(const Installed& installed) {
  for (const auto& [schema, version] : installed) {
    const int wanted = schema_version(schema);
    std::printf("schema %s: version %d installed, %d wanted%s\n", name_of(schema), version, wanted,
                version < wanted ? ("; see --print-sql --from " + std::to_string(version)).c_str() : "; grants would be renewed");
  }
}

int create_topic(const Config& config, bool dry_run) {
  const auto options = kafka_options(config);
  if (dry_run) {
    std::printf("would create the progress topic %s, if it is missing\n", options.progress_topic.c_str());
    return 0;
  }
  auto created = kafka::create_progress_topic(options, Deadline(Millis{20'000}));
  if (!created) return report(created.error());
  std::printf("progress topic %s: %s\n", options.progress_topic.c_str(), *created ? "created" : "was there");
  return 0;
}

}  // namespace

Result<std::set<Schema>> schemas_named(const std::string& list) {
  std::set<Schema> named;
  for (const std::string& name : config::split_list(list)) {
    const auto known = std::find_if(all_schemas.begin(), all_schemas.end(), [&](Schema s) { return name == name_of(s); });
    if (known == all_schemas.end()) {
      return Error{Fault::usage, "there is no schema " + config::in_quotes(name), "the schemas are outbox, inbox and effect"};
    }
    named.insert(*known);
  }
  return named;
}

int print_sql(const InitOptions& options) {
  Installed installed;
  for (const Schema schema : options.schemas) {
    if (options.from > schema_version(schema)) {
      return report({Fault::usage, std::string("--from: the ") + name_of(schema) + " schema has no version " + std::to_string(options.from),
                     "the newest that this program knows is " + std::to_string(schema_version(schema))});
    }
    installed[schema] = options.from;
    std::printf("-- %s schema version %d, from version %d\n", name_of(schema), schema_version(schema), options.from);
  }
  std::printf("-- run as one transaction by a role that may create roles and schemas\nbegin;\n");
  for (const auto& statement : script_from(installed, options.roles)) std::printf("%s;\n", statement.c_str());
  std::printf("commit;\n");
  return 0;
}

int init(const Config& config, const InitOptions& options) {
  auto control = open_control(config);
  if (!control) return report(control.error());
  const auto installed = look_at(**control, options.schemas);
  if (!installed) return report(installed.error());
  if (options.dry_run) {
    print_plan(*installed);
  } else {
    if (auto r = (*control)->script("creating the schema", script_from(*installed, options.roles)); !r) {
      Error e = r.error();
      if (options.roles) e.hint = "init needs CREATEROLE and CREATE on the database; with --no-roles it creates no roles";
      return report(e);
    }
    for (const auto& [schema, version] : *installed) {
      std::printf("schema %s: version %d, was %d\n", name_of(schema), schema_version(schema), version);
    }
  }
  return options.kafka ? create_topic(config, options.dry_run) : 0;
}

}  // namespace outbox
