// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "client/consumer/handle.h"
#include "outbox/record.h"

namespace outbox::consumer {

// Which partitions are ours, how far each is handled, and how far Kafka knows. Used by both threads.
//
// What is committed is never beyond what is in the inbox, so that a commit that comes late or twice loses nothing: at worst the
// next owner of a partition meets duplicates.
class Offsets {
 public:
  void assigned(const rd_kafka_topic_partition_list_t& partitions) {
    const std::lock_guard lock(mutex_);
    each(partitions, [&](const TopicPartition& partition, const auto&) { partitions_.try_emplace(partition); });
  }
  void revoked(const rd_kafka_topic_partition_list_t& partitions) {
    const std::lock_guard lock(mutex_);
    each(partitions, [&](const TopicPartition& partition, const auto&) { partitions_.erase(partition); });
  }
  // The record is in the inbox, or parked. One of a partition that was taken away meanwhile is left to its next owner.
  void handled(const Record& record) {
    const std::lock_guard lock(mutex_);
    const auto part = partitions_.find(TopicPartition(record.topic, record.partition));
    if (part != partitions_.end() && record.offset + 1 > part->second.handled) part->second.handled = record.offset + 1;
  }
  // What Kafka does not know yet; null: it knows all.
  Partitions uncommitted() const {
    const std::lock_guard lock(mutex_);
    Partitions list;
    for (const auto& [partition, part] : partitions_) {
      if (part.handled <= part.committed) continue;
      if (!list) list.reset(rd_kafka_topic_partition_list_new(static_cast<int>(partitions_.size())));
      rd_kafka_topic_partition_list_add(list.get(), partition.first.c_str(), partition.second)->offset = part.handled;
    }
    return list;
  }
  // Kafka's answer. What it refused is asked for again.
  void committed(const rd_kafka_topic_partition_list_t& partitions) {
    const std::lock_guard lock(mutex_);
    each(partitions, [&](const TopicPartition& partition, const rd_kafka_topic_partition_t& p) {
      const auto part = partitions_.find(partition);
      if (part != partitions_.end() && p.err == RD_KAFKA_RESP_ERR_NO_ERROR && p.offset > part->second.committed) part->second.committed = p.offset;
    });
  }

 private:
  using TopicPartition = std::pair<std::string, std::int32_t>;
  struct PartitionState {
    std::int64_t handled = 0;    // offset of the next record
    std::int64_t committed = 0;  // the same, as Kafka has confirmed it
  };

  template <class F>
  static void each(const rd_kafka_topic_partition_list_t& list, F f) {
    for (int i = 0; i < list.cnt; ++i) f(TopicPartition(list.elems[i].topic, list.elems[i].partition), list.elems[i]);
  }

  mutable std::mutex mutex_;
  std::map<TopicPartition, PartitionState> partitions_;
};

}  // namespace outbox::consumer
