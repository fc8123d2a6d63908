// SPDX-License-Identifier: Apache-2.0
// Kafka Connect, standalone, with Debezium's connector for PostgreSQL and its outbox event router.
// Settings that affect delivery have their defaults.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/test_outbox.h"

namespace relay::faults {

class Debezium {
 public:
  // Creates public.outboxevent, the table that the router expects, and a trigger that fills it in
  // the transaction of each message. REQUIRES: wal_level=logical; OUTBOX_DEBEZIUM_HOME, the folder
  // of its jars.
  explicit Debezium(test::TestOutbox& db);
  ~Debezium();
  Debezium(const Debezium&) = delete;
  Debezium& operator=(const Debezium&) = delete;

  void start();
  void kill();
  // Whether it has stored an offset. Before that, a restart copies the whole table again.
  bool has_noted_offsets() const;
  bool running() { return process_ && process_->running(); }
  std::string output() const { return process_ ? process_->output() : ""; }

 private:
  std::filesystem::path folder_;
  std::optional<test::Process> process_;
};

}  // namespace relay::faults
