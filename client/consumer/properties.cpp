// SPDX-License-Identifier: Apache-2.0
#include "client/consumer/properties.h"

#include <algorithm>
#include <array>

#include "common/names.h"

namespace outbox::consumer {
namespace {

// Properties that users must not set, and why.
struct OwnedProperty {
  std::string_view name;  // may begin or end with *
  std::string_view reason;
};

constexpr std::string_view has_option = "ConsumerOptions has a field for it";
constexpr std::string_view after_commit =
    "an offset must be committed only after its message is in the inbox";
constexpr std::string_view memory = "it is derived from read_ahead_bytes";
constexpr std::string_view callback = "the consumer handles these events";

constexpr std::array owned = {
    OwnedProperty{"bootstrap.servers", has_option},
    OwnedProperty{"metadata.broker.list", has_option},
    OwnedProperty{"group.id", has_option},
    OwnedProperty{"isolation.level",
                  "messages of aborted transactions must not be read (read_committed)"},
    OwnedProperty{"enable.auto.commit", after_commit},
    OwnedProperty{"auto.commit.*", after_commit},
    OwnedProperty{"enable.auto.offset.store", after_commit},
    OwnedProperty{"offset.store.*", after_commit},
    OwnedProperty{"partition.assignment.strategy",
                  "a rebalance must revoke only the partitions that move (cooperative-sticky)"},
    OwnedProperty{"group.protocol", "only the classic protocol is supported"},
    OwnedProperty{"enable.partition.eof", "the consumer commits the ends of partitions"},
    OwnedProperty{"queued.*", memory},
    OwnedProperty{"fetch.max.bytes", memory},
    OwnedProperty{"fetch.message.max.bytes", memory},
    OwnedProperty{"max.partition.fetch.bytes", memory},
    OwnedProperty{"receive.message.max.bytes", memory},
    OwnedProperty{"*_cb", callback},
    OwnedProperty{"opaque", callback},
    OwnedProperty{"enabled_events", callback},
    OwnedProperty{"log.queue", callback},
};

// Throws ConsumerSetupError if librdkafka rejects the property.
void set(rd_kafka_conf_t* conf, const std::string& name, const std::string& value) {
  std::array<char, 512> why{};
  const auto answer = rd_kafka_conf_set(conf, name.c_str(), value.c_str(), why.data(), why.size());
  if (answer == RD_KAFKA_CONF_OK) return;
  // librdkafka's text is not used: it quotes the value, which may be a secret.
  throw ConsumerSetupError(
      "properties: librdkafka " + std::string(rd_kafka_version_str()) +
      (answer == RD_KAFKA_CONF_UNKNOWN ? " does not know \"" : " rejects the value of \"") + name +
      "\". HINT: see its CONFIGURATION.md");
}

// Delay of the next fetch after the queue, which is short here, was full. The default of 0.5 to 1 s
// would starve the handler. Versions before 2.2 have only the delay after an error.
void set_fetch_pause(rd_kafka_conf_t* conf) {
  std::array<char, 512> why{};
  if (rd_kafka_conf_set(conf, "fetch.queue.backoff.ms", "5", why.data(), why.size()) ==
      RD_KAFKA_CONF_UNKNOWN) {
    set(conf, "fetch.error.backoff.ms", "20");
  }
}

}  // namespace

void check_options(const ConsumerOptions& o) {
  std::string faults;
  const auto require = [&](bool good, const char* fault) {
    if (!good) faults += std::string(faults.empty() ? "" : "; ") + fault;
  };
  require(!o.brokers.empty(), "brokers is empty");
  require(!o.group.empty(), "group is empty");
  require(!o.topics.empty(), "topics is empty");
  require(!o.dsn.empty(), "dsn is empty");
  require(o.batch_messages_max >= 1 && o.batch_messages_max <= 100'000,
          "batch_messages_max is not in 1 to 100,000");
  require(o.read_ahead_bytes >= 2 << 20 && o.read_ahead_bytes <= 128 << 20,
          "read_ahead_bytes is not in 2 to 128 MiB");
  require(o.keep >= std::chrono::minutes(1), "keep is shorter than a minute");
  if (!faults.empty()) {
    throw ConsumerSetupError("consumer options: " + faults + ". HINT: see outbox/consumer.h");
  }
}

Conf make_conf(const ConsumerOptions& o) {
  Conf conf(rd_kafka_conf_new());
  set(conf.get(), "client.id", "outbox-consumer");
  set(conf.get(), "auto.offset.reset", "earliest");
  set(conf.get(), "reconnect.backoff.max.ms", "2000");
  set_fetch_pause(conf.get());
  for (const auto& [name, value] : o.properties) {
    const auto found = std::find_if(owned.begin(), owned.end(), [&name = name](const auto& p) {
      return common::matches_pattern(p.name, name);
    });
    if (found != owned.end()) {
      throw ConsumerSetupError("properties: \"" + name + "\" belongs to the consumer: " +
                               std::string(found->reason) + ". HINT: remove it");
    }
    set(conf.get(), name, value);
  }
  set(conf.get(), "bootstrap.servers", o.brokers);
  set(conf.get(), "group.id", o.group);
  set(conf.get(), "isolation.level", "read_committed");
  set(conf.get(), "enable.auto.commit", "false");
  set(conf.get(), "enable.auto.offset.store", "false");
  set(conf.get(), "enable.partition.eof", "true");
  set(conf.get(), "partition.assignment.strategy", "cooperative-sticky");
  // Small messages are bounded by number: each costs librdkafka 512 bytes besides its own. Versions
  // before 2.2 check a full queue only twice a second: its content must last that long.
  set(conf.get(), "queued.min.messages",
      std::to_string(std::max<std::int64_t>(o.read_ahead_bytes >> 8, o.batch_messages_max)));
  set(conf.get(), "queued.max.messages.kbytes", std::to_string(o.read_ahead_bytes >> 10));
  set(conf.get(), "fetch.max.bytes",
      std::to_string(std::max<std::int64_t>(o.read_ahead_bytes / 2, 1'000'000)));
  set(conf.get(), "fetch.message.max.bytes",
      std::to_string(std::min<std::int64_t>(o.read_ahead_bytes / 2, 1 << 20)));
  return conf;
}

}  // namespace outbox::consumer
