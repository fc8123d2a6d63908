// SPDX-License-Identifier: Apache-2.0
#include "relay/config/kafka_properties.h"

#include <librdkafka/rdkafka.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <memory>

#include "relay/base/names.h"
#include "relay/config/value.h"

namespace outbox::config {
namespace {

// `name` may end in * (a prefix) or begin with * (a suffix).
struct Owned {
  std::string_view name;
  std::string_view reason;
  std::string_view instead = {};
};

constexpr std::string_view kIdempotence =
    "the relay's order and its safety against repeats rest on the idempotent producer";
constexpr std::string_view kTimeout = "a message that times out leaves a gap behind which its key has gone on";
constexpr std::string_view kQueue = "it follows from the bounds of a batch";
constexpr std::string_view kLinger = "a batch is there as a whole, and every wait of librdkafka's would be added to it";
constexpr std::string_view kCallback = "the relay takes events from a queue of its own";

constexpr std::array kOwned = {
    Owned{"transactional.id", "it fences the relay's older producers and is made of its name", "relay.name"},
    Owned{"transaction.timeout.ms", "recovery relies on it"},
    Owned{"enable.idempotence", kIdempotence},
    Owned{"enable.gapless.guarantee", kIdempotence},
    Owned{"acks", "a message counts as delivered only when all in-sync replicas have it"},
    Owned{"request.required.acks", "a message counts as delivered only when all in-sync replicas have it"},
    Owned{"max.in.flight*", kIdempotence},
    Owned{"retries", kIdempotence},
    Owned{"message.send.max.retries", kIdempotence},
    Owned{"message.timeout.ms", kTimeout},
    Owned{"delivery.timeout.ms", kTimeout},
    Owned{"partitioner",
          "keys must land where Java's producers put them (murmur2_random), now and after every restart"},
    Owned{"isolation.level", "progress is what is committed, and nothing else"},
    Owned{"enable.partition.eof", "recovery must know that it has seen the newest progress record"},
    Owned{"bootstrap.servers", "it has an option of its own", "kafka.brokers"},
    Owned{"metadata.broker.list", "it has an option of its own", "kafka.brokers"},
    Owned{"socket.nagle.disable", "Nagle's algorithm adds 40 ms to a transaction"},
    Owned{"linger.ms", kLinger},
    Owned{"queue.buffering.max.ms", kLinger},
    Owned{"queue.buffering.max.messages", kQueue, "delivery.batch_messages_max"},
    Owned{"queue.buffering.max.kbytes", kQueue, "delivery.batch_bytes_max"},
    Owned{"message.max.bytes", "a message that is too large must be parked before it is sent",
          "delivery.message_bytes_max"},
    Owned{"delivery.report.only.error", "the relay counts every delivery report"},
    Owned{"*_cb", kCallback},
    Owned{"opaque", kCallback},
    Owned{"enabled_events", kCallback},
    Owned{"log.queue", kCallback, "log.level"},
    Owned{"metadata.recovery.strategy", "with its default, ending a transaction can hang"},
};

Error wrong(std::string what, std::string hint) { return Error{Fault::usage, std::move(what), std::move(hint)}; }

// Lets librdkafka itself judge the name and the value; nothing is connected.
Result<void> check_with_librdkafka(const std::string& name, const std::string& value) {
  // Setting this one loads the named code, which is not the business of a check.
  if (name == "plugin.library.paths") return {};
  const std::unique_ptr<rd_kafka_conf_t, decltype(&rd_kafka_conf_destroy)> conf(rd_kafka_conf_new(),
                                                                                &rd_kafka_conf_destroy);
  std::array<char, 512> reason{};
  const auto answer = rd_kafka_conf_set(conf.get(), name.c_str(), value.c_str(), reason.data(), reason.size());
  if (answer == RD_KAFKA_CONF_OK) return {};
  if (answer == RD_KAFKA_CONF_UNKNOWN) {
    return wrong(fmt::format("is unknown to librdkafka {}", rd_kafka_version_str()),
                 "see CONFIGURATION.md of librdkafka for the names.");
  }
  // librdkafka's reason quotes the value.
  if (is_secret_property(name))
    return wrong("has a value that librdkafka does not take", "see CONFIGURATION.md of librdkafka.");
  return wrong(fmt::format("is not taken by librdkafka: {}", reason.data()), "see CONFIGURATION.md of librdkafka.");
}

}  // namespace

bool is_secret_property(std::string_view name) {
  return name.find("password") != std::string_view::npos || name.find("secret") != std::string_view::npos ||
         name.find("passphrase") != std::string_view::npos || name.ends_with("key.pem");
}

Result<void> check_property(const std::string& name, const std::string& value) {
  const auto owned = std::find_if(kOwned.begin(), kOwned.end(), [&](const Owned& o) { return matches_pattern(o.name, name); });
  if (owned == kOwned.end()) return check_with_librdkafka(name, value);
  return wrong(fmt::format("belongs to the relay's protocol: {}", owned->reason),
               owned->instead.empty() ? "remove it." : fmt::format("remove it, and set {}.", owned->instead));
}

Result<void> check_property_in_file(std::string_view name) {
  if (!is_secret_property(name)) return {};
  if (name == "sasl.password") {
    return wrong("is a secret, which does not belong in this file",
                 "put it into a file of its own and name that in kafka.password_file.");
  }
  return wrong("is a secret, which does not belong in this file",
               fmt::format("set it in the environment: OUTBOX_RELAY_KAFKA_PROPERTIES=\"{}=…\".", name));
}

std::string owned_properties_markdown() {
  std::string rows;
  for (const Owned& owned : kOwned) {
    rows += fmt::format("| `{}` | {}{} |\n", owned.name, owned.reason,
                        owned.instead.empty() ? "" : fmt::format("; set `{}`", owned.instead));
  }
  return rows;
}

}  // namespace outbox::config
