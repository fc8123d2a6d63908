// SPDX-License-Identifier: Apache-2.0
#include "tests/faults/rows.h"

namespace outbox::faults {
namespace {

void crashes(Round& round) {
  const Millis after = round.let_run(0, 300);
  round.stretch.servers.postgres->stop(test::ScratchPostgres::Stop::immediate);
  round.stretch.servers.postgres->start();
  round.tell("crashed after " + std::to_string(after.count()) + " ms");
  round.healed();
}

}  // namespace

std::vector<Row> postgres_rows() {
  return {
      {"P1", crashes, {.workload = {.asynchronous = 0.7}}},
  };
}

}  // namespace outbox::faults
