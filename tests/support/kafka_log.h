// SPDX-License-Identifier: Apache-2.0
// Reads whole topics, to check what a relay did. Uses librdkafka alone, nothing of the relay.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace relay::test {

struct KafkaRecord {
  std::string topic;
  std::int32_t partition = 0;
  std::int64_t offset = 0;
  std::int64_t timestamp_ms = 0;
  std::optional<std::string> key;
  std::vector<std::pair<std::string, std::string>> headers;
  std::optional<std::string> payload;

  // Value of the last header of this name.
  std::optional<std::string> header(const std::string& name) const;
};

enum class Isolation { read_committed, read_uncommitted };

struct KafkaLog {
  // In the order of the topics asked for, then of partition and offset.
  std::vector<KafkaRecord> records;
  // Partitions whose end could not be reached in time, as "topic[partition] at 5 of 9": with
  // read_committed, an open transaction hides what follows. What is absent from such a partition is
  // unknown, not lost.
  std::vector<std::string> unread;
};

// The next offset to read, by topic and partition.
using KafkaPositions = std::map<std::pair<std::string, std::int32_t>, std::int64_t>;

// Reads all partitions of `topics` from their first record to the end that a read_uncommitted
// client sees at the time of the call, and no further. Throws std::runtime_error when the broker
// does not answer in time or a topic does not exist.
KafkaLog read_log(const std::string& brokers, const std::vector<std::string>& topics,
                  Isolation isolation,
                  std::chrono::milliseconds timeout = std::chrono::seconds(30));

// The same from `positions` on, which it moves on; a partition without one is read from its first
// record.
KafkaLog read_on(const std::string& brokers, const std::vector<std::string>& topics,
                 Isolation isolation, KafkaPositions& positions,
                 std::chrono::milliseconds timeout = std::chrono::seconds(30));

}  // namespace relay::test
