// SPDX-License-Identifier: Apache-2.0
// Kafka or PostgreSQL away, at the start or at any time: stalled, one probe at a time, back by
// itself; nothing is parked.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>

#include "tests/support/checker.h"
#include "tests/support/postgres_proxy.h"

namespace relay {
namespace {

using test::ScratchKafka;
using test::ScratchPostgres;
using test::TestOutbox;

class OutageTest : public ::testing::Test {
 protected:
  OutageTest() : db(postgres, &kafka), topic(db.topic("t")) { test::create_counters(db); }

  void finish(test::Process& relay) {
    db.wait_until_idle();
    relay.signal(SIGTERM);
    EXPECT_EQ(relay.wait(), 0) << relay.output();
    EXPECT_EQ(db.value("select count(*) from outbox.parked"), "0");
    const auto verdict = test::check_delivery(db, {topic});
    EXPECT_TRUE(verdict.exactly_once()) << verdict;
    const std::string log = relay.output();
    EXPECT_LT(std::count(log.begin(), log.end(), '\n'), 40) << log;
  }

  ScratchPostgres postgres;
  ScratchKafka kafka;
  TestOutbox db;
  std::string topic;
};

TEST_F(OutageTest, KafkaAwayAtTheStartAndLaterIsWaitedFor) {
  kafka.kill();
  auto relay = db.relay();
  relay.says("to=stalled");
  test::write(db, topic, 20);
  kafka.start();
  relay.says("to=streaming");
  db.wait_until_idle();
  for (int round = 0; round < 2; ++round) {
    kafka.kill();
    test::write(db, topic, 20);
    test::eventually("the outage is noticed", [&] {
      const std::string log = relay.output();
      return log.rfind("to=stalled") != std::string::npos &&
             log.rfind("to=stalled") > log.rfind("to=streaming");
    });
    kafka.start();
    db.wait_until_idle();
  }
  finish(relay);
}

// Between the relay and the server, one connection is lost and acknowledged for ever. The lease is
// renewed on another.
TEST_F(OutageTest, AReaderWhoseStatementIsLostGetsAnotherConnection) {
  test::PostgresProxy proxy(postgres.port());
  db.environment["OUTBOX_RELAY_POSTGRES_DSN"] = proxy.dsn(db.dsn());
  auto relay = db.relay();
  relay.says("to=streaming");
  for (const char* statement : {"pg_current_snapshot", "copy ("}) {
    const auto lost = proxy.hold(
        [&](const std::string& text) { return text.find(statement) != std::string::npos; },
        test::PostgresProxy::Then::stall);
    test::write(db, topic, 20);
    lost->caught();
    db.wait_until_idle();
    lost->drop();
  }
  const std::string log = relay.output();
  EXPECT_NE(log.find("the connection is dead"), std::string::npos) << log;
  finish(relay);
}

// It answers TCP, so that no keepalive helps.
TEST_F(OutageTest, ACommandCanBeEndedWhileTheServerHangs) {
  test::Process watch({test::program_path("outbox-relay"), "status", "--watch", "--json"},
                      db.environment);
  watch.says("\"pending\":0");
  postgres.pause();
  watch.signal(SIGTERM);
  EXPECT_EQ(watch.wait(Millis{60'000}), 0);
  postgres.resume();
}

TEST_F(OutageTest, APausedBrokerIsWaitedFor) {
  auto relay = db.relay();
  relay.says("to=streaming");
  kafka.pause();
  test::write(db, topic, 20);
  relay.says("to=stalled");
  kafka.resume();
  finish(relay);
}

// As when Kafka takes long to settle what was open: the lease has run out by then, but nobody else
// has taken it.
TEST_F(OutageTest, ARecoveryThatLastsLongerThanTheLeaseIsNotInVain) {
  test::write(db, topic, 20);
  auto doomed = db.relay({{"OUTBOX_CRASH_AT", "opened"}}, "relay-with-crash-points");
  EXPECT_EQ(doomed.wait(), -SIGKILL) << doomed.output();
  auto relay = db.relay({{"OUTBOX_STOP_AT", "initialised"}}, "relay-with-crash-points");
  relay.stops();
  test::eventually("its new lease runs out", [&] {
    return db.value(
               "select l.epoch = 2 and l.expires_at < clock_timestamp() from outbox.lease l") ==
           "t";
  });
  relay.signal(SIGCONT);
  relay.says("found=not_delivered");
  finish(relay);
  EXPECT_EQ(relay.output().find("fenced"), std::string::npos) << relay.output();
}

// Otherwise two relays would take the lease from each other for as long as Kafka is slow.
TEST_F(OutageTest, TheLeaseIsKeptWhileKafkaTakesItsTime) {
  db.environment["OUTBOX_RELAY_LEASE_TTL"] = "3s";
  auto slow = db.relay({{"OUTBOX_STOP_AT", "leased"}}, "relay-with-crash-points");
  slow.stops();
  const std::string expires_at = db.value("select expires_at from outbox.lease");
  kafka.pause();
  slow.signal(SIGCONT);
  auto standby = db.relay();
  test::eventually("the lease is renewed again and again", [&] {
    return db.value("select expires_at > timestamptz '" + expires_at +
                    "' + interval '4 s' from outbox.lease") == "t";
  });
  EXPECT_EQ(db.value("select epoch from outbox.lease"), "1");
  kafka.resume();
  test::write(db, topic, 20);
  standby.signal(SIGTERM);
  EXPECT_EQ(standby.wait(), 0) << standby.output();
  finish(slow);
}

TEST_F(OutageTest, PostgresAwayAtTheStartAndLaterIsWaitedFor) {
  postgres.stop(ScratchPostgres::Stop::fast);
  auto relay = db.relay();
  relay.says("to=stalled");
  postgres.start();
  relay.says("to=streaming");
  for (int round = 0; round < 3; ++round) {
    test::write(db, topic, 20);
    postgres.stop(round % 2 == 0 ? ScratchPostgres::Stop::immediate : ScratchPostgres::Stop::fast);
    postgres.start();
    test::write(db, topic, 20);
    db.wait_until_idle();
  }
  finish(relay);
}

// Such a server answers TCP and nothing else: only a bound of our own notices it.
TEST_F(OutageTest, APausedDatabaseIsWaitedForAndDoesNotKeepTheRelayFromEnding) {
  auto relay = db.relay();
  relay.says("to=streaming");
  postgres.pause();
  relay.says("to=stalled", Millis{60'000});
  postgres.resume();
  test::write(db, topic, 20);
  finish(relay);
  auto another = db.relay();
  another.says("to=streaming");
  postgres.pause();
  another.signal(SIGTERM);
  const int code = another.wait(Millis{60'000});
  postgres.resume();
  EXPECT_EQ(code, 0) << another.output();
}

TEST_F(OutageTest, ABackendThatIsTerminatedCostsNothing) {
  auto relay = db.relay();
  relay.says("to=streaming");
  for (int round = 0; round < 10; ++round) {
    test::write(db, topic, 5);
    db.sql(
        "select pg_terminate_backend(a.pid) from pg_stat_activity a where a.application_name like "
        "'outbox-relay%'");
  }
  db.wait_until_idle();
  finish(relay);
}

// PostgreSQL commits, but warns that it did not wait: the batch may be lost with this server.
// Nothing may be sent until a later commit has waited.
TEST_F(OutageTest, ACancelledWaitForTheSynchronousStandbyIsInDoubt) {
  auto relay = db.relay({{"OUTBOX_RELAY_LEASE_TTL", "60s"}});
  relay.says("to=streaming");
  db.sql("insert into outbox.message (topic, key, payload) values ('" + topic + "', 'w', 'w 1')");
  db.wait_until_idle();
  pqxx::connection c(db.dsn());
  pqxx::nontransaction tx(c);
  tx.exec("set synchronous_commit = local");
  tx.exec("alter system set synchronous_standby_names = 'nobody'");
  tx.exec("select pg_reload_conf()");
  test::eventually("the setting is in force", [&] {
    return tx.exec("show synchronous_standby_names")[0][0].as<std::string>() == "nobody";
  });
  tx.exec_params("insert into outbox.message (topic, key, payload) values ($1, 'w', 'w 2')", topic);
  const auto records = [&] {
    return test::read_log(db.kafka().brokers(), {topic}, test::Isolation::read_uncommitted)
        .records.size();
  };
  const std::string waiting =
      "select a.pid from pg_stat_activity a where a.wait_event = 'SyncRep' and a.query like "
      "'%outbox.batch%'";
  test::eventually("the open waits for the standby", [&] { return !tx.exec(waiting).empty(); });
  tx.exec("select pg_cancel_backend(w.pid) from (" + waiting + ") w");
  relay.says("canceling wait for synchronous replication");
  // The next commit of recovery waits as well; what is sent by then must be nothing.
  test::eventually("recovery waits for the standby", [&] {
    return !tx.exec(
                  "select from pg_stat_activity a where a.wait_event = 'SyncRep' and a.query like "
                  "'%outbox.lease%'")
                .empty();
  });
  EXPECT_EQ(records(), 1u);
  tx.exec("alter system reset synchronous_standby_names");
  tx.exec("select pg_reload_conf()");
  finish(relay);
}

TEST_F(OutageTest, AServerThatIsReadOnlyByDefaultIsWrittenToAllTheSame) {
  db.sql("alter system set default_transaction_read_only = on");
  db.sql("select pg_reload_conf()");
  auto relay = db.relay();
  relay.says("to=streaming");
  pqxx::connection c(db.dsn());
  pqxx::nontransaction tx(c);
  tx.exec("set default_transaction_read_only = off");
  tx.exec("alter system reset default_transaction_read_only");
  tx.exec("select pg_reload_conf()");
  test::write(db, topic, 5);
  finish(relay);
}

}  // namespace
}  // namespace relay
