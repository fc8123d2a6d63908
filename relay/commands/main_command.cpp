// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>

#include "relay/commands/commands.h"
#include "relay/commands/context.h"

namespace outbox {

int main_command(int argc, char** argv, std::function<void(Phase)> at_phase) {
  CLI::App app{"Publishes the messages of a PostgreSQL outbox to Kafka, once.", "outbox-relay"};
  app.require_subcommand(1);
  std::string file;
  int code = 0;

  // Every command that needs the configuration is called with it, or not at all.
  const auto configured = [&](std::function<int(const Config&)> command) {
    return [&file, &code, command = std::move(command)] {
      auto config = config::load(file.empty() ? std::nullopt : std::optional(file), config::process_environment());
      code = config ? command(*config) : report(config.error());
    };
  };
  const auto add = [&](const char* name, const char* description) {
    CLI::App* const sub = app.add_subcommand(name, description);
    sub->add_option("--config", file, "Configuration file. Defaults to /etc/outbox-relay/relay.toml, else ./relay.toml");
    return sub;
  };

  add("run", "Runs the relay until SIGTERM")->callback(configured([&](const Config& c) { return run(c, at_phase); }));

  InitOptions init_options;
  bool no_roles = false;
  CLI::App* const init_command = add("init", "Creates or upgrades the schema");
  init_command->add_flag("--dry-run", init_options.dry_run, "Only say what would be done");
  init_command->add_flag("--print-sql", init_options.print_sql, "Print the SQL instead, for Flyway, Liquibase or psql");
  init_command->add_flag("--no-roles", no_roles, "Create no roles; everything is owned by the current user");
  init_command->add_flag("--kafka", init_options.kafka, "Create the progress topic as well");
  init_command->callback([&] {
    init_options.roles = !no_roles;
    if (init_options.print_sql) code = print_sql(init_options);
    else configured([&](const Config& c) { return init(c, init_options); })();
  });

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : exit_code(Fault::usage);
  }
  return code;
}

}  // namespace outbox
