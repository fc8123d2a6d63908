// SPDX-License-Identifier: Apache-2.0
#include "tests/faults/rows.h"

namespace outbox::faults {
namespace {

void broker_killed(Round& round) {
  const Millis after = round.let_run(0, 300);
  round.stretch.servers.kafka->kill();
  round.stretch.servers.kafka->start();
  round.tell("killed after " + std::to_string(after.count()) + " ms");
  round.healed();
}

}  // namespace

std::vector<Row> kafka_rows() {
  return {
      {"K1", broker_killed},
  };
}

}  // namespace outbox::faults
