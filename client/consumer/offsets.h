// SPDX-License-Identifier: Apache-2.0
// Tracks, for each assigned partition, the offset processed and the offset committed to Kafka.
//
//   1. a rebalance adds and removes partitions;
//   2. handled() advances a partition once its record is in the inbox or parked;
//   3. uncommitted() lists what to commit, and committed() records Kafka's answer.
//
// A committed offset is never beyond the inbox. A commit that is late, repeated or lost therefore
// loses no message: the next owner of the partition receives duplicates at worst.
// Used by the thread of run() and by the group's thread; a mutex protects the state.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "client/consumer/handle.h"
#include "outbox/record.h"

namespace outbox::consumer {

class Offsets {
 public:
  void assigned(const rd_kafka_topic_partition_list_t& partitions) {
    const std::lock_guard lock(mutex_);
    each(partitions,
         [&](const TopicPartition& partition, const auto&) { partitions_.try_emplace(partition); });
  }
  void revoked(const rd_kafka_topic_partition_list_t& partitions) {
    const std::lock_guard lock(mutex_);
    each(partitions,
         [&](const TopicPartition& partition, const auto&) { partitions_.erase(partition); });
  }
  // The record is in the inbox, or parked. Ignored if its partition was revoked meanwhile.
  void handled(const Record& record) {
    const std::lock_guard lock(mutex_);
    const auto found = partitions_.find(TopicPartition(record.topic, record.partition));
    if (found == partitions_.end()) return;
    PartitionState& state = found->second;
    if (record.offset + 1 > state.handled) state.handled = record.offset + 1;
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
    each(partitions, [&](const TopicPartition& partition, const rd_kafka_topic_partition_t& p) {
      const auto found = partitions_.find(partition);
      if (found == partitions_.end() || p.err != RD_KAFKA_RESP_ERR_NO_ERROR) return;
      if (p.offset > found->second.committed) found->second.committed = p.offset;
    });
  }

 private:
  using TopicPartition = std::pair<std::string, std::int32_t>;
  struct PartitionState {
    std::int64_t handled = 0;    // offset of the next record
    std::int64_t committed = 0;  // the same, as confirmed by Kafka
  };

  template <class F>
  static void each(const rd_kafka_topic_partition_list_t& list, F f) {
    for (int i = 0; i < list.cnt; ++i) {
      f(TopicPartition(list.elems[i].topic, list.elems[i].partition), list.elems[i]);
    }
  }

  mutable std::mutex mutex_;
  std::map<TopicPartition, PartitionState> partitions_;
};

}  // namespace outbox::consumer
