// SPDX-License-Identifier: Apache-2.0
// A topic that messages name. What is known of it has three lifetimes: TopicInfo, what the cluster
// said; TopicWriter, of one incarnation of the producer; BatchOffsets, of one batch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "common/backoff.h"
#include "relay/base/clock.h"
#include "relay/core/ports.h"
#include "relay/kafka/handle.h"

namespace relay::kafka {

// What the cluster said of a topic.
struct TopicInfo {
  enum class State {
    unknown,     // not looked up since the last trouble
    ready,       // exists, and we may describe it
    doubtful,    // the cluster said once that it is missing; too early to rely on it
    unwritable,  // cannot be written to: see error_class
  };
  State state = State::unknown;
  bool was_ready = false;
  std::string error_class;  // when unwritable
  std::string error_text;
  Clock::time_point doubtful_since{};
  Clock::time_point asked_at{};
  Clock::time_point ask_again_at{};
  outbox::common::Backoff backoff{Millis{0},
                                  Millis{0}};  // between two questions about an unwritable topic
  std::int64_t bytes_max = 0;                  // max.message.bytes of the topic; 0: not known
  Millis age_max = Millis::max();              // of the time that a record bears
  Clock::time_point limits_asked_at{};
  bool log_append_time = false;
  // From delivery reports.
  bool refused_size = false;  // it has refused something for its size, which can be a record batch
                              // of small messages
  bool refused = false;       // the broker would not let us write to it

  bool unwritable() const { return state == State::unwritable; }
};

// A topic's handle in one incarnation, and which partitions have acknowledged a record of it
// lately: a broker forgets a producer from which it has heard nothing for long.
class TopicWriter {
 public:
  static constexpr Millis remembered_for{
      60'000};  // less than any broker's producer.id.expiration.ms

  // Makes a handle whose delivery reports lead to `opaque`. False: librdkafka does not.
  bool open(rd_kafka_t* client, const std::string& topic, void* opaque);
  void close();
  bool is_open() const { return static_cast<bool>(handle_); }
  rd_kafka_topic_t* handle() const { return handle_.get(); }

  // There are at least so many partitions: some can be added.
  void expect_partitions(std::size_t count);
  // What is asked and acknowledged from now on is as of `now`.
  void begin_batch(Clock::time_point now) { now_ = now; }
  void acknowledge(std::size_t partition);
  // REQUIRES: `partition` is one of those expected.
  bool has_acknowledged(std::int32_t partition) const {
    return acknowledged_.at(static_cast<std::size_t>(partition)) > now_ - remembered_for;
  }
  bool all_acknowledged() const;
  // Where this key goes, by the partitions that are expected. REQUIRES: there is one.
  std::int32_t partition_of(std::string_view key) const;

 private:
  static constexpr Clock::time_point never = Clock::time_point::min();

  TopicHandle handle_;
  Clock::time_point now_{};
  std::vector<Clock::time_point> acknowledged_;  // per partition: the last batch, or never
  mutable Clock::time_point all_acknowledged_until_ = never;
};

// The offsets of a topic's records in the batch in flight.
class BatchOffsets {
 public:
  void clear() { ranges_.clear(); }
  void add(std::size_t partition, std::int64_t offset);
  // First and last offset of each partition that has records.
  std::map<std::int32_t, OffsetRange> ranges() const;

 private:
  static constexpr OffsetRange none{0, -1};
  std::vector<OffsetRange> ranges_;  // per partition
};

struct Topic {
  explicit Topic(std::string_view topic) : name(topic) {}
  // A record was delivered.
  void acknowledge(std::int32_t partition, std::int64_t offset) {
    writer.acknowledge(static_cast<std::size_t>(partition));
    offsets.add(static_cast<std::size_t>(partition), offset);
  }

  const std::string name;
  TopicInfo info;
  TopicWriter writer;
  BatchOffsets offsets;
};

}  // namespace relay::kafka
