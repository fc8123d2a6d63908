// SPDX-License-Identifier: Apache-2.0
#include "relay/commands/command.h"

#include <cstdio>

namespace relay {

Result<Config> Invocation::load(config::Required required) const {
  return config::load(file_.empty() ? std::nullopt : std::optional(file_),
                      config::process_environment(), required);
}

static std::function<int(const Invocation&)> with(config::Required required,
                                                  std::function<int(const Config&)> run) {
  return [required, run = std::move(run)](const Invocation& invocation) {
    const auto config = invocation.load(required);
    return config ? run(*config) : report(config.error());
  };
}

std::function<int(const Invocation&)> with_config(std::function<int(const Config&)> run) {
  return with(config::Required::all, std::move(run));
}

std::function<int(const Invocation&)> with_database(std::function<int(const Config&)> run) {
  return with(config::Required::postgres, std::move(run));
}

int report(const Error& error) {
  std::fprintf(stderr, "outbox-relay: %s\n", error.text().c_str());
  return exit_code(error.fault);
}

CommandOption json_option(bool* json) {
  return {.name = "--json", .value = json, .text = "Print JSON."};
}

CommandOption limit_option(std::int64_t* limit) {
  return {.name = "--limit",
          .value = limit,
          .placeholder = "N",
          .text = "List at most N. Defaults to 100.",
          .check = ValueCheck::positive};
}

CommandOption list_topic_option(std::string* topic) {
  return {.name = "--topic",
          .value = topic,
          .placeholder = "TOPIC",
          .text = "Only messages of this topic. Defaults to all topics."};
}

CommandOption why_option(std::string* why, bool required) {
  return {.name = "--why",
          .value = why,
          .placeholder = "TEXT",
          .text = required ? "The reason, which is recorded. Required."
                           : "The reason, which is recorded.",
          .required = required};
}

CommandOption by_option(std::string* by) {
  return {.name = "--by",
          .value = by,
          .placeholder = "NAME",
          .text = "The operator, who is recorded. Defaults to the login of the database."};
}

}  // namespace relay
