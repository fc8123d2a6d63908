// SPDX-License-Identifier: Apache-2.0
// config: prints or checks the configuration.
#include <cstdio>
#include <memory>

#include "relay/commands/commands.h"
#include "relay/config/reference.h"

namespace relay {
namespace {

struct ConfigOptions {
  bool defaults = false;
  std::string file_to_check;
};

int check_file(const std::string& file) {
  const auto loaded = config::load(file, config::process_environment());
  if (!loaded) return report(loaded.error());
  std::printf("%s: no errors\n", file.c_str());
  return 0;
}

int run(const Invocation& invocation, const ConfigOptions& options) {
  if (!options.file_to_check.empty()) return check_file(options.file_to_check);
  if (options.defaults) {
    std::fputs(config::annotated_toml().c_str(), stdout);
    return 0;
  }
  const auto loaded = invocation.load();
  if (!loaded) return report(loaded.error());
  std::fputs(config::effective_toml(*loaded).c_str(), stdout);
  return 0;
}

}  // namespace

Command config_command() {
  const auto options = std::make_shared<ConfigOptions>();
  return {
      .name = "config",
      .summary = "Prints the effective configuration, without secrets.",
      .options =
          {{.name = "--defaults",
            .value = &options->defaults,
            .text = "Print the annotated configuration file instead, every option at its default.",
            .excludes = {"--config"}},
           {.name = "--check",
            .value = &options->file_to_check,
            .placeholder = "FILE",
            .text = "Check instead whether the relay could start with this file and this "
                    "environment, and print all errors.",
            .excludes = {"--defaults", "--config"}}},
      .exit_codes = {done_code, usage_code},
      .reference = R"(
[Configuration](configuration.md) describes the options.
)",
      .examples = {{"config --check relay.toml", "Checks a file before it is deployed."},
                   {"config --defaults > relay.toml",
                    "Writes a configuration file to start from."}},
      .help_footer = config::help_text,
      .run = [options](const Invocation& invocation) { return run(invocation, *options); },
  };
}

}  // namespace relay
