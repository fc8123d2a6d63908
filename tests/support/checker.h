// SPDX-License-Identifier: Apache-2.0
// Compares what PostgreSQL committed with what Kafka holds, read back from offset 0.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "tests/support/kafka_log.h"
#include "tests/support/test_outbox.h"

namespace relay::test {

// Applications in tests write payloads "KEY N", where N counts up per key under a row lock: the
// order of a key is its order by N.
struct CheckerReport {
  std::int64_t committed = 0;
  std::int64_t parked = 0;     // parked or discarded
  std::int64_t arrived = 0;    // distinct
  std::int64_t lost = 0;       // committed, neither arrived nor parked
  std::int64_t ghosts = 0;     // arrived, never committed, or with other content
  std::int64_t repeated = 0;   // arrived more than once
  std::int64_t reordered = 0;  // first copy of a key's message behind a later one of the key
  std::int64_t both = 0;       // arrived and parked
  std::vector<std::string> unread;

  bool exactly_once() const { return at_least_once() && repeated == 0; }
  bool at_least_once() const {
    return lost == 0 && ghosts == 0 && reordered == 0 && both == 0 && unread.empty();
  }
  friend std::ostream& operator<<(std::ostream& out, const CheckerReport& j);
};

// Messages that `neighbours` committed may be in the topics as well; they are passed over.
CheckerReport check_delivery(TestOutbox& db, const std::vector<std::string>& topics,
                             Isolation isolation = Isolation::read_committed,
                             const std::vector<TestOutbox*>& neighbours = {});

// Creates the table of counters that write() uses.
void create_counters(TestOutbox& db);
// Commits `transactions` transactions of 1 to 5 messages each over `keys` keys to `topic`, each key
// locked before.
void write(TestOutbox& db, const std::string& topic, int transactions, int keys = 5);
// The same by a connection string; throws pqxx::failure when the server goes away.
void write(const std::string& dsn, const std::string& topic, int transactions, int keys = 5);

// Messages in delivered batches; by a connection that is there already, where it is asked again and
// again.
std::int64_t delivered(TestOutbox& db);
std::int64_t delivered(pqxx::connection& connection);
// Waits until so many more messages are delivered than at the time of the call.
void until_delivered(TestOutbox& db, std::int64_t more, Millis within = Millis{30'000});

}  // namespace relay::test
