// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <thread>

#include "client/consumer/batch.h"
#include "client/consumer/offsets.h"
#include "client/consumer/events.h"

namespace outbox::consumer {

// The Kafka side: a member of the group from its construction to its destruction.
//
// A thread of its own polls the group's events (rebalances, answers to commits, errors), so that the member lives however long a
// batch takes. Records do not pass through it: those of all partitions go to one queue, which poll() takes from. Nothing is
// paused: librdkafka stops fetching when that queue is full.
//
// Used by one thread.
class RecordSource {
 public:
  // Throws ConsumerSetupError if the options are wrong. `events` outlives it.
  RecordSource(const ConsumerOptions& options, Events& events);
  // Commits what is handled and leaves the group.
  ~RecordSource();
  RecordSource(const RecordSource&) = delete;
  RecordSource& operator=(const RecordSource&) = delete;

  // The records that are there; waits for the first of them. Throws ConsumerSetupError when Kafka refuses for good.
  Batch poll(int messages_max, std::chrono::milliseconds wait);
  // Every record of the batch is settled in the database. Kafka is told soon.
  void handled(const Batch& batch);

 private:
  static void on_rebalance(rd_kafka_t*, rd_kafka_resp_err_t code, rd_kafka_topic_partition_list_t* partitions, void* self);
  static void on_commit(rd_kafka_t*, rd_kafka_resp_err_t code, rd_kafka_topic_partition_list_t* partitions, void* self);
  static void on_error(rd_kafka_t*, int code, const char* reason, void* self);
  static void on_log(const rd_kafka_t* client, int level, const char* facility, const char* text);

  void serve_group(std::stop_token stop);
  void assign(const rd_kafka_topic_partition_list_t* partitions);
  void revoke(const rd_kafka_topic_partition_list_t* partitions);
  void commit();
  void look_at_error(const rd_kafka_message_t& message);
  void reachable(bool is);

  Events& events_;
  Offsets offsets_;
  std::atomic<bool> assigned_once_{false};
  std::atomic<bool> reachable_{true};
  std::mutex mutex_;
  std::map<int, Clock::time_point> told_at_;  // when an error of this code was told last
  Clock::time_point committed_at_{};
  Client client_;
  Queue records_;  // before client_ goes
  std::jthread group_thread_;
};

}  // namespace outbox::consumer
