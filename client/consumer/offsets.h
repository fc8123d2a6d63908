// SPDX-License-Identifier: Apache-2.0
// Tracks, for each assigned partition, the offset processed and the offset committed to Kafka.
//
//   1. a rebalance adds and removes partitions;
//   2. handled() advances a partition once its record is in the inbox or parked; ended() advances
//      it over what follows its last record, so that the lag of the group becomes 0 behind the
//      markers of transactions;
//   3. uncommitted() lists what to commit, and committed() records Kafka's answer;
//   4. each() shows the state of each partition, for the report of positions.
//
// A committed offset is never beyond the inbox. A commit that is late, repeated or lost therefore
// loses no message: the next owner of the partition receives duplicates at worst.
// Used by the thread of run() and by the group's thread; a mutex protects the state.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "client/consumer/handle.h"
#include "outbox/record.h"

namespace outbox::consumer {

// The end of a partition, for a reader of committed records.
struct PartitionEnd {
  std::string topic;
  std::int32_t partition;
  std::int64_t offset;  // of the next record
};

struct PartitionState {
  std::int64_t handled = 0;    // offset of the next record
  std::int64_t committed = 0;  // the same, as confirmed by Kafka
  std::int64_t end = -1;       // where the last end was; -1: none was seen
  // Time of the newest record.
  std::optional<std::chrono::sys_time<std::chrono::milliseconds>> read_to{};
};

class Offsets {
 public:
  void assigned(const rd_kafka_topic_partition_list_t& partitions) {
    const std::lock_guard lock(mutex_);
    ++assignments_;
    each_of(partitions, [&](const TopicPartition& partition, const auto&) {
      partitions_.try_emplace(partition);
    });
  }
  void revoked(const rd_kafka_topic_partition_list_t& partitions) {
    const std::lock_guard lock(mutex_);
    each_of(partitions,
            [&](const TopicPartition& partition, const auto&) { partitions_.erase(partition); });
  }
  // The record is in the inbox, or parked. Ignored if its partition was revoked meanwhile.
  void handled(const Record& record) {
    const std::lock_guard lock(mutex_);
    const auto found = partitions_.find(TopicPartition(record.topic, record.partition));
    if (found == partitions_.end()) return;
    PartitionState& state = found->second;
    if (record.offset + 1 > state.handled) state.handled = record.offset + 1;
    state.read_to = std::max(state.read_to, std::optional(record.sent_at));
  }
  // Every record before the end was handled. Ignored if the partition was revoked meanwhile.
  void ended(const PartitionEnd& end) {
    const std::lock_guard lock(mutex_);
    const auto found = partitions_.find(TopicPartition(end.topic, end.partition));
    if (found == partitions_.end()) return;
    PartitionState& state = found->second;
    state.end = end.offset;
    if (end.offset > state.handled) state.handled = end.offset;
  }
  // How many assignments there were. A change asks for a report of positions.
  int assignments() const {
    const std::lock_guard lock(mutex_);
    return assignments_;
  }
  template <class F>  // f(topic, partition, state)
  void each(F f) const {
    const std::lock_guard lock(mutex_);
    for (const auto& [p, state] : partitions_) f(p.first, p.second, state);
  }
  // Offsets to commit; null: none.
  Partitions uncommitted() const {
    const std::lock_guard lock(mutex_);
    Partitions list;
    for (const auto& [partition, state] : partitions_) {
      if (state.handled <= state.committed) continue;
      if (!list) {
        list.reset(rd_kafka_topic_partition_list_new(static_cast<int>(partitions_.size())));
      }
      rd_kafka_topic_partition_list_add(list.get(), partition.first.c_str(), partition.second)
          ->offset = state.handled;
    }
    return list;
  }
  // Records Kafka's answer. Offsets that it rejected remain uncommitted.
  void committed(const rd_kafka_topic_partition_list_t& partitions) {
    const std::lock_guard lock(mutex_);
    each_of(partitions, [&](const TopicPartition& partition, const rd_kafka_topic_partition_t& p) {
      const auto found = partitions_.find(partition);
      if (found == partitions_.end() || p.err != RD_KAFKA_RESP_ERR_NO_ERROR) return;
      if (p.offset > found->second.committed) found->second.committed = p.offset;
    });
  }

 private:
  using TopicPartition = std::pair<std::string, std::int32_t>;

  template <class F>
  static void each_of(const rd_kafka_topic_partition_list_t& list, F f) {
    for (int i = 0; i < list.cnt; ++i) {
      f(TopicPartition(list.elems[i].topic, list.elems[i].partition), list.elems[i]);
    }
  }

  mutable std::mutex mutex_;
  int assignments_ = 0;
  std::map<TopicPartition, PartitionState> partitions_;
};

}  // namespace outbox::consumer
