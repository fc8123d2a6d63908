// SPDX-License-Identifier: Apache-2.0
// Scenarios that the protocol must survive, each run twice: the intact relay passes, and a relay
// with one deliberate defect is caught by the invariant that the defect breaks. A relay that merely
// crashes or hangs is not caught: it fails the test.
#include <gtest/gtest.h>
#include <signal.h>

#include "tests/support/checker.h"

namespace relay {
namespace {

using test::CheckerReport;
using test::Process;
using test::TestOutbox;

constexpr const char* intact = "";

// The relay with crash points, whole or with a defect.
Process relay_with(TestOutbox& db, const std::string& defect, Process::Environment more = {}) {
  if (defect.empty()) return db.relay(more, "relay-with-crash-points");
  more["OUTBOX_MUTANT"] = defect;
  return db.relay(more, "outbox-relay-mutants");
}

void run_until_settled(TestOutbox& db, const std::string& defect) {
  auto relay = relay_with(db, defect);
  relay.says("to=streaming");
  db.wait_until_idle();
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
}

void insert(pqxx::transaction_base& tx, const std::string& topic, int n) {
  tx.exec_params(
      "insert into outbox.message (topic, key, payload) values ($1, 'k', convert_to('k ' || $2, "
      "'UTF8'))",
      topic, n);
}

// T2 owns the older transaction id, waits for T1's lock on the key, and enqueues after it.
CheckerReport older_transaction_enqueues_last(const std::string& defect) {
  TestOutbox db;
  const std::string topic = db.topic("t", 1);
  pqxx::connection c1(db.dsn());
  pqxx::connection c2(db.dsn());
  pqxx::work t2(c2);
  t2.exec("select pg_current_xact_id()");
  pqxx::work t1(c1);
  insert(t1, topic, 1);
  t1.commit();
  insert(t2, topic, 2);
  t2.commit();
  run_until_settled(db, defect);
  return test::check_delivery(db, {topic});
}

TEST(Mutant, OrderByTransactionIdIsCaughtAsReordering) {
  const auto whole = older_transaction_enqueues_last(intact);
  EXPECT_TRUE(whole.exactly_once()) << whole;
  const auto broken = older_transaction_enqueues_last("order_by_txid");
  EXPECT_GT(broken.reordered, 0) << broken;
}

// A transaction that began first commits after a later one was delivered.
CheckerReport a_late_committer(const std::string& defect) {
  TestOutbox db;
  const std::string topic = db.topic("t", 1);
  pqxx::connection c(db.dsn());
  pqxx::work late(c);
  insert(late, topic, 1);
  db.sql("insert into outbox.message (topic, payload) values ('" + topic + "', 'early')");
  auto relay = relay_with(db, defect);
  test::eventually("the early message is delivered", [&] {
    return db.value("select count(*) from outbox.batch where delivered_at is not null") == "1";
  });
  late.commit();
  // A further message shows that the relay has looked again since.
  db.sql("insert into outbox.message (topic, payload) values ('" + topic + "', 'later')");
  test::eventually("the later message is delivered", [&] {
    return db.value(
               "select state from outbox.status_of_seq((select max(seq) from outbox.message))") ==
           "delivered";
  });
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  return test::check_delivery(db, {topic});
}

TEST(Mutant, APositionThatIsTheHighestSeqIsCaughtAsLoss) {
  const auto whole = a_late_committer(intact);
  EXPECT_TRUE(whole.exactly_once()) << whole;
  const auto broken = a_late_committer("position_is_highest_seq");
  EXPECT_GT(broken.lost, 0) << broken;
}

CheckerReport killed_at(const std::string& phase, const std::string& defect) {
  TestOutbox db;
  const std::string topic = db.topic("t", 3);
  test::create_counters(db);
  test::write(db, topic, 20);
  {
    auto doomed = relay_with(db, defect, {{"OUTBOX_CRASH_AT", phase}});
    EXPECT_EQ(doomed.wait(), -SIGKILL) << doomed.output();
  }
  run_until_settled(db, defect);
  return test::check_delivery(db, {topic});
}

TEST(Mutant, RecoveryWithoutTheTokenIsCaughtAsRepetition) {
  const auto whole = killed_at("confirmed", intact);
  EXPECT_TRUE(whole.exactly_once()) << whole;
  const auto broken = killed_at("confirmed", "no_token_check");
  EXPECT_GT(broken.repeated, 0) << broken;
}

TEST(Mutant, MarkingBeforeKafkaConfirmsIsCaughtAsLoss) {
  const auto whole = killed_at("reported", intact);
  EXPECT_TRUE(whole.exactly_once()) << whole;
  const auto broken = killed_at("reported", "mark_before_confirm");
  EXPECT_GT(broken.lost, 0) << broken;
}

// The first relay's open hangs between its INSERT and its COMMIT while the lease runs out and a
// second relay takes over.
struct TakeOver {
  bool old_epoch_wrote_after_take_over = false;
  CheckerReport verdict;
};
TakeOver take_over_during_an_open(const std::string& defect) {
  TestOutbox db;
  const std::string topic = db.topic("t", 3);
  test::create_counters(db);
  test::write(db, topic, 10);
  db.sql(
      "create function public.hang() returns trigger language plpgsql as $$ begin perform "
      "pg_advisory_xact_lock(77); "
      "return new; end $$");
  db.sql(
      "create trigger hang after insert on outbox.batch for each row execute function "
      "public.hang()");
  pqxx::connection c(db.dsn());
  pqxx::nontransaction lock(c);
  lock.exec("select pg_advisory_lock(77)");
  auto first = relay_with(db, defect);
  first.says("to=streaming");
  const auto waiting = [&](int backends) {
    return db.value("select count(*) >= " + std::to_string(backends) +
                    " from pg_stat_activity a where a.datname = current_database() "
                    "and a.wait_event_type = 'Lock'") == "t";
  };
  test::eventually("the first relay's open hangs; it said\n" + first.output(),
                   [&] { return waiting(1); });
  first.signal(SIGSTOP);
  const std::string old_epoch = db.value("select epoch from outbox.lease");
  auto second = relay_with(db, defect);
  // Either the second waits for the row lock of the open under way, or it has taken over.
  test::eventually("the second relay takes over or waits", [&] {
    return waiting(2) || db.value("select epoch from outbox.lease") != old_epoch;
  });
  TakeOver result;
  const bool taken = db.value("select epoch from outbox.lease") != old_epoch;
  const bool absent =
      db.value("select count(*) from outbox.batch where epoch = " + old_epoch) == "0";
  lock.exec("select pg_advisory_unlock(77)");
  db.wait_until_idle();
  const bool appeared =
      db.value("select count(*) from outbox.batch where epoch = " + old_epoch) != "0";
  result.old_epoch_wrote_after_take_over = taken && absent && appeared;
  first.signal(SIGCONT);
  for (Process* p : {&first, &second}) {
    p->signal(SIGTERM);
    EXPECT_EQ(p->wait(), 0) << p->output();
  }
  result.verdict = test::check_delivery(db, {topic});
  return result;
}

TEST(Mutant, AnEpochComparedWithoutALockIsCaughtAsAWriteAfterTakeOver) {
  const auto whole = take_over_during_an_open(intact);
  EXPECT_FALSE(whole.old_epoch_wrote_after_take_over);
  EXPECT_TRUE(whole.verdict.exactly_once()) << whole.verdict;
  const auto broken = take_over_during_an_open("no_epoch_lock");
  EXPECT_TRUE(broken.old_epoch_wrote_after_take_over);
}

// Applications commit asynchronously, and the server crashes as soon as a consumer can see the
// message.
CheckerReport server_crashes_after_delivery(const std::string& defect) {
  test::ScratchPostgres postgres({"synchronous_commit=off", "autovacuum=off"});
  TestOutbox db(postgres);
  db.environment["OUTBOX_RELAY_LEASE_TTL"] = "60s";  // a renewal would flush what the open did not
  const std::string topic = db.topic("t", 1);
  auto relay = relay_with(db, defect, {{"OUTBOX_STOP_AT", "confirmed:2"}});
  // A first message, so that the relay's start, which flushes, is over.
  db.sql("insert into outbox.message (topic, payload) values ('" + topic + "', 'first')");
  db.wait_until_idle();
  // From here on WAL is flushed only by a session that waits for its own commit.
  const int wal_writer = std::stoi(
      db.value("select a.pid from pg_stat_activity a where a.backend_type = 'walwriter'"));
  EXPECT_EQ(::kill(wal_writer, SIGSTOP), 0);
  db.sql("insert into outbox.message (topic, payload) values ('" + topic + "', 'second')");
  test::eventually("a consumer sees the messages", [&] {
    return test::read_log(db.kafka().brokers(), {topic}, test::Isolation::read_committed)
               .records.size() == 2;
  });
  ::kill(wal_writer, SIGKILL);
  postgres.stop(test::ScratchPostgres::Stop::immediate);
  postgres.start();
  relay.signal(SIGCONT);
  db.wait_until_idle();
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  return test::check_delivery(db, {topic});
}

TEST(Mutant, AnAsynchronousOpenIsCaughtAsGhosts) {
  const auto whole = server_crashes_after_delivery(intact);
  EXPECT_TRUE(whole.exactly_once()) << whole;
  const auto broken = server_crashes_after_delivery("synchronous_commit_off");
  EXPECT_GT(broken.ghosts, 0) << broken;
}

}  // namespace
}  // namespace relay
