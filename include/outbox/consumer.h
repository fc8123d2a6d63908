// SPDX-License-Identifier: Apache-2.0
// Consumes Kafka topics so that each message changes the database once, whatever dies in between.
//
//   outbox::Consumer consumer({.brokers = "kafka:9092", .group = "billing", .topics = {"shop.charges"}, .dsn = "dbname=billing"},
//                             [](pqxx::dbtransaction& tx, const outbox::Record& record) { charge(tx, *record.payload); });
//   consumer.run(stop_token);
//
// The handler writes in the transaction that also notes the message in the inbox; offsets go to Kafka after its commit. What Kafka
// then delivers again, after a crash or a rebalance, the inbox knows: the handler does not see it. Effects outside this
// transaction are not undone with it and can happen twice: that is what the ledger of effects is for.
//
// What the handler throws decides what becomes of the message:
//
//   outbox::Poison, and any other std::exception   This message cannot be handled: nothing it wrote stays, and it is parked with
//   that is not about the database; of the         the reason until a person decides (inbox.decide). The others go on; with
//   database: constraints, bad data, RAISE         Order::key, later messages of its key are parked behind it, in their order.
//   Serialization failure, deadlock                The transaction is repeated, soon, then less and less often.
//   A lost connection, a server that is full,      Nothing is handled until it works again: one attempt at a time, backing off
//   read-only or going down, a missing table       with jitter to 10 s. No message is parked for it, none is lost.
//   or right
//
// A handler that catches an error of the database throws it on, or has let it happen in a pqxx::subtransaction: behind it nothing can be
// committed any more, and the message is parked with that reason.
//
// A handler can therefore be called again for a message that it has seen, with nothing left of the first call; it is never called
// for one whose transaction committed. If the server went away during a commit, the inbox says on the next connection what became
// of it. A poisoned message is found by bisection: others of its batch are handled again as well, in smaller transactions.
//
// A slow handler keeps its place in the group: a thread of the library's goes on polling Kafka, so that max.poll.interval.ms does
// not limit the handler. Nothing else does, either: watch stats().busy_for. When partitions are taken away meanwhile, the batch in
// hand is finished, its offsets are not committed, and the next owner meets duplicates.
//
// Once a second it handles what was released, once a minute it forgets what is older than `keep`.
//
// Memory: what is read ahead of the handler takes `read_ahead_bytes` plus one answer of Kafka's of half that size, and half a
// kilobyte for each message, of which there are at most `read_ahead_bytes` / 256. With 200 bytes each, the process holds 55 MiB.
//
// Needs the rights of the role inbox_consumer besides those of the handler, and a schema made by `outbox-relay init --schema inbox`.
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

// Thrown by a handler: this message can never be handled as it is. what() is what a person will read beside it.
class Poison : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Thrown by the constructor and by run(): the set-up is wrong, and waiting would not help. what() ends with `HINT:` and the remedy.
class ConsumerSetupError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// What happened, for a log: one for each change of state, none for each message.
struct ConsumerEvent {
  enum class Level { debug, info, warn, error };
  Level level = Level::info;
  std::string name;  // short and stable, in snake_case
  std::vector<std::pair<std::string, std::string>> fields;
};

struct ConsumerOptions {
  enum class Order {
    key,   // of one (topic, key), a message waits until every parked one before it is done with
    none,  // a parked message makes no other wait
  };

  // HOST:PORT of one or more brokers, with commas. Required.
  std::string brokers{};

  // Consumer group of Kafka. Required.
  std::string group{};

  // Names of topics, or regular expressions that begin with ^. Required.
  std::vector<std::string> topics{};

  // Connection string of the database, as for libpq. Required. With connect_timeout, keepalives and tcp_user_timeout in it, a
  // server that vanished is noticed sooner.
  std::string dsn{};

  // Name in the inbox. Consumers of one name handle each message once, together. Defaults to the group.
  std::string consumer{};

  // Further properties of librdkafka, such as sasl.password. Those that the promise rests on are refused. Defaults to none;
  // auto.offset.reset, where the group has no position yet, defaults to earliest.
  std::vector<std::pair<std::string, std::string>> properties{};

  // Messages in one transaction, at most. Defaults to 500.
  int batch_messages_max = 500;

  // Bytes that are read ahead of the handler, 2 to 128 MiB. Defaults to 12 MiB.
  std::int64_t read_ahead_bytes = std::int64_t{12} << 20;

  // Defaults to key.
  Order order = Order::key;

  // How far back the inbox remembers, counted from the newest message: longer than any repeat can take, and than the topics' retention
  // where a group is to read what lies there already. What is older is parked as expired. Defaults to 7 days.
  std::chrono::seconds keep = std::chrono::hours(7 * 24);

  // The step in which it forgets. Cannot be changed once the consumer is known to the inbox. Defaults to 10 minutes.
  std::chrono::seconds span = std::chrono::minutes(10);

  // Told what happened, and does not throw; called by one thread at a time, which waits for it. Defaults to nobody.
  std::function<void(const ConsumerEvent&)> on_event{};
};

struct ConsumerStats {
  enum class State {
    starting,   // no connection to the database yet, and no member of the group
    consuming,
    stalled,    // the database is away or unable: no message is taken, each is safe in Kafka
    stopped,    // before run() and after it
  };
  State state = State::stopped;
  std::int64_t fresh = 0;       // handled
  std::int64_t duplicates = 0;  // met again, and not handled again
  std::int64_t expired = 0;     // older than the memory: parked
  std::int64_t parked = 0;      // all that were parked, expired ones included
  std::int64_t released = 0;    // parked, and handled after all
  std::int64_t forgotten = 0;   // rows that were deleted from the inbox
  std::int64_t batches = 0;     // transactions that were committed with messages
  std::int64_t retries = 0;     // transactions that were repeated: serialization failures, deadlocks, lost connections
  std::chrono::milliseconds busy_for{0};  // how long the batch in hand has been
};

class Consumer {
 public:
  // Handles one message, in the transaction. It does not commit or roll back.
  using Handler = std::function<void(pqxx::dbtransaction& tx, const Record& record)>;
  // Handles all new messages of a batch at once, in their order. Never called for none.
  using BatchHandler = std::function<void(pqxx::dbtransaction& tx, std::span<const Record> records)>;

  // Throws ConsumerSetupError if an option is missing or wrong; nothing is connected yet.
  Consumer(ConsumerOptions options, Handler handler);
  Consumer(ConsumerOptions options, BatchHandler handler);
  ~Consumer();
  Consumer(const Consumer&) = delete;
  Consumer& operator=(const Consumer&) = delete;

  // Consumes until it is asked to stop: the batch in hand is finished (or, while the database is away, left to the next owner), its
  // offsets are committed, and the group is left at once. The handler is called by this thread only. Can be called again when it
  // has returned.
  //
  // Throws ConsumerSetupError if the database refuses (no schema, no right, another span), or Kafka for good (a fenced group
  // instance). What comes and goes it waits for.
  void run(std::stop_token stop);

  // From any thread.
  ConsumerStats stats() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace v1
}  // namespace outbox
