// SPDX-License-Identifier: Apache-2.0
// The Kafka side of a consumer: a group member from its construction to its destruction.
//
//   1. The constructor subscribes, and starts the group's thread. That thread polls group events
//      (rebalances, commit answers, errors), so that the membership survives batches of any length.
//   2. Records bypass that thread: the queues of all partitions are forwarded to one queue, which
//      poll() reads. Partitions are never paused; librdkafka stops fetching while the queue is
//      full.
//   3. handled() advances the offsets, and poll() commits them every 200 ms. Where a partition has
//      ended, the end is committed.
//   4. positions() returns how far each assigned partition was read.
//   5. The destructor commits, and leaves the group.
//
// Failure. Transient errors become events. Errors that Kafka never recovers from leave poll() as
// ConsumerSetupError.
// Public functions are called by the thread of run(); callbacks come from the group's thread and,
// for logs, from librdkafka's threads.
#pragma once

#include <atomic>
#include <thread>

#include "client/consumer/batch.h"
#include "client/consumer/events.h"
#include "client/consumer/offsets.h"
#include "client/consumer/stats.h"

namespace outbox::consumer {

class RecordSource {
 public:
  // Throws ConsumerSetupError if the options are invalid. REQUIRES: `events` outlives the source.
  RecordSource(const ConsumerOptions& options, Events& events);
  // Commits the processed offsets and leaves the group.
  ~RecordSource();
  RecordSource(const RecordSource&) = delete;
  RecordSource& operator=(const RecordSource&) = delete;

  // Returns the available records; waits at most `wait` for the first. Throws ConsumerSetupError
  // after a fatal error of Kafka.
  Batch poll(int messages_max, std::chrono::milliseconds wait);
  // Every record of the batch is processed or parked. Its offsets are committed soon.
  void handled(const Batch& batch);

  struct Position {
    std::string topic;
    std::int32_t partition;
    // As in inbox::Position.
    std::optional<std::chrono::system_clock::time_point> read_to;
  };
  // Of each assigned partition.
  std::vector<Position> positions() const;
  // Changes with each assignment.
  int assignments() const { return offsets_.assignments(); }

 private:
  static void on_rebalance(rd_kafka_t*, rd_kafka_resp_err_t code,
                           rd_kafka_topic_partition_list_t* partitions, void* self);
  static void on_commit(rd_kafka_t*, rd_kafka_resp_err_t code,
                        rd_kafka_topic_partition_list_t* partitions, void* self);
  static void on_error(rd_kafka_t*, int code, const char* reason, void* self);
  static void on_log(const rd_kafka_t* client, int level, const char* facility, const char* text);

  void serve_group(std::stop_token stop);
  void assign(const rd_kafka_topic_partition_list_t* partitions);
  void revoke(const rd_kafka_topic_partition_list_t* partitions);
  void commit();
  void report_error(const rd_kafka_message_t& message);
  void set_reachable(bool reachable);

  Events& events_;
  Offsets offsets_;
  std::atomic<bool> assigned_once_{false};
  std::atomic<bool> reachable_{true};
  std::mutex mutex_;
  std::map<int, Clock::time_point> reported_at_;  // last event for each error code
  Clock::time_point committed_at_{};
  Client client_;
  Queue records_;  // destroyed before client_
  std::jthread group_thread_;
};

}  // namespace outbox::consumer
