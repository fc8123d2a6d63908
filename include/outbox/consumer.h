// SPDX-License-Identifier: Apache-2.0
// Kafka consumer that applies each message to the database exactly once.
//
//   outbox::Consumer consumer({.brokers = "kafka:9092",
//                              .group = "billing",
//                              .topics = {"shop.charges"},
//                              .dsn = "dbname=billing"},
//                             [](pqxx::dbtransaction& tx, const outbox::Record& record) {
//                               charge(tx, *record.payload);
//                             });
//   consumer.run(stop_token);  // blocks
//
// Requires the role inbox_consumer and the schema of `outbox-relay init --schema inbox`.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <pqxx/dbtransaction>
#include <span>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "outbox/record.h"

namespace outbox {
inline namespace v1 {

// Thrown by a handler: the message cannot be processed as it is, and is parked. what() is the
// reason shown to operators.
class Poison : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Thrown by the constructor and by run(): the configuration is wrong, and a retry cannot succeed.
// what() ends with `HINT:` and the remedy.
class ConsumerSetupError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// An event for a log. Emitted for each change of state, never for each message.
struct ConsumerEvent {
  enum class Level { debug, info, warn, error };
  Level level = Level::info;
  // Stable identifier in snake_case.
  std::string name;
  std::vector<std::pair<std::string, std::string>> fields;
};

struct ConsumerOptions {
  enum class Order {
    key,   // a message waits until every earlier parked message of its (topic, key) is resolved
    none,  // a parked message blocks no other
  };

  // HOST:PORT of one or more brokers, separated by commas. Required.
  std::string brokers{};

  // Kafka consumer group. Required.
  std::string group{};

  // Names of topics, or regular expressions that begin with ^. Required.
  std::vector<std::string> topics{};

  // libpq connection string of the database. Required. Set connect_timeout, keepalives and
  // tcp_user_timeout to detect a vanished server sooner.
  std::string dsn{};

  // Name in the inbox. Consumers of the same name deduplicate together. Defaults to the group.
  std::string consumer{};

  // Whether one deduplication key in two topics is one message, for example because messages are
  // moved from topic to topic. Must not be changed while messages are remembered. Defaults to
  // false: the topic is part of a message's identity.
  bool across_topics = false;

  // Additional librdkafka properties, such as sasl.password. Properties that the exactly-once
  // guarantee depends on are rejected. Defaults to none. auto.offset.reset, which applies where the
  // group has no committed offset, defaults to earliest.
  std::vector<std::pair<std::string, std::string>> properties{};

  // Maximum number of messages in one transaction. Defaults to 500.
  int batch_messages_max = 500;

  // Bytes prefetched for the handler, 2 to 128 MiB. The consumer's memory is this, plus one fetch
  // response of half this size, plus 512 bytes for each prefetched message, of which there are at
  // most read_ahead_bytes / 256. Defaults to 12 MiB.
  std::int64_t read_ahead_bytes = std::int64_t{12} << 20;

  // Whether parked messages block later messages of their key. Defaults to key.
  Order order = Order::key;

  // Deduplication period, counted back from the newest message, or from where the slowest partition
  // was read to. Must exceed the longest delay of a duplicate. Older messages are parked as
  // expired. Defaults to 7 days.
  std::chrono::seconds keep = std::chrono::hours(7 * 24);

  // Granularity of expiry. Fixed once the consumer is registered. Defaults to 10 minutes.
  std::chrono::seconds span = std::chrono::minutes(10);

  // Event callback. Must not throw. Calls are serialized, come from the thread of run() and from
  // library threads, and block the caller. Defaults to none.
  std::function<void(const ConsumerEvent&)> on_event{};
};

// Counters since the construction of the consumer, and its current state.
struct ConsumerStats {
  enum class State {
    starting,   // not connected to the database, and not a member of the group
    consuming,  // processes messages
    stalled,    // the database is unavailable: no message is processed, none is lost
    stopped,    // run() was not called yet, or has returned
  };
  State state = State::stopped;
  std::int64_t new_messages = 0;  // messages processed
  std::int64_t duplicates = 0;    // duplicates skipped
  std::int64_t expired = 0;       // messages older than the deduplication period; parked
  std::int64_t parked = 0;        // messages parked, expired ones included
  std::int64_t released = 0;      // parked messages processed after their release
  std::int64_t pruned = 0;        // rows deleted from the inbox
  std::int64_t batches = 0;       // transactions committed
  std::int64_t retries = 0;       // transactions repeated after a conflict or a lost connection
  std::chrono::milliseconds busy_for{0};  // age of the current batch; 0: none
};

// One member of a consumer group.
//
// Delivery. The handler runs in the transaction that records the message in the inbox. Offsets are
// committed to Kafka after that transaction. Duplicates are skipped. A handler may be called again
// for the same message after a rollback, never after a commit; an unknown commit outcome is
// resolved from the inbox. Effects outside the database need the effect ledger (effect.h).
//
// Errors thrown by the handler:
//   Poison, other std::exception; constraint    The message is parked with the reason until an
//   violations, invalid data, RAISE             operator decides (inbox.decide). Other messages
//                                               of the batch are processed in smaller transactions.
//   serialization failure, deadlock             The transaction is repeated with backoff.
//   connection lost; server full, read-only or  The consumer stalls, and retries with exponential
//   shutting down; missing table or privilege   backoff up to 10 s. No message is parked or lost.
// A handler that catches a database error must rethrow it, or confine it to a pqxx::subtransaction;
// otherwise the message is parked.
//
// Slow handlers keep their partitions: a library thread polls Kafka, so max.poll.interval.ms does
// not limit the handler. Monitor stats().busy_for. If partitions are revoked during a batch, the
// batch completes, its offsets are not committed, and the next owner skips the duplicates.
//
// Maintenance. Released messages are processed every second. The positions of the partitions are
// reported, and the inbox is pruned, every minute. Where a partition has ended, its end is
// committed, so that the lag of the group becomes 0.
class Consumer {
 public:
  // Processes one message in the transaction. Must not commit or roll back.
  using Handler = std::function<void(pqxx::dbtransaction& tx, const Record& record)>;
  // Processes all new messages of a batch, in order. Never called with an empty span.
  using BatchHandler =
      std::function<void(pqxx::dbtransaction& tx, std::span<const Record> records)>;

  // Throws ConsumerSetupError if an option is missing or invalid. Does not connect.
  Consumer(ConsumerOptions options, Handler handler);
  Consumer(ConsumerOptions options, BatchHandler handler);
  ~Consumer();
  Consumer(const Consumer&) = delete;
  Consumer& operator=(const Consumer&) = delete;

  // Consumes until a stop is requested; then completes the current batch (or abandons it to the
  // next owner, while the database is unavailable), commits its offsets and leaves the group. Calls
  // the handler in the calling thread only. May be called again after it has returned.
  //
  // Throws ConsumerSetupError if the database rejects the consumer (missing schema, missing
  // privilege, different span) or Kafka does so permanently (fenced group instance). Retries after
  // transient errors.
  void run(std::stop_token stop);

  // Thread-safe.
  ConsumerStats stats() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace v1
}  // namespace outbox
