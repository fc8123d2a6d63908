// SPDX-License-Identifier: Apache-2.0
#include <cstdio>

#include "relay/commands/commands.h"
#include "relay/commands/context.h"
#include "relay/kafka/admin.h"
#include "relay/postgres/guards.h"
#include "relay/postgres/migrations.h"

namespace outbox {
namespace {

constexpr const char* as_owner = "set local role outbox_owner";

std::string recorded(const Migration& m) {
  return "insert into outbox.schema_version (number, name) values (" + std::to_string(m.number) + ", '" + m.name + "')";
}

// The statements that bring a database from `installed` to the present version, in order.
std::vector<std::string> script_from(int installed, bool roles) {
  std::vector<std::string> script;
  if (!roles && installed == 0) script.emplace_back("create schema if not exists outbox");
  for (const Migration& m : migrations(Schema::outbox)) {
    if (m.number == roles_number) {
      if (!roles) continue;
      script.emplace_back(m.sql);
      if (installed == 0) script.emplace_back("create schema if not exists outbox authorization outbox_owner");
      script.emplace_back(as_owner);
    } else if (m.number == grants_number) {
      script.emplace_back(m.sql);
    } else if (m.number > installed) {
      script.emplace_back(m.sql);
      script.push_back(recorded(m));
    }
  }
  return script;
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

int print_sql(const InitOptions& options) {
  std::printf("-- outbox schema version %d; run as one transaction by a role that may create roles and schemas\nbegin;\n",
              schema_version(Schema::outbox));
  for (const auto& statement : script_from(0, options.roles)) std::printf("%s;\n", statement.c_str());
  std::printf("commit;\n");
  return 0;
}

int init(const Config& config, const InitOptions& options) {
  auto control = open_control(config);
  if (!control) return report(control.error());
  auto found = postgres::installed_schema(**control, Schema::outbox);
  if (!found) return report(found.error());
  const int installed = found->value_or(0);
  const int wanted = schema_version(Schema::outbox);
  if (installed > wanted) {
    return report({Fault::refused, "the outbox schema has version " + std::to_string(installed) + ", this program knows only " +
                                       std::to_string(wanted), "run a newer outbox-relay"});
  }
  if (options.dry_run) {
    std::printf("schema outbox: version %d installed, %d wanted%s\n", installed, wanted,
                installed < wanted ? "; see --print-sql" : "; grants would be renewed");
  } else {
    if (auto r = (*control)->script("creating the schema", script_from(installed, options.roles)); !r) {
      Error e = r.error();
      if (options.roles) e.hint = "init needs CREATEROLE and CREATE on the database; with --no-roles it creates no roles";
      return report(e);
    }
    std::printf("schema outbox: version %d, was %d\n", wanted, installed);
  }
  return options.kafka ? create_topic(config, options.dry_run) : 0;
}

}  // namespace outbox
