// SPDX-License-Identifier: Apache-2.0
// version: prints versions.
#include <libpq-fe.h>
#include <librdkafka/rdkafka.h>

#include <cstdio>
#include <memory>
#include <pqxx/version>

#include "relay/commands/commands.h"
#include "relay/commands/output.h"
#include "relay/postgres/migrations.h"

namespace relay {
namespace {

// 150020 is 15.20.
std::string libpq_version() {
  const int number = PQlibVersion();
  return std::to_string(number / 10000) + "." + std::to_string(number % 10000);
}

int version(bool json) {
  if (json) {
    Json j = json_answer();
    j["version"] = OUTBOX_VERSION;
    j["librdkafka"] = rd_kafka_version_str();
    j["libpq"] = libpq_version();
    j["libpqxx"] = PQXX_VERSION;
    for (const Schema schema : all_schemas) {
      j[std::string(name_of(schema)) + "_schema"] = schema_version(schema);
    }
    print_json(j);
    return 0;
  }
  std::printf("outbox-relay  %s\nlibrdkafka    %s\nlibpq         %s\nlibpqxx       %s\n",
              OUTBOX_VERSION, rd_kafka_version_str(), libpq_version().c_str(), PQXX_VERSION);
  for (const Schema schema : all_schemas) {
    std::printf("schema %-6s %d\n", name_of(schema), schema_version(schema));
  }
  return 0;
}

}  // namespace

Command version_command() {
  const auto json = std::make_shared<bool>(false);
  return {
      .name = "version",
      .summary = "Prints the versions of the program, its libraries, and its schemas.",
      .options = {json_option(json.get())},
      .takes_config = false,
      .exit_codes = {done_code, {2, "usage"}},
      .reference = R"(
JSON: `version`, `librdkafka`, `libpq`, `libpqxx`, `outbox_schema`, `inbox_schema`, `effect_schema`.
)",
      .examples = {{"version --json", "Prints the versions as JSON."}},
      .run = [json](const Invocation&) { return version(*json); },
  };
}

}  // namespace relay
