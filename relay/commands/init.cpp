// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdio>
#include <map>

#include "relay/commands/commands.h"
#include "relay/commands/context.h"
#include "relay/config/parse.h"
#include "relay/kafka/admin.h"
#include "relay/postgres/migrations.h"

namespace outbox {
namespace {

using Installed = std::map<Schema, int>;  // 0: not there

// What the login must create itself comes first, so that no `reset role` is needed between the owners: it would undo a role that was
// set before a printed script is run.
std::vector<std::string> creating(const std::set<Schema>& schemas, bool roles) {
  std::vector<std::string> script;
  for (const Schema schema : schemas) {
    for (auto& sql : create_script(schema, schema_files(schema), roles)) script.push_back(std::move(sql));
  }
  return script;
}

// The statements that bring what is installed to the present versions.
std::vector<std::string> installing(const Installed& installed, bool roles) {
  std::vector<std::string> script;
  for (const auto& [schema, version] : installed) {
    for (auto& sql : install_script(schema, schema_files(schema), version, roles)) script.push_back(std::move(sql));
  }
  return script;
}

Result<Installed> look_at(const postgres::PqxxSession::Execute& execute, const std::set<Schema>& schemas) {
  Installed installed;
  for (const Schema schema : schemas) {
    const std::string table = std::string(name_of(schema)) + ".schema_version";
    int& version = installed[schema];
    if (execute("select pg_catalog.to_regclass('" + table + "') is not null")[0][0].as<bool>()) {
      version = execute("select coalesce(max(v.number), 0) from " + table + " v")[0][0].as<int>();
    }
    if (version <= schema_version(schema)) continue;
    return Error{Fault::refused, std::string("the ") + name_of(schema) + " schema has version " + std::to_string(version) +
                                     ", this program knows only " + std::to_string(schema_version(schema)), "run a newer outbox-relay"};
  }
  return installed;
}

// One at a time: each looks at what is installed only when those before it have committed, and at schemas of which it knows the owner.
Result<Installed> install(postgres::PqxxSession& control, const InitOptions& options) {
  Installed installed;
  auto done = control.transact("creating the schema", [&](const postgres::PqxxSession::Execute& execute) -> Result<void> {
    execute(install_lock_sql());
    for (const auto& statement : creating(options.schemas, options.roles)) execute(statement);
    auto found = look_at(execute, options.schemas);
    if (!found) return found.error();
    installed = std::move(*found);
    for (const auto& statement : installing(installed, options.roles)) execute(statement);
    return {};
  });
  if (done) return installed;
  Error e = done.error();
  if (e.what.find("HINT:") != std::string::npos) {
    e.hint.clear();  // the server's says it
  } else if (e.fault != Fault::refused || e.what.starts_with("PostgreSQL")) {
    if (options.roles) e.hint = "init needs CREATEROLE and CREATE on the database; with --no-roles it creates no roles";
  }
  return e;
}

void print_plan(const Installed& installed) {
  for (const auto& [schema, version] : installed) {
    const int wanted = schema_version(schema);
    std::printf("schema %s: version %d installed, %d wanted%s\n", name_of(schema), version, wanted,
                version < wanted ? ("; see --print-sql --from " + std::to_string(version)).c_str() : "; functions and grants would be renewed");
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
  std::printf("-- run as one transaction by a role that may create roles and schemas\nbegin isolation level read committed;\n%s;\n",
              install_lock_sql().c_str());
  for (const auto& statement : creating(options.schemas, options.roles)) std::printf("%s;\n", statement.c_str());
  for (const auto& statement : installing(installed, options.roles)) std::printf("%s;\n", statement.c_str());
  std::printf("commit;\n");
  return 0;
}

int init(const Config& config, const InitOptions& options) {
  auto control = open_control(config);
  if (!control) return report(control.error());
  if (options.dry_run) {
    Installed installed;
    auto looked = (*control)->transact("looking at the schemas", [&](const postgres::PqxxSession::Execute& execute) -> Result<void> {
      auto found = look_at(execute, options.schemas);
      if (!found) return found.error();
      installed = std::move(*found);
      return {};
    });
    if (!looked) return report(looked.error());
    print_plan(installed);
  } else {
    const auto installed = install(**control, options);
    if (!installed) return report(installed.error());
    for (const auto& [schema, version] : *installed) {
      std::printf("schema %s: version %d, was %d\n", name_of(schema), schema_version(schema), version);
    }
  }
  return options.kafka ? create_topic(config, options.dry_run) : 0;
}

}  // namespace outbox
