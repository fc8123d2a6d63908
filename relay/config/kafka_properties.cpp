// SPDX-License-Identifier: Apache-2.0
#include "relay/config/kafka_properties.h"

#include <librdkafka/rdkafka.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <memory>

#include "common/names.h"
#include "relay/config/errors.h"
#include "relay/config/parse.h"

namespace relay::config {
namespace {

// `name` may end in * (a prefix) or begin with * (a suffix).
struct OwnedProperty {
  std::string_view name;
  std::string_view reason;
  std::string_view instead = {};
};

constexpr std::string_view idempotence_reason =
    "order and deduplication depend on the idempotent producer";
constexpr std::string_view timeout_reason =
    "a message that times out would leave a gap, and later messages of its key would overtake it";
constexpr std::string_view queue_reason = "it is derived from the limits of a batch";
constexpr std::string_view linger_reason =
    "the relay sends complete batches, and lingering would only add latency";
constexpr std::string_view callback_reason = "the relay reads events from its own queue";

constexpr std::array owned_properties = {
    OwnedProperty{"transactional.id",
                  "it fences older producers of the relay and is derived from its name",
                  "relay.name"},
    OwnedProperty{"transaction.timeout.ms", "recovery depends on it"},
    OwnedProperty{"enable.idempotence", idempotence_reason},
    OwnedProperty{"enable.gapless.guarantee", idempotence_reason},
    OwnedProperty{"acks", "a message counts as delivered only when all in-sync replicas have it"},
    OwnedProperty{"request.required.acks",
                  "a message counts as delivered only when all in-sync replicas have it"},
    OwnedProperty{"max.in.flight*", idempotence_reason},
    OwnedProperty{"retries", idempotence_reason},
    OwnedProperty{"message.send.max.retries", idempotence_reason},
    OwnedProperty{"message.timeout.ms", timeout_reason},
    OwnedProperty{"delivery.timeout.ms", timeout_reason},
    OwnedProperty{"partitioner",
                  "keys must go to the same partition as with Java producers (murmur2_random)"},
    OwnedProperty{"isolation.level", "only committed progress records count"},
    OwnedProperty{"enable.partition.eof", "recovery must detect the end of the progress topic"},
    OwnedProperty{"bootstrap.servers", "it has its own option", "kafka.brokers"},
    OwnedProperty{"metadata.broker.list", "it has its own option", "kafka.brokers"},
    OwnedProperty{"socket.nagle.disable", "Nagle's algorithm adds 40 ms to a transaction"},
    OwnedProperty{"linger.ms", linger_reason},
    OwnedProperty{"queue.buffering.max.ms", linger_reason},
    OwnedProperty{"queue.buffering.max.messages", queue_reason, "delivery.batch_messages_max"},
    OwnedProperty{"queue.buffering.max.kbytes", queue_reason, "delivery.batch_bytes_max"},
    OwnedProperty{"message.max.bytes", "a message that is too large is parked before it is sent",
                  "delivery.message_bytes_max"},
    OwnedProperty{"delivery.report.only.error", "the relay counts every delivery report"},
    OwnedProperty{"*_cb", callback_reason},
    OwnedProperty{"opaque", callback_reason},
    OwnedProperty{"enabled_events", callback_reason},
    OwnedProperty{"log.queue", callback_reason, "log.level"},
    OwnedProperty{"metadata.recovery.strategy",
                  "with its default value, ending a transaction can hang"},
};

// Has librdkafka check the name and the value. Opens no connection.
Result<void> check_with_librdkafka(const std::string& name, const std::string& value) {
  // Setting this property loads the named code, which a check must not do.
  if (name == "plugin.library.paths") return {};
  const std::unique_ptr<rd_kafka_conf_t, decltype(&rd_kafka_conf_destroy)> conf(
      rd_kafka_conf_new(), &rd_kafka_conf_destroy);
  std::array<char, 512> reason{};
  const auto answer =
      rd_kafka_conf_set(conf.get(), name.c_str(), value.c_str(), reason.data(), reason.size());
  if (answer == RD_KAFKA_CONF_OK) return {};
  if (answer == RD_KAFKA_CONF_UNKNOWN) {
    return usage_error(fmt::format("is unknown to librdkafka {}", rd_kafka_version_str()),
                       "see CONFIGURATION.md of librdkafka for the names.");
  }
  // librdkafka's reason quotes the value.
  if (is_secret_property(name))
    return usage_error("has a value that librdkafka does not accept",
                       "see CONFIGURATION.md of librdkafka.");
  return usage_error(fmt::format("is not accepted by librdkafka: {}", reason.data()),
                     "see CONFIGURATION.md of librdkafka.");
}

}  // namespace

bool is_secret_property(std::string_view name) {
  return name.find("password") != std::string_view::npos ||
         name.find("secret") != std::string_view::npos ||
         name.find("passphrase") != std::string_view::npos || name.ends_with("key.pem");
}

Result<void> check_property(const std::string& name, const std::string& value) {
  const auto owned = std::find_if(
      owned_properties.begin(), owned_properties.end(),
      [&](const OwnedProperty& o) { return outbox::common::matches_pattern(o.name, name); });
  if (owned == owned_properties.end()) return check_with_librdkafka(name, value);
  return usage_error(fmt::format("is set by the relay: {}", owned->reason),
                     owned->instead.empty()
                         ? "remove it."
                         : fmt::format("remove it, and set {}.", owned->instead));
}

Result<void> check_property_in_file(std::string_view name) {
  if (!is_secret_property(name)) return {};
  if (name == "sasl.password") {
    return usage_error("is a secret, which is not accepted in this file",
                       "put it into a file of its own and set kafka.password_file to the path.");
  }
  return usage_error(
      "is a secret, which is not accepted in this file",
      fmt::format("set it in the environment: OUTBOX_RELAY_KAFKA_PROPERTIES=\"{}=…\".", name));
}

std::string owned_properties_markdown() {
  std::string rows;
  for (const OwnedProperty& owned : owned_properties) {
    rows += fmt::format("| `{}` | {}{} |\n", owned.name, owned.reason,
                        owned.instead.empty() ? "" : fmt::format("; set `{}`", owned.instead));
  }
  return rows;
}

}  // namespace relay::config
