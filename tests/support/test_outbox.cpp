// SPDX-License-Identifier: Apache-2.0
#include "tests/support/test_outbox.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <stdexcept>

namespace relay::test {

TestOutbox::TestOutbox(const TestOutbox& original, ScratchPostgres& other)
    : environment(original.environment),
      postgres_(&other),
      kafka_(original.kafka_),
      name_(original.name_),
      database_(original.database_) {}

std::string program_path(const std::string& name) {
  return std::string(OUTBOX_BUILD_DIR) + "/" + name;
}

TestOutbox::TestOutbox(ScratchPostgres& postgres, ScratchKafka* kafka, const std::string& schemas)
    : postgres_(&postgres), kafka_(kafka) {
  static std::atomic<int> count{0};
  name_ = "r" + std::to_string(getpid()) + "-" + std::to_string(++count);
  database_ = postgres_->create_database();
  environment = {
      {"OUTBOX_RELAY_RELAY_NAME", name_},
      {"OUTBOX_RELAY_POSTGRES_DSN", dsn()},
      {"OUTBOX_RELAY_KAFKA_BROKERS", kafka_ != nullptr ? kafka_->brokers() : "127.0.0.1:1"},
      {"OUTBOX_RELAY_TOPICS_ALLOW", "*"},
      {"OUTBOX_RELAY_LEASE_TTL", "1s"}};
  std::vector<std::string> init = {"init", "--schema", schemas};
  if (kafka_ != nullptr) init.push_back("--kafka");
  const auto done = command(init);
  if (done.code != 0) throw std::runtime_error("outbox-relay init failed: " + done.output);
}

TestOutbox TestOutbox::moved_to(ScratchPostgres& other) const {
  TestOutbox moved(*this, other);
  moved.environment["OUTBOX_RELAY_POSTGRES_DSN"] = moved.dsn();
  return moved;
}

std::string TestOutbox::login(const std::string& roles) {
  const std::string user = roles.substr(0, roles.find(',')) + "-" + name_;
  if (value("select count(*) from pg_roles where rolname = '" + user + "'") == "0")
    sql("create role \"" + user + "\" login in role " + roles);
  return postgres_->dsn(database_, user);
}

std::string TestOutbox::topic(const std::string& suffix, int partitions,
                              const std::vector<std::string>& config) {
  const std::string topic = name_ + "." + suffix;
  kafka_->create_topic(topic, partitions, config);
  return topic;
}

std::string TestOutbox::progress_topic(const std::string& suffix, int partitions,
                                       const std::vector<std::string>& config) {
  const std::string topic = "outbox-progress." + name_ + "." + suffix;
  kafka_->create_topic(topic, partitions, config);
  environment["OUTBOX_RELAY_KAFKA_PROGRESS_TOPIC"] = topic;
  return topic;
}

Process TestOutbox::relay(const Process::Environment& more, const std::string& program) {
  Process::Environment all = more;
  all.insert(environment.begin(), environment.end());
  return Process({program_path(program), "run"}, all);
}

Finished TestOutbox::command(std::vector<std::string> arguments, const Process::Environment& more) {
  Process::Environment all = more;
  all.insert(environment.begin(), environment.end());
  arguments.insert(arguments.begin(), program_path("outbox-relay"));
  return run_command(std::move(arguments), all);
}

pqxx::result TestOutbox::sql(const std::string& statement) const {
  pqxx::connection connection(dsn());
  pqxx::nontransaction tx(connection);
  return tx.exec(statement);
}

std::string TestOutbox::value(const std::string& statement) const {
  const auto rows = sql(statement);
  return rows.empty() || rows[0][0].is_null() ? std::string() : rows[0][0].as<std::string>();
}

void TestOutbox::wait_until_idle(Millis within) {
  pqxx::connection connection(dsn());
  eventually(
      "every committed message is delivered or parked; batches: " +
          value("select count(*) from outbox.batch"),
      [&] {
        pqxx::nontransaction tx(connection);
        return tx
            .exec(
                "select not exists (select from outbox.batch b where b.delivered_at is null) and "
                "not exists (select from outbox.message "
                "m where outbox.batch_of(m.txid, m.seq) is null)")[0][0]
            .as<bool>();
      },
      within);
}

void TestOutbox::wait_until_released(Millis within) {
  pqxx::connection connection(dsn());
  eventually(
      "every decision is executed",
      [&] {
        pqxx::nontransaction tx(connection);
        return tx
            .exec(
                "select not exists (select from outbox.batch b where b.delivered_at is null) and "
                "not exists "
                "(select from outbox.releasable(true, 1, 1))")[0][0]
            .as<bool>();
      },
      within);
}

std::string TestOutbox::deliver(const Process::Environment& more) {
  auto running = relay(more);
  running.says("to=streaming");
  wait_until_idle();
  wait_until_released();
  running.signal(SIGTERM);
  if (running.wait() != 0)
    throw std::runtime_error("the relay did not end well: " + running.output());
  return running.output();
}

}  // namespace relay::test
