// SPDX-License-Identifier: Apache-2.0
// config: prints or checks the configuration. version: prints versions.
#include <libpq-fe.h>
#include <librdkafka/rdkafka.h>

#include <cstdio>
#include <pqxx/version>

#include "relay/commands/commands.h"
#include "relay/commands/context.h"
#include "relay/commands/output.h"
#include "relay/config/reference.h"
#include "relay/postgres/migrations.h"

namespace outbox {
namespace {

// 150020 is 15.20.
std::string libpq_version() {
  const int number = PQlibVersion();
  return std::to_string(number / 10000) + "." + std::to_string(number % 10000);
}

}  // namespace

int config_show(const Config& config) {
  std::fputs(config::effective_toml(config).c_str(), stdout);
  return 0;
}

int config_defaults() {
  std::fputs(config::annotated_toml().c_str(), stdout);
  return 0;
}

int config_check(const std::string& file) {
  const auto loaded = config::load(file, config::process_environment());
  if (!loaded) return report(loaded.error());
  std::printf("%s: no mistakes\n", file.c_str());
  return 0;
}

int version(bool json) {
  if (json) {
    Json j = json_answer();
    j["version"] = OUTBOX_VERSION;
    j["librdkafka"] = rd_kafka_version_str();
    j["libpq"] = libpq_version();
    j["libpqxx"] = PQXX_VERSION;
    for (const Schema schema : all_schemas) j[std::string(name_of(schema)) + "_schema"] = schema_version(schema);
    print_json(j);
    return 0;
  }
  std::printf("outbox-relay  %s\nlibrdkafka    %s\nlibpq         %s\nlibpqxx       %s\n", OUTBOX_VERSION, rd_kafka_version_str(),
              libpq_version().c_str(), PQXX_VERSION);
  for (const Schema schema : all_schemas) std::printf("schema %-6s %d\n", name_of(schema), schema_version(schema));
  return 0;
}

}  // namespace outbox
