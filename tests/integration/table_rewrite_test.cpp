// SPDX-License-Identifier: Apache-2.0
// The table of messages is rewritten or emptied under the relay: while it reads, while it waits for
// the lock, and before and while it reads a batch in doubt again.
#include <gtest/gtest.h>
#include <signal.h>

#include <future>

#include "tests/support/checker.h"

namespace relay {
namespace {

using test::Process;
using test::TestOutbox;
using Texts = std::vector<std::string>;

class TableRewrite : public ::testing::Test {
 protected:
  TableRewrite() : topic(db.topic("t", 1)) {
    db.environment["OUTBOX_RELAY_DELIVERY_BATCH_MESSAGES_MAX"] = "20";
    test::create_counters(db);
  }

  void leave_a_batch_in_doubt() {
    auto doomed = db.relay({{"OUTBOX_CRASH_AT", "opened"}}, "relay-with-crash-points");
    EXPECT_EQ(doomed.wait(), -SIGKILL) << doomed.output();
  }
  // Runs `statement`, which needs the table for itself, so that a reader that let_go() sets free
  // waits for it.
  void while_the_reader_waits(const std::string& statement, const std::function<void()>& let_go) {
    const auto waiting = [&](const std::string& how_many) {
      return db.value("select count(*) >= " + how_many +
                      " from pg_locks l where l.relation = 'outbox.message'::regclass "
                      "and not l.granted and l.database = (select d.oid from pg_database d where "
                      "d.datname = current_database())") == "t";
    };
    std::future<pqxx::result> running;  // ends after `holder`, also when something below throws
    pqxx::connection c(db.dsn());
    pqxx::work holder(c);
    holder.exec("select from outbox.message limit 1");
    running = std::async(std::launch::async, [&] { return db.sql(statement); });
    test::eventually("the statement waits for the table", [&] { return waiting("1"); });
    let_go();
    test::eventually("the reader waits behind it", [&] { return waiting("2"); });
    holder.commit();
    running.get();
  }
  void finish(Process& relay) {
    db.wait_until_idle();
    relay.signal(SIGTERM);
    EXPECT_EQ(relay.wait(), 0) << relay.output();
    const auto verdict = test::check_delivery(db, {topic});
    EXPECT_TRUE(verdict.exactly_once() && verdict.parked == 0) << verdict;
  }

  TestOutbox db;
  std::string topic;
};

// The check own_txid, which no old row would pass, is not looked at by any of these.
struct Rewrite {
  const char* name;
  const char* statement;
};
class Rewritten : public TableRewrite, public ::testing::WithParamInterface<Rewrite> {
 protected:
  void rewrite() {
    const std::string before = db.value("select pg_relation_filenode('outbox.message')");
    db.sql(GetParam().statement);
    ASSERT_NE(db.value("select pg_relation_filenode('outbox.message')"), before)
        << "the table was not rewritten";
  }
};

TEST_P(Rewritten, UnderWritersAndAReaderLosesNothing) {
  auto relay = db.relay();
  relay.says("to=streaming");
  auto writing = std::async(std::launch::async, [&] { test::write(db, topic, 150); });
  const std::string undo = "alter table outbox.message drop column if exists extra";
  do {
    rewrite();
    db.sql(undo);
  } while (writing.wait_for(std::chrono::seconds(0)) != std::future_status::ready);
  finish(relay);
}

TEST_P(Rewritten, WhileTheReaderWaitsLosesNothing) {
  auto relay = db.relay({{"OUTBOX_RELAY_LEASE_TTL", "60s"}});
  relay.says("to=streaming");
  relay.signal(SIGSTOP);
  test::write(db, topic, 20);
  while_the_reader_waits(GetParam().statement, [&] { relay.signal(SIGCONT); });
  finish(relay);
}

TEST_P(Rewritten, ABatchInDoubtIsReadAgainUnchanged) {
  test::write(db, topic, 20);
  leave_a_batch_in_doubt();
  rewrite();
  auto relay = db.relay();
  relay.says("found=not_delivered");
  finish(relay);
}

TEST_P(Rewritten, ABatchInDoubtIsReadAgainUnchangedBehindTheLock) {
  test::write(db, topic, 20);
  leave_a_batch_in_doubt();
  std::optional<Process> relay;
  while_the_reader_waits(GetParam().statement, [&] { relay.emplace(db.relay()); });
  relay->says("found=not_delivered");
  finish(*relay);
}

INSTANTIATE_TEST_SUITE_P(
    By, Rewritten,
    ::testing::Values(
        Rewrite{"AlterColumnType",
                "alter table outbox.message alter column topic type text using topic || ''"},
        Rewrite{"AddColumnWithVolatileDefault",
                "alter table outbox.message add column extra text default md5(random()::text)"},
        Rewrite{"VacuumFull", "vacuum full outbox.message"},
        Rewrite{"Cluster", "cluster outbox.message using message_pkey"}),
    [](const auto& rewrite) { return std::string(rewrite.param.name); });

// Emptied, the outbox has lost what was not delivered: the operator's doing. The relay goes on with
// what comes later, unless a batch is in doubt.
class Truncated : public TableRewrite, public ::testing::WithParamInterface<const char*> {
 protected:
  void refuses(Process& relay) {
    EXPECT_EQ(relay.wait(), 5) << relay.output();
    for (const char* text : {"deleted or hid rows", "HINT: ", "TRUNCATE"}) {
      EXPECT_NE(relay.output().find(text), std::string::npos) << relay.output();
    }
    EXPECT_TRUE(test::read_log(db.kafka().brokers(), {topic}, test::Isolation::read_uncommitted)
                    .records.empty());
  }
};

TEST_P(Truncated, WhileTheReaderWaitsDoesNotConfuseIt) {
  auto relay = db.relay({{"OUTBOX_RELAY_LEASE_TTL", "60s"}});
  relay.says("to=streaming");
  test::write(db, topic, 10);
  db.wait_until_idle();
  relay.signal(SIGSTOP);
  db.sql("insert into outbox.message (topic, payload) values ('" + topic + "', 'deleted')");
  while_the_reader_waits(GetParam(), [&] { relay.signal(SIGCONT); });
  db.sql("insert into outbox.message (topic, payload) values ('" + topic + "', 'after')");
  db.wait_until_idle();
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  const auto records =
      test::read_log(db.kafka().brokers(), {topic}, test::Isolation::read_committed).records;
  ASSERT_EQ(records.size(), 31u);  // 10 transactions of 1 to 5, and the last
  EXPECT_EQ(records.back().payload, "after");
}

TEST_P(Truncated, ABatchInDoubtIsRefused) {
  test::write(db, topic, 20);
  leave_a_batch_in_doubt();
  db.sql(GetParam());
  auto relay = db.relay();
  refuses(relay);
}

TEST_P(Truncated, ABatchInDoubtIsRefusedBehindTheLock) {
  test::write(db, topic, 20);
  leave_a_batch_in_doubt();
  std::optional<Process> relay;
  while_the_reader_waits(GetParam(), [&] { relay.emplace(db.relay()); });
  refuses(*relay);
}

INSTANTIATE_TEST_SUITE_P(Sequence, Truncated,
                         ::testing::Values("truncate outbox.message",
                                           "truncate outbox.message restart identity"),
                         [](const auto& statement) {
                           return std::string(statement.param).size() > 24 ? "restarted" : "kept";
                         });

}  // namespace
}  // namespace relay
