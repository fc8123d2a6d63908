// SPDX-License-Identifier: Apache-2.0
// What `check` says of the Kafka cluster.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "relay/base/check_result.h"
#include "relay/base/clock.h"
#include "relay/kafka/handle.h"

namespace relay::kafka {

using Settings = std::map<std::string, std::string>;

// What the relay asks of a topic and of the brokers.
struct Requirements {
  Mode mode = Mode::exactly_once;
  Millis retention_keep{0};
  std::int64_t message_bytes_max = 0;
};

struct TopicFacts {
  std::string name;
  int replicas = 0;
  int brokers = 0;  // in the cluster
  Settings settings;
};

// Where the brokers keep what they know of transactions: the topic __transaction_state, which comes
// into being with the first one.
struct TransactionLogFacts {
  int brokers = 0;     // in the cluster
  int partitions = 0;  // 0: the topic is not there, or not shown to us
  int leaderless = 0;
  int in_sync_min = 0;  // replicas, of the partition that has the fewest
  Settings broker;
  Settings topic;
};

// Results for one broker, one topic for messages, the progress topic: by their settings alone,
// nothing is asked.
std::vector<CheckResult> check_broker(const std::string& name, const Settings& settings,
                                      const Requirements& requirements);
std::vector<CheckResult> check_topic(const TopicFacts& topic, const Requirements& requirements);
std::vector<CheckResult> check_progress_topic_settings(const Options& options,
                                                       const TopicFacts& topic);
// What keeps every transaction from beginning; nullopt: nothing that can be seen.
std::optional<CheckResult> check_transaction_log(const TransactionLogFacts& facts);

// Asks the cluster for its brokers, the allowed topics and the progress topic, and checks them.
// Changes nothing, creates no topic, fences nobody. What the user may not describe becomes a note.
std::vector<CheckResult> inspect_cluster(const Options& options, const Requirements& requirements,
                                         Deadline deadline);

// Asks the cluster for what check_transaction_log() needs, and checks it. nullopt also when there
// is no answer.
std::optional<CheckResult> inspect_transaction_log(rd_kafka_t* client, Deadline deadline);

}  // namespace relay::kafka
