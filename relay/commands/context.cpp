// SPDX-License-Identifier: Apache-2.0
#include "relay/commands/context.h"

#include <unistd.h>

#include "relay/base/escape.h"
#include "relay/base/uuid.h"

namespace relay {
namespace {

postgres::Pooler pooler_of(const Config& config) {
  return config.postgres.pooler == "transaction" ? postgres::Pooler::transaction
                                                 : postgres::Pooler::none;
}

Result<std::string> connection_of(const Config& config, const Secret& dsn, const Secret& password) {
  return postgres::connection_string(dsn, password, "outbox-relay " + config.relay.name);
}

Result<std::unique_ptr<postgres::PqxxSession>> open_control_of(const Config& config,
                                                               const Secret& dsn,
                                                               const Secret& password,
                                                               std::optional<Millis> limit) {
  auto connection = connection_of(config, dsn, password);
  if (!connection) return connection.error();
  auto session = postgres::PqxxSession::connect(*connection, limit, pooler_of(config));
  if (!session) return postgres::with_password_source(session.error(), dsn, password);
  return session;
}

}  // namespace

postgres::Options postgres_options(const Config& config) {
  postgres::Options o;
  o.dsn = config.postgres.dsn;
  o.password = config.postgres.password;
  o.pooler = pooler_of(config);
  o.relay = config.relay.name;
  o.holder = holder_name();
  o.mode = config.relay.mode;
  o.lease_ttl = config.lease.ttl;
  o.batch_messages_max = config.delivery.batch_messages_max;
  o.batch_bytes_max = config.delivery.batch_bytes_max;
  o.message_bytes_max = config.delivery.message_bytes_max;
  o.order = config.delivery.order;
  o.allow_unverified_server = config.postgres.allow_unverified_server;
  return o;
}

kafka::Options kafka_options(const Config& config) {
  kafka::Options o;
  for (const auto& broker : config.kafka.brokers)
    o.brokers += (o.brokers.empty() ? "" : ",") + broker;
  o.properties = config.kafka.properties;
  o.secret_properties = config.kafka.secret_properties;
  o.password = config.kafka.password;
  o.relay = config.relay.name;
  o.progress_topic = config.kafka.progress_topic;
  o.mode = config.relay.mode;
  o.order = config.delivery.order;
  o.allow = config.topics.allow;
  o.missing_after = config.topics.missing_after;
  o.batch_messages_max = config.delivery.batch_messages_max;
  o.batch_bytes_max = config.delivery.batch_bytes_max;
  o.message_bytes_max = config.delivery.message_bytes_max;
  return o;
}

Result<std::unique_ptr<postgres::PqxxSession>> open_control(const Config& config,
                                                            std::optional<Millis> limit) {
  return open_control_of(config, config.postgres.dsn, config.postgres.password, limit);
}

Result<std::unique_ptr<postgres::PqxxSession>> open_consumer_control(const Config& config) {
  return open_control_of(config, config.consumer.dsn, config.consumer.password,
                         command_statement_max);
}

Result<std::unique_ptr<postgres::StreamSession>> open_session(const Config& config) {
  auto connection = connection_of(config, config.postgres.dsn, config.postgres.password);
  if (!connection) return connection.error();
  auto session = postgres::StreamSession::connect(*connection, pooler_of(config));
  if (!session) {
    return postgres::with_password_source(session.error(), config.postgres.dsn,
                                          config.postgres.password);
  }
  return session;
}

Result<std::string> id_array(const std::vector<std::string>& ids) {
  std::string out = "{";
  for (const auto& id : ids) {
    if (!Uuid::parse(id)) {
      return Error{Fault::usage, "\"" + escape(id) + "\" is no message id",
                   "an id is a UUID of 36 characters, as the `list` commands print it"};
    }
    out += (out.size() > 1 ? "," : "") + id;
  }
  return out + "}";
}

std::string holder_name() {
  char host[256] = "unknown";
  gethostname(host, sizeof host - 1);
  static const std::string name =
      std::string(host) + ":" + std::to_string(getpid()) + ":" + Uuid::random().text().substr(0, 8);
  return name;
}

}  // namespace relay
