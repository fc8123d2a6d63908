// SPDX-License-Identifier: Apache-2.0
// init: creates or upgrades the schemas.
#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <set>

#include "relay/commands/commands.h"
#include "relay/commands/context.h"
#include "relay/config/parse.h"
#include "relay/core/recovery.h"
#include "relay/kafka/admin.h"
#include "relay/kafka/progress.h"
#include "relay/postgres/connection.h"
#include "relay/postgres/migrations.h"
#include "relay/postgres/startup_checks.h"

namespace relay {
namespace {

struct InitOptions {
  std::string list = "outbox";  // of --schema
  std::set<Schema> schemas;     // the schemas of the list
  bool dry_run = false;
  bool print_sql = false;
  std::int64_t from = 0;  // the installed version, for --print-sql
  bool no_roles = false;
  bool kafka = false;
};

using Installed = std::map<Schema, int>;  // 0: not there

// What the login must create itself comes first, so that no `reset role` is needed between the
// owners: it would undo a role that was set before a printed script is run.
std::vector<std::string> creating(const std::set<Schema>& schemas, bool roles) {
  std::vector<std::string> script;
  for (const Schema schema : schemas) {
    for (auto& sql : create_script(schema, schema_files(schema), roles)) {
      script.push_back(std::move(sql));
    }
  }
  return script;
}

// The statements that bring what is installed to the present versions.
std::vector<std::string> installing(const Installed& installed, bool roles) {
  std::vector<std::string> script;
  for (const auto& [schema, version] : installed) {
    for (auto& sql : install_script(schema, schema_files(schema), version, roles)) {
      script.push_back(std::move(sql));
    }
  }
  return script;
}

Result<Installed> look_at(const postgres::PqxxSession::Execute& execute,
                          const std::set<Schema>& schemas) {
  Installed installed;
  for (const Schema schema : schemas) {
    const std::string table = std::string(name_of(schema)) + ".schema_version";
    int& version = installed[schema];
    if (execute("select pg_catalog.to_regclass('" + table + "') is not null")[0][0].as<bool>()) {
      version = execute("select coalesce(max(v.number), 0) from " + table + " v")[0][0].as<int>();
    }
    if (version <= schema_version(schema)) continue;
    return Error{Fault::refused,
                 std::string("the ") + name_of(schema) + " schema has version " +
                     std::to_string(version) + ", this program knows only " +
                     std::to_string(schema_version(schema)),
                 "run a newer outbox-relay"};
  }
  return installed;
}

// What the server said of a statement of init. The general hints, of which some say to run init, do
// not apply here. Where schema.sql refuses, the server's text ends with a hint.
Error install_error(const pqxx::sql_error& e, bool roles) {
  Error error{Fault::postgres,
              "PostgreSQL, creating the schema: " + postgres::trimmed(std::string(e.what()))};
  // libpqxx 6 has no code where it throws a class of its own.
  if (dynamic_cast<const pqxx::insufficient_privilege*>(&e) != nullptr) {
    error.fault = Fault::refused;
    if (roles)
      error.hint =
          "init needs CREATEROLE and CREATE on the database; with --no-roles it creates no roles";
  } else if (e.sqlstate() == "55000") {
    error.fault = Fault::refused;
  } else if (e.sqlstate() == "55P03") {
    error.hint =
        "another session holds a lock that init needs: a long transaction, a dump or another init. "
        "Nothing was changed; pg_locks and pg_blocking_pids() show which; run init again later";
  }
  return error;
}

template <class Body>
Result<void> explained(const Body& body, const postgres::PqxxSession::Execute& execute,
                       bool roles) {
  try {
    return body(execute);
  } catch (const pqxx::sql_error& e) {
    return install_error(e, roles);
  }
}

// One at a time: each looks at what is installed only when those before it have committed, and at
// schemas of which it knows the owner.
Result<Installed> install(postgres::PqxxSession& control, const InitOptions& options) {
  using Execute = postgres::PqxxSession::Execute;
  Installed installed;
  const bool roles = !options.no_roles;
  const auto body = [&](const Execute& execute) -> Result<void> {
    execute(install_lock_sql());
    for (const auto& sql : creating(options.schemas, roles)) execute(sql);
    auto found = look_at(execute, options.schemas);
    if (!found) return found.error();
    installed = std::move(*found);
    for (const auto& sql : installing(installed, roles)) execute(sql);
    return {};
  };
  auto done = control.transact("creating the schema",
                               [&](const Execute& e) { return explained(body, e, roles); });
  if (!done) return done.error();
  return installed;
}

// What is installed; changes nothing, and refuses what install() would of the schemas that are
// there.
Result<Installed> inspect(postgres::PqxxSession& control, const InitOptions& options) {
  using Execute = postgres::PqxxSession::Execute;
  Installed installed;
  const bool roles = !options.no_roles;
  const auto body = [&](const Execute& execute) -> Result<void> {
    for (const Schema schema : options.schemas) {
      const std::string exists =
          std::string("select pg_catalog.to_regnamespace('") + name_of(schema) + "') is not null";
      if (execute(exists)[0][0].as<bool>())
        execute(schema_sql(schema, schema_files(schema), roles));
    }
    auto found = look_at(execute, options.schemas);
    if (!found) return found.error();
    installed = std::move(*found);
    return {};
  };
  auto done = control.transact("looking at the schemas",
                               [&](const Execute& e) { return explained(body, e, roles); });
  if (!done) return done.error();
  return installed;
}

void print_plan(const Installed& installed) {
  for (const auto& [schema, version] : installed) {
    const int wanted = schema_version(schema);
    std::printf("schema %s: version %d installed, %d wanted%s\n", name_of(schema), version, wanted,
                version < wanted ? ("; see --print-sql --from " + std::to_string(version)).c_str()
                                 : "; functions and grants would be renewed");
  }
}

// Refuses a name that belongs to another database. Where the record cannot be read, `run` says so.
Result<void> refuse_foreign_name(postgres::PqxxSession& control, const Config& config) {
  const auto here = postgres::identify(control, postgres_options(config));
  const auto progress =
      kafka::read_progress(kafka_options(config), false, Deadline(Millis{10'000}));
  if (!here || !progress) return {};
  const auto batch = control.run("reading the journal", "select from outbox.batch limit 1");
  if (!batch) return batch.error();
  if (auto error = foreign(*here, *progress, !batch->empty())) return *error;
  return {};
}

int create_topic(const Config& config, postgres::PqxxSession& control, bool dry_run) {
  const auto options = kafka_options(config);
  if (dry_run) {
    std::printf("would create the progress topic %s, if it is missing\n",
                options.progress_topic.c_str());
    return 0;
  }
  auto created = kafka::create_progress_topic(options, Deadline(Millis{20'000}));
  if (!created) return report(created.error());
  std::printf("progress topic %s: %s\n", options.progress_topic.c_str(),
              *created ? "created" : "was there");
  if (*created) return 0;
  const auto ours = refuse_foreign_name(control, config);
  return ours ? 0 : report(ours.error());
}

// The schemas of a list such as "inbox,effect".
Result<std::set<Schema>> schemas_named(const std::string& list) {
  std::set<Schema> named;
  for (const std::string& name : config::split_list(list)) {
    const auto known = std::find_if(all_schemas.begin(), all_schemas.end(),
                                    [&](Schema s) { return name == name_of(s); });
    if (known == all_schemas.end()) {
      return Error{Fault::usage, "there is no schema " + config::in_quotes(name),
                   "the schemas are outbox, inbox and effect"};
    }
    named.insert(*known);
  }
  return named;
}

// As init's own sessions have it: without, a lock that does not come lets every client of the
// tables wait behind the script.
constexpr const char* lock_timeout_sql = "set local lock_timeout = '30s'";

// Needs no configuration.
int print_sql(const InitOptions& options) {
  Installed installed;
  for (const Schema schema : options.schemas) {
    if (options.from > schema_version(schema)) {
      return report(
          {Fault::usage,
           std::string("--from: the ") + name_of(schema) + " schema has no version " +
               std::to_string(options.from),
           "the newest that this program knows is " + std::to_string(schema_version(schema))});
    }
    installed[schema] = static_cast<int>(options.from);
    std::printf("-- %s schema version %d, from version %d\n", name_of(schema),
                schema_version(schema), installed[schema]);
  }
  std::printf("-- run as one transaction by a role that may create roles and schemas\n");
  std::printf("begin isolation level read committed;\n%s;\n%s;\n", lock_timeout_sql,
              install_lock_sql().c_str());
  for (const auto& sql : creating(options.schemas, !options.no_roles)) {
    std::printf("%s;\n", sql.c_str());
  }
  for (const auto& sql : installing(installed, !options.no_roles)) {
    std::printf("%s;\n", sql.c_str());
  }
  std::printf("commit;\n");
  return 0;
}

// All schemas in one transaction: they all exist afterwards, or nothing was changed.
int init(const Config& config, const InitOptions& options) {
  auto control = open_control(config);
  if (!control) return report(control.error());
  const auto installed =
      options.dry_run ? inspect(**control, options) : install(**control, options);
  if (!installed) return report(installed.error());
  if (options.dry_run) {
    print_plan(*installed);
  } else {
    for (const auto& [schema, version] : *installed) {
      std::printf("schema %s: version %d, was %d\n", name_of(schema), schema_version(schema),
                  version);
    }
  }
  return options.kafka ? create_topic(config, **control, options.dry_run) : 0;
}

std::optional<Error> validate(InitOptions& options) {
  auto schemas = schemas_named(options.list);
  if (!schemas) return schemas.error();
  options.schemas = *schemas;
  if (options.kafka && !schemas->contains(Schema::outbox)) {
    return Error{Fault::usage,
                 "--kafka: the progress topic belongs to the schema outbox, which --schema omits"};
  }
  if (options.from != 0 && schemas->size() != 1) {
    return Error{Fault::usage, "--from: each schema has its own version: name one with --schema"};
  }
  return std::nullopt;
}

int run(const Invocation& invocation, const InitOptions& options) {
  if (options.print_sql) return print_sql(options);
  const auto config =
      invocation.load(options.kafka ? config::Required::all : config::Required::postgres);
  return config ? init(*config, options) : report(config.error());
}

std::vector<CommandOption> command_options(InitOptions& o) {
  return {
      {.name = "--schema",
       .value = &o.list,
       .placeholder = "LIST",
       .text = "The schemas to create: outbox, inbox and effect, separated by commas. Defaults to "
               "outbox. Without "
               "outbox, only postgres.dsn is required in the configuration."},
      {.name = "--dry-run",
       .value = &o.dry_run,
       .text = "Print what would be done, and change nothing."},
      {.name = "--kafka",
       .value = &o.kafka,
       .text = "Create the progress topic of the outbox as well."},
      {.name = "--no-roles",
       .value = &o.no_roles,
       .text = "Create no roles. The current user owns all objects."},
      {.name = "--print-sql",
       .value = &o.print_sql,
       .text = "Print the SQL, for Flyway, Liquibase or psql. Needs no configuration.",
       .excludes = {"--dry-run", "--kafka"}},
      {.name = "--from",
       .value = &o.from,
       .placeholder = "VERSION",
       .text = "With --print-sql: print the upgrade from this version of one schema. Defaults to "
               "0: a new schema.",
       .check = ValueCheck::not_negative,
       .needs = {"--print-sql"}},
  };
}

}  // namespace

Command init_command() {
  const auto options = std::make_shared<InitOptions>();
  return {
      .name = "init",
      .summary =
          "Creates or upgrades the schema outbox, or the schemas of --schema, with their roles.",
      .details =
          "It can be run again: existing objects are kept, and the privileges of the roles are "
          "granted again. "
          "All schemas are created in one transaction: either all of them are created, or nothing "
          "is changed. "
          "Run it as a role that may create roles and schemas, not as the role of the relay.",
      .options = command_options(*options),
      .exit_codes =
          {done_code,
           usage_code,
           postgres_code,
           {4, "Kafka"},
           {5,
            "refused: a schema is newer than this program or is not that of init, the encoding of "
            "the database cannot hold an outbox, or a privilege is missing"}},
      .examples = {{"init --kafka", "Creates the schema outbox and the progress topic."},
                   {"init --schema inbox,effect",
                    "Creates the schemas of a consumer in its database."},
                   {"init --print-sql --from 1",
                    "Prints the upgrade of the schema outbox from version 1."}},
      .validate = [options] { return validate(*options); },
      .run = [options](const Invocation& invocation) { return run(invocation, *options); },
  };
}

}  // namespace relay
