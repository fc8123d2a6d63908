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

namespace outbox::config {
namespace {

// `name` may end in * (a prefix) or begin with * (a suffix).
struct Owned {
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
    Owned{"transactional.id", "it fences older producers of the relay and is derived from its name",
          "relay.name"},
    Owned{"transaction.timeout.ms", "recovery depends on it"},
    Owned{"enable.idempotence", idempotence_reason},
    Owned{"enable.gapless.guarantee", idempotence_reason},
    Owned{"acks", "a message counts as delivered only when all in-sync replicas have it"},
    Owned{"request.required.acks",
          "a message counts as delivered only when all in-sync replicas have it"},
    Owned{"max.in.flight*", idempotence_reason},
    Owned{"retries", idempotence_reason},
    Owned{"message.send.max.retries", idempotence_reason},
    Owned{"message.timeout.ms", timeout_reason},
    Owned{"delivery.timeout.ms", timeout_reason},
    Owned{"partitioner",
          "keys must go to the same partition as with Java producers (murmur2_random)"},
    Owned{"isolation.level", "only committed progress records count"},
    Owned{"enable.partition.eof", "recovery must detect the end of the progress topic"},
    Owned{"bootstrap.servers", "it has its own option", "kafka.brokers"},
    Owned{"metadata.broker.list", "it has its own option", "kafka.brokers"},
    Owned{"socket.nagle.disable", "Nagle's algorithm adds 40 ms to a transaction"},
    Owned{"linger.ms", linger_reason},
    Owned{"queue.buffering.max.ms", linger_reason},
    Owned{"queue.buffering.max.messages", queue_reason, "delivery.batch_messages_max"},
    Owned{"queue.buffering.max.kbytes", queue_reason, "delivery.batch_bytes_max"},
    Owned{"message.max.bytes", "a message that is too large is parked before it is sent",
          "delivery.message_bytes_max"},
    Owned{"delivery.report.only.error", "the relay counts every delivery report"},
    Owned{"*_cb", callback_reason},
    Owned{"opaque", callback_reason},
    Owned{"enabled_events", callback_reason},
    Owned{"log.queue", callback_reason, "log.level"},
    Owned{"metadata.recovery.strategy", "with its default value, ending a transaction can hang"},
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
  const auto owned = std::find_if(owned_properties.begin(), owned_properties.end(),
                                  [&](const Owned& o) { return matches_pattern(o.name, name); });
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
  for (const Owned& owned : owned_properties) {
    rows += fmt::format("| `{}` | {}{} |\n", owned.name, owned.reason,
                        owned.instead.empty() ? "" : fmt::format("; set `{}`", owned.instead));
  }
  return rows;
}

}  // namespace outbox::config
