// SPDX-License-Identifier: Apache-2.0
// Retention deletes what is delivered and old, and nothing else, whatever the clock says; and
// scheduled messages fall due.
//
// Time passes by changing opened_at, so that no test waits for it.
#include <gtest/gtest.h>
#include <signal.h>

#include "relay/postgres/database.h"
#include "relay/postgres/lease.h"
#include "relay/postgres/retention.h"
#include "relay/postgres/scheduler.h"
#include "relay/postgres/statements.h"
#include "tests/support/checker.h"

namespace relay {
namespace {

using test::TestOutbox;
using Texts = std::vector<std::string>;

class Retention : public ::testing::Test {
 protected:
  Retention() : topic(db.topic("t", 1)) {}

  void enqueue(const std::string& payload) {
    db.sql("insert into outbox.message (topic, payload) values ('" + topic + "', '" + payload +
           "')");
  }
  // One batch per message, after one for what is there already.
  void deliver(const Texts& payloads) {
    auto relay = db.relay();
    db.wait_until_idle();
    for (const auto& payload : payloads) {
      enqueue(payload);
      db.wait_until_idle();
    }
    stop(relay);
  }
  void deliver_the_rest() {
    auto relay = db.relay();
    db.wait_until_idle();
    stop(relay);
  }
  static void stop(test::Process& relay) {
    relay.signal(SIGTERM);
    EXPECT_EQ(relay.wait(), 0) << relay.output();
  }
  // The batches up to this number were opened `by` earlier than they were.
  void age(const std::string& by = "2 hours", const std::string& up_to = "9999") {
    db.sql("update outbox.batch set opened_at = opened_at - '" + by +
           "'::interval where number <= " + up_to);
  }
  // With the lease in hand, by a function of control, options and epoch.
  template <typename Work>
  void as_holder(const Work& work) {
    postgres::Options options;
    options.dsn = Secret(db.dsn());
    options.relay = db.name();
    options.holder = "pruner";
    postgres::PgDatabase database(options);
    ASSERT_TRUE(database.connect());
    postgres::PgLease lease(options, database);
    test::eventually("the lease of a relay that was killed runs out", [&] {
      const auto available = lease.available();
      return available && *available;
    });
    const auto taken = lease.take();
    ASSERT_TRUE(taken && *taken);
    work(database.control(), options, (*taken)->epoch);
    ASSERT_TRUE(lease.resign());
  }
  // All that retention would.
  void prune() {
    as_holder([&](auto& control, const auto& options, std::int64_t epoch) {
      constexpr std::int64_t rows = 2;
      postgres::PrunePosition position;
      for (bool more = true; more;) {
        const auto page =
            postgres::prune_page(control, options, Millis{60'000}, epoch, rows, position);
        ASSERT_TRUE(page) << page.error().text();
        EXPECT_LE(page->batches, rows);
        more = page->more;
      }
    });
  }
  Texts column(const std::string& statement) {
    Texts out;
    for (const auto& row : db.sql(statement)) out.push_back(row[0].as<std::string>());
    return out;
  }
  Texts kept() {
    return column("select convert_from(payload, 'UTF8') from outbox.message order by seq");
  }
  Texts batches() { return column("select number from outbox.batch order by number"); }
  Texts arrived() {
    Texts out;
    for (const auto& r :
         test::read_log(db.kafka().brokers(), {topic}, test::Isolation::read_committed).records) {
      out.push_back(r.payload.value_or("(null)"));
    }
    return out;
  }
  std::string state(const std::string& payload) {
    return db.value(
        "select s.state || ' in ' || coalesce(s.batch::text, 'none') from outbox.message m, "
        "outbox.status_of(m.id) s "
        "where m.payload = '" +
        payload + "'");
  }

  TestOutbox db;
  std::string topic;
};

TEST_F(Retention, WhatIsDeliveredAndOldGoesAndTheRestCanStillBeAskedFor) {
  deliver({"1", "2", "3", "4", "5"});
  prune();
  EXPECT_EQ(kept(), (Texts{"1", "2", "3", "4", "5"}));
  age("2 hours", "3");
  prune();
  EXPECT_EQ(kept(), (Texts{"4", "5"}));
  EXPECT_EQ(batches(), (Texts{"4", "5"}));
  EXPECT_EQ(state("4"), "delivered in 4");
  EXPECT_EQ(state("5"), "delivered in 5");
  age();
  prune();
  EXPECT_EQ(kept(), Texts{"5"});  // all that the newest base does not show
  EXPECT_EQ(batches(), (Texts{"4", "5"}));
  EXPECT_EQ(state("5"), "delivered in 5");
  EXPECT_EQ(db.value("select count(*) from outbox.status_of_seq(1)"), "0");
  deliver({"6"});
  EXPECT_EQ(arrived(), (Texts{"1", "2", "3", "4", "5", "6"}));
}

// The message of the oldest transaction is the last to be delivered, so the journal cannot be cut
// by transaction id.
TEST_F(Retention, TheJournalIsKeptForMessagesBesideALateOne) {
  deliver({"1", "2"});
  pqxx::connection c(db.dsn());
  pqxx::work late(c);
  late.exec("insert into outbox.message (topic, payload) values ('" + topic + "', 'late')");
  deliver({"3", "4"});
  late.commit();
  deliver({"5"});  // the late one before it
  ASSERT_EQ(state("late"), "delivered in 5");
  age("2 hours", "2");
  prune();
  EXPECT_EQ(kept(), (Texts{"late", "3", "4", "5"}));
  EXPECT_EQ(batches(), (Texts{"3", "4", "5", "6"}));
  EXPECT_EQ(state("3"), "delivered in 3");
  EXPECT_EQ(state("late"), "delivered in 5");
}

TEST_F(Retention, TheJournalOfADifferenceIsKeptWhole) {
  deliver({"0"});
  db.sql("insert into outbox.message (topic, payload) select '" + topic +
         "', convert_to(g::text, 'UTF8') from generate_series(1, 6) g");
  db.environment["OUTBOX_RELAY_DELIVERY_BATCH_MESSAGES_MAX"] = "2";
  deliver_the_rest();
  ASSERT_EQ(state("1"), "delivered in 2");
  age("2 hours", "3");
  prune();
  EXPECT_EQ(kept(), (Texts{"1", "2", "3", "4", "5", "6"}));
  EXPECT_EQ(state("1"), "delivered in 2");
  EXPECT_EQ(state("6"), "delivered in 4");
}

// Ages by which everything, or nothing, looks old.
class RetentionByAnyClock : public Retention, public ::testing::WithParamInterface<const char*> {};

TEST_P(RetentionByAnyClock, KeepsAnOpenTransaction) {
  pqxx::connection c(db.dsn());
  pqxx::work late(c);
  late.exec("insert into outbox.message (topic, payload) values ('" + topic + "', 'late')");
  deliver({"1", "2", "3"});
  age(GetParam());
  prune();
  late.commit();
  prune();
  EXPECT_EQ(db.value("select count(*) from outbox.message where payload = 'late'"), "1");
  deliver_the_rest();
  EXPECT_EQ(arrived(), (Texts{"1", "2", "3", "late"}));
}

TEST_P(RetentionByAnyClock, KeepsABatchInDoubtAndWhatIsLeftOfItsDifference) {
  deliver({"1", "2"});
  Texts all = {"1", "2"};
  db.sql("insert into outbox.message (topic, payload) select '" + topic +
         "', convert_to(g::text, 'UTF8') from generate_series(3, 37) g");
  for (int i = 3; i <= 37; ++i) all.push_back(std::to_string(i));
  {
    auto doomed = db.relay(
        {{"OUTBOX_CRASH_AT", "opened:2"}, {"OUTBOX_RELAY_DELIVERY_BATCH_MESSAGES_MAX", "10"}},
        "relay-with-crash-points");
    EXPECT_EQ(doomed.wait(), -SIGKILL) << doomed.output();
  }
  ASSERT_EQ(db.value("select exhausted or delivered_at is not null from outbox.batch order by "
                     "number desc limit 1"),
            "f");
  age(GetParam());
  prune();
  EXPECT_GE(std::stoi(db.value("select count(*) from outbox.message")), 35);
  db.sql("update outbox.batch set opened_at = clock_timestamp()");  // Kafka refuses records from
                                                                    // the future
  deliver_the_rest();
  EXPECT_EQ(arrived(), all);
}

INSTANTIATE_TEST_SUITE_P(Opened, RetentionByAnyClock, ::testing::Values("10 years", "-10 years"),
                         [](const auto& by) {
                           return std::string(by.param[0] == '-' ? "in_the_future" : "long_ago");
                         });

TEST_F(Retention, AParkedMessageAndItsReasonOutliveItsRow) {
  db.sql(
      "insert into outbox.message (topic, key, payload, dedup_key) values ('no topic', 'k', 'bad', "
      "'bad-1')");
  const std::string id = db.value("select id from outbox.message");
  deliver({"1", "2", "3"});
  age();
  prune();
  EXPECT_EQ(kept(), Texts{"3"});
  EXPECT_EQ(batches(), (Texts{"1", "3", "4"}));  // the first is what the parked message belongs to
  for (const auto& by :
       Texts{"status_of('" + id + "')", "status_of_key('bad-1')", "status_of_seq(1)"}) {
    EXPECT_EQ(column("select concat_ws(' ', s.id, s.seq, s.topic, s.dedup_key, s.state, s.batch, "
                     "split_part(s.reason, ':', 1)) from outbox." +
                     by + " s"),
              Texts{id + " 1 no topic bad-1 parked 1 topic_invalid"})
        << by;
  }
}

TEST_F(Retention, AReleasedMessageGoesWhenItsReleaseIsOld) {
  db.sql("insert into outbox.message (topic, payload) values ('no topic', 'bad')");
  deliver({"1"});
  ASSERT_EQ(db.command({"parked", "edit", db.value("select id from outbox.parked"), "--topic",
                        topic, "--why", "a test"})
                .code,
            0);
  db.deliver();
  EXPECT_EQ(db.value("select state || ' in ' || batch from outbox.status_of_seq(1)"),
            "delivered in 3");
  deliver({"2", "3"});
  age("2 hours", "2");
  prune();
  // The release is young: its message can be asked for, though its row is gone.
  EXPECT_EQ(kept(), (Texts{"2", "3"}));
  EXPECT_EQ(db.value("select state || ' in ' || batch from outbox.status_of_seq(1)"),
            "delivered in 3");
  const auto traced = db.command({"trace", "--seq", "1"},
                                 {{"OUTBOX_RELAY_POSTGRES_DSN", db.login("outbox_observer")}});
  EXPECT_EQ(traced.code, 0) << traced.output;
  EXPECT_NE(traced.output.find("read back from Kafka"), std::string::npos) << traced.output;
  age();
  prune();
  EXPECT_EQ(db.value("select count(*) from outbox.parked"), "0");
  EXPECT_EQ(db.value("select count(*) from outbox.status_of_seq(1)"), "0");
  EXPECT_EQ(batches(), (Texts{"4", "5"}));
}

TEST_F(Retention, ADiscardedMessageCanBeAskedForWhenItsRowIsGone) {
  db.sql("insert into outbox.message (topic, payload) values ('no topic', 'bad')");
  deliver({"1", "2"});
  const std::string id = db.value("select id from outbox.parked");
  age();
  prune();
  EXPECT_EQ(kept(), Texts{"2"});
  ASSERT_EQ(db.command({"parked", "discard", id, "--why", "a test"}).code, 0);
  db.deliver();
  const auto traced = db.command({"trace", id});
  EXPECT_EQ(traced.code, 0) << traced.output;
  EXPECT_NE(traced.output.find("decided to discard it: a test"), std::string::npos)
      << traced.output;
}

// It is bisected, among batches of both kinds, with gaps in their numbers.
TEST_F(Retention, TheHorizonIsTheOldestYoungStreamBatch) {
  db.sql(
      "insert into outbox.batch (number, epoch, token, kind, mode, base, upto, after_seq, "
      "upto_seq, exhausted, messages, bytes, opened_at) "
      "select g * 3 + g % 2, 1, gen_random_uuid(), case when g % 5 = 0 then 'release' else "
      "'stream' end, 'exactly-once', "
      "(g || ':' || g || ':')::pg_snapshot, (g + 1 || ':' || g + 1 || ':')::pg_snapshot, 0, 0, "
      "true, 1, 1, "
      "clock_timestamp() - make_interval(mins => 1000 - g) from generate_series(1, 1000) g");
  for (const int minutes : {0, 1, 2, 3, 400, 500, 501, 502, 503, 504, 505, 998, 999, 1000, 5000}) {
    const std::string keep = "'" + std::to_string(minutes * 60 + 30) + " s'";
    const std::string searched =
        db.value("with recursive cutoff as materialized (select clock_timestamp() - " + keep +
                 "::interval as until, 0::bigint as first_number), " +
                 std::string(postgres::sql::horizon) + " select h.base from horizon h");
    const std::string linear = db.value(
        "select coalesce((select b.base from outbox.batch b where b.kind = 'stream' and "
        "b.opened_at > clock_timestamp() - " +
        keep +
        "::interval order by b.number limit 1), (select b.base from outbox.batch b where b.kind = "
        "'stream' order by b.number desc limit 1))");
    EXPECT_EQ(searched, linear) << keep;
  }
}

TEST_F(Retention, MessagesThatAreDueLaterAreNotLookedAt) {
  db.sql("insert into outbox.scheduled (deliver_at, topic) select now() + interval '1 day', '" +
         topic + "' from generate_series(1, 20000)");
  db.sql("insert into outbox.scheduled (deliver_at, topic) values (now(), '" + topic + "')");
  db.sql("analyze outbox.scheduled");
  db.sql("select pg_stat_reset()");
  as_holder([&](auto& control, const auto& options, std::int64_t epoch) {
    postgres::Scheduler scheduler(options);
    scheduler.start();
    const auto moved = scheduler.move(control, epoch, 10'000);
    ASSERT_TRUE(moved) << moved.error().text();
    EXPECT_EQ(*moved, 1);
  });
  const std::string counted =
      "select coalesce(sum(s.idx_tup_read), 0) from pg_stat_user_indexes s where s.relname = "
      "'scheduled'";
  test::eventually("the server has counted", [&] { return db.value(counted) != "0"; });
  EXPECT_LT(std::stoll(db.value(counted)), 100);
}

// Deleted rows stay in the indexes as long as a snapshot is open that shows them.
TEST_F(Retention, UnderAnOldSnapshotEachPageBeginsWhereTheLastOneEnded) {
  constexpr std::int64_t rows = 20'000;
  constexpr std::int64_t page = 200;
  const std::string many = " from generate_series(1, " + std::to_string(rows) + ")";
  db.sql("insert into outbox.message (topic) select '" + topic + "'" + many);
  db.sql(
      "insert into outbox.batch (number, epoch, token, kind, mode, base, upto, after_seq, "
      "upto_seq, exhausted, messages, bytes, opened_at, delivered_at) "
      "select g, 1, gen_random_uuid(), 'stream', 'exactly-once', "
      "case when g < 1000 then '3:3:' else pg_current_snapshot() end, pg_current_snapshot(), 0, "
      "0, true, 1, 1, clock_timestamp() - interval '1 day', clock_timestamp() - interval '1 day' "
      "from generate_series(1, 2000) g");
  db.sql("insert into outbox.scheduled (deliver_at, topic) select now(), '" + topic + "'" + many);
  db.sql("analyze outbox.scheduled, outbox.message, outbox.batch");
  pqxx::connection c(db.dsn());
  pqxx::transaction<pqxx::isolation_level::repeatable_read> old(c);
  old.exec("select count(*) from outbox.message");

  const std::string read =
      "select sum(s.idx_tup_read) from pg_stat_user_indexes s where s.indexrelname = ";
  const auto read_of = [&](const std::string& index, std::int64_t at_least) {
    std::int64_t n = 0;
    test::eventually("the server has counted", [&] {
      n = std::stoll(db.value(read + "'" + index + "'"));
      return n >= at_least;
    });
    return n;
  };
  db.sql("select pg_stat_reset()");
  as_holder([&](auto& control, const auto& options, std::int64_t epoch) {
    postgres::PrunePosition position;
    for (bool more = true; more;) {
      const auto pruned =
          postgres::prune_page(control, options, Millis{60'000}, epoch, page, position);
      ASSERT_TRUE(pruned) << pruned.error().text();
      more = pruned->more;
    }
    postgres::Scheduler scheduler(options);
    scheduler.start();
    for (std::int64_t moved = 0; moved < rows;) {
      const auto r = scheduler.move(control, epoch, page);
      ASSERT_TRUE(r) << r.error().text();
      moved += *r;
    }
  });
  EXPECT_EQ(db.value("select count(*) from outbox.scheduled"), "0");
  EXPECT_EQ(db.value("select count(*) from outbox.message"), std::to_string(rows));
  EXPECT_LE(std::stoi(db.value("select count(*) from outbox.batch")), 1'002);
  EXPECT_LE(read_of("message_txid_seq", rows), 2 * rows);
  EXPECT_LE(read_of("scheduled_due", rows), 3 * rows);
  EXPECT_LE(read_of("batch_pkey", 1'000), 40'000);
}

TEST_F(Retention, AMessageThatWasScheduledLateAndIsDueAlreadyIsMoved) {
  as_holder([&](auto& control, const auto& options, std::int64_t epoch) {
    postgres::Scheduler scheduler(options);
    scheduler.start();
    for (const char* const before : {"0", "1 second", "1 day", "2 seconds", "1 year"}) {
      db.sql("insert into outbox.scheduled (deliver_at, topic) values (now() - interval '" +
             std::string(before) + "', '" + topic + "')");
      test::eventually("it is moved", [&] {
        const auto moved = scheduler.move(control, epoch, 10);
        return moved && *moved == 1;
      });
    }
  });
}

TEST_F(Retention, ScheduledMessagesAreMovedInPagesOfSomeMegabytes) {
  db.sql("insert into outbox.scheduled (deliver_at, topic, payload) select now(), '" + topic +
         "', decode(repeat('ab', 1 << 20), 'hex') from generate_series(1, 20)");
  as_holder([&](auto& control, const auto& options, std::int64_t epoch) {
    postgres::Scheduler scheduler(options);
    scheduler.start();
    std::vector<std::int64_t> pages;
    do {
      const auto moved = scheduler.move(control, epoch, 2'000);
      ASSERT_TRUE(moved) << moved.error().text();
      pages.push_back(*moved);
    } while (scheduler.more());
    EXPECT_EQ(pages, (std::vector<std::int64_t>{8, 8, 4}));
  });
}

// A write that takes long holds up a take-over, and not the sign of life of the holder.
TEST_F(Retention, AWriteUnderTheFenceHoldsUpNoRenewal) {
  postgres::Options options;
  options.dsn = Secret(db.dsn());
  options.relay = db.name();
  options.holder = "holder";
  options.lease_ttl = Millis{1};
  postgres::PgDatabase database(options);
  ASSERT_TRUE(database.connect());
  postgres::PgLease lease(options, database);
  ASSERT_TRUE(lease.available());
  const auto taken = lease.take();
  ASSERT_TRUE(taken && *taken);

  pqxx::connection c(db.dsn());
  pqxx::work write(c);
  ASSERT_EQ(write
                .exec_params("with " + std::string(postgres::sql::fence) + " select from fence",
                             (*taken)->epoch, options.holder)
                .size(),
            1U);
  ASSERT_TRUE(database.control().run("a test", "select set_config('lock_timeout', '2s', false)"));
  EXPECT_TRUE(lease.renew());
  ASSERT_TRUE(lease.available());
  const auto again = lease.take();
  ASSERT_FALSE(again);
  EXPECT_NE(again.error().what.find("lock timeout"), std::string::npos) << again.error().text();
  write.commit();
}

TEST_F(Retention, NothingIsPrunedWithoutTheLease) {
  deliver({"1", "2", "3"});
  age();
  postgres::Options options;
  options.holder = "nobody";
  auto control = postgres::PqxxSession::connect(db.dsn());
  ASSERT_TRUE(control);
  postgres::PrunePosition position;
  const auto pruned =
      postgres::prune_page(**control, options, Millis{60'000},
                           std::stoll(db.value("select epoch from outbox.lease")), 1000, position);
  ASSERT_FALSE(pruned);
  EXPECT_EQ(pruned.error().fault, Fault::fenced);
  EXPECT_EQ(kept(), (Texts{"1", "2", "3"}));
}

TEST_F(Retention, TheRunningRelayPrunesByItself) {
  deliver({"1", "2", "3"});
  age();
  auto relay = db.relay({{"OUTBOX_RELAY_RETENTION_KEEP", "1m"}});
  test::eventually("the old messages are gone", [&] { return kept() == Texts{"3"}; });
  test::eventually("the old batches are gone", [&] { return batches() == (Texts{"2", "3"}); });
  stop(relay);
}

TEST_F(Retention, ScheduledMessagesAreDeliveredWhenTheyAreDueByTheirTimeAndKeepTheirIdentity) {
  const auto schedule = [&](const std::string& payload, const std::string& at) {
    return db.value("select outbox.enqueue('" + topic + "', 'k', '" + payload + "', '{\"h\": \"" +
                    payload + "\"}', 'dedup-" + payload + "', " +
                    "date_trunc('day', now()) - interval '1 day' + interval '" + at + "')");
  };
  schedule("third", "3 hours");
  schedule("first", "1 hour");
  const std::string second = schedule("second", "2 hours");
  schedule("also third", "3 hours");
  const std::string later = schedule("later", "9 days");
  auto relay = db.relay();
  test::eventually("what is due is moved",
                   [&] { return db.value("select count(*) from outbox.scheduled") == "1"; });
  db.wait_until_idle();
  EXPECT_EQ(arrived(), (Texts{"first", "second", "third", "also third"}));
  for (const auto& r :
       test::read_log(db.kafka().brokers(), {topic}, test::Isolation::read_committed).records) {
    EXPECT_EQ(r.header("dedup-key"), "dedup-" + *r.payload);
    EXPECT_EQ(r.header("h"), r.payload);
    EXPECT_EQ(r.key, "k");
  }
  EXPECT_EQ(db.value("select dedup_key || ' ' || state from outbox.status_of('" + second + "')"),
            "dedup-second delivered");
  EXPECT_EQ(db.value("select dedup_key || ' ' || state from outbox.status_of('" + later + "')"),
            "dedup-later scheduled");
  EXPECT_EQ(column("select state from outbox.status_of_key('dedup-later')"), Texts{"scheduled"});
  stop(relay);
}

}  // namespace
}  // namespace relay
