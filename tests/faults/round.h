// SPDX-License-Identifier: Apache-2.0
// What a row of the fault matrix works with: one outbox under load with its relays, and the record of one round.
#pragma once

#include <list>
#include <memory>
#include <string>

#include "tests/faults/checker.h"
#include "tests/faults/workload.h"
#include "tests/support/kafka_proxy.h"
#include "tests/support/world.h"

namespace outbox::faults {

// What all stretches of a campaign share. Kafka has a second address that leads through the proxy.
struct Servers {
  Servers();

  test::KafkaProxy kafka_proxy;
  std::unique_ptr<test::ScratchPostgres> postgres;
  std::unique_ptr<test::ScratchKafka> kafka;
};

// A relay with what is known of its end.
struct Relay {
  test::Process process;
  std::size_t read_to = 0;  // of its output, by the checker
  bool killed = false;      // by us
};

struct StretchOptions {
  Mode mode = Mode::exactly_once;
  int relays = 1;
  bool through_kafka_proxy = false;
  std::string sabotage{};
  WorkloadOptions workload{};
  test::Process::Environment relay{};  // more configuration
};

// One outbox, its applications, its relays and its checker, for some rounds.
class Stretch {
 public:
  Stretch(Servers& servers, std::uint64_t seed, const StretchOptions& options);

  Relay& start_relay();
  // The relay that holds the lease. Waits for one to hold it.
  Relay& holder();
  void kill(Relay& relay);
  // Of the lease.
  std::int64_t epoch() const { return std::stoll(world.value("select l.epoch from outbox.lease l")); }
  // Batches that were confirmed so far.
  std::int64_t delivered_batches();
  // Waits until so many batches more are confirmed than at the time of the call.
  void until_batches(std::int64_t more, Millis within);
  // Adds what is wrong with how relays ended and with what they said since the last call. Forgets those that were killed.
  void look_at_relays(const std::vector<std::string>& expected_errors, Counts& counts, std::string& why);
  // Reads the whole log again, and ends the relays. REQUIRES: the applications are stopped, and all they wrote is checked.
  void finish(Counts& counts, std::string& why);

  Servers& servers;
  const StretchOptions options;
  test::World world;
  const std::vector<std::string> topics;
  Applications applications;
  Checker checker;
  std::list<Relay> relays;
};

// The fault of one round: how it went, as the row tells.
struct Round {
  Stretch& stretch;
  Random& random;
  int number = 0;

  std::string detail{};                       // what was done, and when
  Clock::time_point healed_at{};              // since when nothing is in the way any more
  Clock::time_point recovered_at{};           // when a batch was confirmed after that; if a row does not tell, it is waited for
  Allowed allowed{};
  std::vector<std::string> expected_errors{};  // events of level error that the fault causes
  std::map<std::string, double> measured{};

  // Lets the load run for a moment that is drawn by lot: where the fault strikes is what is tested.
  Millis let_run(std::int64_t from_ms, std::int64_t to_ms);
  void healed() { healed_at = Clock::now(); }
  void recovered() { recovered_at = Clock::now(); }
  void tell(const std::string& what) { detail += (detail.empty() ? "" : "; ") + what; }
};

}  // namespace outbox::faults
