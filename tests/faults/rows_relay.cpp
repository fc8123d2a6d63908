// SPDX-License-Identifier: Apache-2.0
#include <signal.h>

#include "tests/faults/rows.h"

namespace outbox::faults {
namespace {

void killed_and_started_again(Round& round) {
  const Millis after = round.let_run(0, 300);
  round.stretch.kill(round.stretch.relays.front());
  round.tell("killed after " + std::to_string(after.count()) + " ms");
  round.stretch.start_relay();
  round.healed();
}

// The one that is left takes over; a new one stands by for the next round.
void killed_and_taken_over(Round& round) {
  const Millis after = round.let_run(0, 300);
  round.stretch.kill(round.stretch.holder());
  round.tell("killed after " + std::to_string(after.count()) + " ms");
  round.healed();
  round.stretch.start_relay();
}

// The first one wakes up when the other has delivered some batches.
void stopped_past_its_lease(Round& round) {
  const Millis after = round.let_run(0, 300);
  Relay& zombie = round.stretch.holder();
  const auto epoch = round.stretch.epoch();
  zombie.process.signal(SIGSTOP);
  round.tell("stopped after " + std::to_string(after.count()) + " ms");
  round.healed();
  test::eventually("the other takes over", [&] { return round.stretch.epoch() > epoch; });
  round.stretch.until_batches(1, Millis{30'000});
  round.recovered();
  round.let_run(0, 300);
  zombie.process.signal(SIGCONT);
  round.allowed.doubtful_batches = 2;  // of the zombie, and of the one that recovered it
}

}  // namespace

std::vector<Row> relay_rows() {
  return {
      {"R1", killed_and_started_again},
      {"R4", killed_and_taken_over, {.relays = 2}},
      {"R5", stopped_past_its_lease, {.relays = 2}},
  };
}

}  // namespace outbox::faults
