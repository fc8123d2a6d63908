// SPDX-License-Identifier: Apache-2.0
// One outbox with its relay: a database of its own with the schema in it, topics of its own, relays
// as child processes.
#pragma once

#include <memory>
#include <pqxx/pqxx>
#include <string>
#include <vector>

#include "tests/support/process.h"
#include "tests/support/scratch_servers.h"

namespace relay::test {

class TestOutbox {
 public:
  // Makes a database and a relay name that no other test uses, with these schemas; with `kafka`,
  // also the progress topic. Servers are shared unless given.
  explicit TestOutbox(ScratchPostgres& postgres = shared_postgres(),
                      ScratchKafka* kafka = &shared_kafka(), const std::string& schemas = "outbox");

  // The same outbox and relay name, its database now on another server: call it when the database
  // is there.
  TestOutbox moved_to(ScratchPostgres& other) const;

  // From now on this is the same outbox on another server, but for its relays, which go where
  // `environment` sends them.
  void move_to(ScratchPostgres& other) { postgres_ = &other; }

  const std::string& name() const { return name_; }  // of the relay
  const std::string& database() const { return database_; }
  std::string dsn() const { return postgres_->dsn(database_); }
  ScratchPostgres& postgres() { return *postgres_; }
  ScratchKafka& kafka() { return *kafka_; }
  // Creates a login with the rights of these roles (with commas) and no others, unless it is there;
  // its connection string.
  std::string login(const std::string& roles);
  // Creates a topic whose name begins with the relay's.
  std::string topic(const std::string& suffix, int partitions = 3,
                    const std::vector<std::string>& config = {});

  // The same for a progress topic beside the relay's own; it becomes the one in use.
  std::string progress_topic(const std::string& suffix, int partitions = 1,
                             const std::vector<std::string>& config = {});

  // The relay's configuration, as environment; change it before a relay is started.
  Process::Environment environment;

  Process relay(const Process::Environment& more = {}, const std::string& program = "outbox-relay");
  // Runs outbox-relay with these arguments to its end.
  Finished command(std::vector<std::string> arguments, const Process::Environment& more = {});

  // One statement on a connection of its own.
  pqxx::result sql(const std::string& statement) const;
  // First column of the first row.
  std::string value(const std::string& statement) const;
  // Waits until every committed message is in a delivered batch or parked, and nothing is in doubt.
  void wait_until_idle(Millis within = Millis{60'000});
  // The same, and that every decision about parked messages which can be executed is.
  void wait_until_released(Millis within = Millis{60'000});
  // Runs a relay until everything is settled and released, and stops it; throws if it does not end
  // well. Returns its output.
  std::string deliver(const Process::Environment& more = {});

 private:
  TestOutbox(const TestOutbox& original, ScratchPostgres& other);

  ScratchPostgres* postgres_;
  ScratchKafka* kafka_;
  std::string name_;
  std::string database_;
};

std::string program_path(const std::string& name);

}  // namespace relay::test
