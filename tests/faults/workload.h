// SPDX-License-Identifier: Apache-2.0
// Applications that use an outbox in every way that is allowed, and remember the answer to each of
// their commits.
//
// They write what they commit into tables of their own in the same transactions: app.tx has a row
// for each transaction, app.said one for each message. The checker relies on these tables and on no
// counter of the relay.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/test_outbox.h"

namespace relay::faults {

using Random = std::mt19937_64;

// True with this probability.
bool chance(Random& random, double probability);
// Between `from` and `to`, both included.
std::int64_t between(Random& random, std::int64_t from, std::int64_t to);

// The answer to a commit, as the application saw it.
struct CommitAnswer {
  enum class What { committed, failed, unknown } what;
  std::int64_t tx;    // app.tx.id
  bool asynchronous;  // committed with synchronous_commit = off: the server may lose it in a crash
};

struct WorkloadOptions {
  int applications = 5;
  Millis think{20};  // between two transactions of one application, on average
  bool long_transaction =
      true;  // one more application holds each transaction open for some seconds
  int bulk =
      0;  // messages in each transaction of one application more, all of one key; 0: there is none
  bool prepared = true;       // some transactions are committed in two phases
  double asynchronous = 0.3;  // share of transactions
  double poison =
      0;  // share of messages that are too large or to no topic: app.poison has their ids
};

// Thread-safe; the applications are threads with a connection each. When the server goes away they
// connect again.
class Applications {
 public:
  // Creates the schema app. REQUIRES: max_prepared_transactions of the server, if transactions are
  // prepared.
  Applications(test::TestOutbox& db, std::vector<std::string> topics, std::uint64_t seed,
               const WorkloadOptions& options);
  ~Applications();
  Applications(const Applications&) = delete;
  Applications& operator=(const Applications&) = delete;

  void go();
  // Returns when no application is in a transaction but the one that holds them long, and finishes
  // what was prepared and left behind.
  void pause();
  // Ends the long transaction as well, and all applications.
  void stop();
  // From now on the applications connect there. REQUIRES: paused, or their server is gone.
  void move_to(const std::string& dsn);

  // The answers since the last call. REQUIRES: paused.
  std::vector<CommitAnswer> take_answers();
  // Transactions that were rolled back on purpose since the last call.
  std::int64_t take_rolled_back() { return rolled_back_.exchange(0); }

 private:
  class Application;

  void run(int number);
  bool all_are_idle_within(Millis most);
  void finish_prepared(const std::string& older_than);
  // Waits until the gate is open; false: stop.
  bool may_go_on(bool holds_open);
  void nap(Millis most);
  void note(const CommitAnswer& answer);
  std::string dsn();

  const std::vector<std::string> topics_;  // the hash of a key chooses one
  const std::uint64_t seed_;
  const WorkloadOptions options_;
  std::mutex mutex_;  // of what follows
  std::condition_variable changed_;
  std::string dsn_;
  bool open_ = false;
  bool stopping_ = false;
  int busy_ = 0;  // applications between two visits to the gate
  std::vector<CommitAnswer> answers_;
  std::atomic<std::int64_t> next_tx_{0};
  std::atomic<std::int64_t> rolled_back_{0};
  std::vector<std::thread> threads_;
};

}  // namespace relay::faults
