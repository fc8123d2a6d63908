// SPDX-License-Identifier: Apache-2.0
// outbox::inbox: each message is accepted once, whatever two transactions, a crash or forgetting do
// at the same time.
#include "outbox/inbox.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <future>
#include <list>
#include <optional>
#include <random>
#include <thread>

#include "tests/support/process.h"
#include "tests/support/test_inbox.h"

namespace relay {
namespace {

namespace inbox = outbox::inbox;

using namespace std::chrono_literals;
using inbox::Accepted;
using inbox::Arrival;
using test::eventually;
using TimePoint = std::chrono::system_clock::time_point;

const TimePoint now =
    std::chrono::time_point_cast<std::chrono::milliseconds>(std::chrono::system_clock::now());

// As the application: a login with the rights of inbox_consumer and no others.
class InboxTest : public ::testing::Test {
 protected:
  InboxTest() : dsn(db.login("inbox_consumer")), first(dsn), second(dsn) { make_known("c"); }

  void make_known(const std::string& consumer, std::chrono::seconds keep = 1h,
                  std::chrono::seconds span = 10s) {
    pqxx::work tx(first);
    inbox::register_consumer(tx, consumer, keep, span);
    tx.commit();
  }
  Accepted accept(const std::string& key, TimePoint sent_at = now,
                  const std::string& consumer = "c") {
    pqxx::work tx(first);
    const Accepted answer = inbox::accept(tx, consumer, "t", key, sent_at);
    tx.commit();
    return answer;
  }
  // Forgets all that is older than `keep`, counted back from a message of now.
  void forget(const std::string& consumer = "c") {
    accept("newest", now, consumer);
    pqxx::work tx(first);
    while (inbox::prune(tx, consumer, 100) == 100) {
    }
    tx.commit();
  }
  // Waits until the second connection waits for a lock.
  void second_waits() {
    eventually("the second connection waits", [&] {
      return db.value("select wait_event_type from pg_stat_activity where pid = " +
                      std::to_string(second.backendpid())) == "Lock";
    });
  }
  std::future<Accepted> accept_second(const std::string& key) {
    return std::async(std::launch::async, [this, key] {
      pqxx::work tx(second);
      const Accepted answer = inbox::accept(tx, "c", "t", key, now);
      tx.commit();
      return answer;
    });
  }

  test::TestInbox db;
  const std::string dsn;
  pqxx::connection first;
  pqxx::connection second;
};

TEST_F(InboxTest, AMessageIsFreshOnceForEachConsumer) {
  make_known("other");
  EXPECT_EQ(accept("k"), Accepted::new_message);
  EXPECT_EQ(accept("k"), Accepted::duplicate);
  EXPECT_EQ(accept("k", now, "other"), Accepted::new_message);
  EXPECT_EQ(accept("K"), Accepted::new_message);
  EXPECT_EQ(db.value("select duplicates from inbox.statistics where consumer = 'c'"), "1");
}

TEST_F(InboxTest, TheSecondOfTwoWaitsAndIsADuplicateIfTheFirstCommits) {
  pqxx::work tx(first);
  ASSERT_EQ(inbox::accept(tx, "c", "t", "k", now), Accepted::new_message);
  auto answer = accept_second("k");
  second_waits();
  tx.commit();
  EXPECT_EQ(answer.get(), Accepted::duplicate);
}

TEST_F(InboxTest, TheSecondOfTwoWaitsAndIsFreshIfTheFirstRollsBack) {
  pqxx::work tx(first);
  ASSERT_EQ(inbox::accept(tx, "c", "t", "k", now), Accepted::new_message);
  auto answer = accept_second("k");
  second_waits();
  tx.abort();
  EXPECT_EQ(answer.get(), Accepted::new_message);
  EXPECT_EQ(accept("k"), Accepted::duplicate);
}

TEST_F(InboxTest, WhatASubtransactionAcceptedIsUndoneWithIt) {
  pqxx::work tx(first);
  {
    pqxx::subtransaction inner(tx);
    EXPECT_EQ(inbox::accept(inner, "c", "t", "k", now), Accepted::new_message);
    inner.abort();
  }
  EXPECT_EQ(inbox::accept(tx, "c", "t", "k", now), Accepted::new_message);
  tx.commit();
}

// A process accepts, and kills itself before its commit or after it.
TEST_F(InboxTest, AProcessThatIsKilledHasAcceptedWhatItCommittedAndNothingElse) {
  for (const bool commits : {false, true}) {
    const std::string key = commits ? "committed" : "not committed";
    const pid_t child = fork();
    if (child == 0) {
      pqxx::connection own(dsn);
      pqxx::work tx(own);
      inbox::accept(tx, "c", "t", key, now);
      if (commits) tx.commit();
      kill(getpid(), SIGKILL);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status));
    EXPECT_EQ(accept(key), commits ? Accepted::duplicate : Accepted::new_message);
  }
}

TEST_F(InboxTest, WhatIsOlderThanTheMemoryIsExpiredAndWhatIsNotIsRemembered) {
  EXPECT_EQ(accept("old", now - 2h), Accepted::new_message);
  EXPECT_EQ(accept("young", now - 30min), Accepted::new_message);
  forget();
  EXPECT_EQ(accept("old", now - 2h), Accepted::expired);
  EXPECT_EQ(accept("never seen", now - 2h), Accepted::expired);
  EXPECT_EQ(accept("young", now - 30min), Accepted::duplicate);
  EXPECT_EQ(
      db.value("select forgotten || ' ' || expired from inbox.statistics where consumer = 'c'"),
      "1 2");
}

// A consumer that was away for hours, and one record with a wrong clock.
TEST_F(InboxTest, AMessageFromTheFutureExpiresNothing) {
  EXPECT_EQ(accept("old", now - 3h), Accepted::new_message);
  EXPECT_EQ(accept("future", now + 48h), Accepted::new_message);
  {
    pqxx::work tx(first);
    inbox::prune(tx, "c", 100);
    tx.commit();
  }
  EXPECT_EQ(accept("less old", now - 2h), Accepted::new_message);
  EXPECT_EQ(accept("old", now - 3h), Accepted::duplicate);
  forget();
  EXPECT_EQ(accept("future", now + 48h), Accepted::duplicate);
  EXPECT_EQ(accept("less old", now - 2h), Accepted::expired);
}

TEST_F(InboxTest, ATimeThatIsMissingOrInfiniteIsRefused) {
  for (const char* time : {"null", "'infinity'", "'-infinity'"}) {
    const std::string at = time + std::string("::timestamptz");
    for (const std::string& call :
         {"select inbox.accept('c', 't', 'd', " + at + ")",
          "select inbox.accept_all('c', '{t}', '{d}', array[" + at + "])"}) {
      pqxx::work tx(first);
      EXPECT_THROW(tx.exec(call), pqxx::sql_error) << call;
    }
  }
  EXPECT_EQ(db.value("select count(*) from inbox.span"), "0");
}

TEST_F(InboxTest, AConsumerThatHasAcceptedNothingHasForgottenNothing) {
  {
    pqxx::work tx(first);
    EXPECT_EQ(inbox::prune(tx, "c"), 0);
    tx.commit();
  }
  EXPECT_EQ(accept("old", now - 48h), Accepted::new_message);
}

// An accept that began before the span was forgotten must not answer `fresh`: its snapshot shows
// neither row nor span as gone.
TEST_F(InboxTest, AnAcceptThatBeganBeforeForgettingNeverCallsAForgottenMessageFresh) {
  const auto old = now - 2h;
  for (const std::string level : {"read committed", "repeatable read", "serializable"}) {
    for (const bool set_form : {false, true}) {
      for (const bool span_is_there : {true, false}) {
        SCOPED_TRACE(level + (set_form ? ", set form" : "") +
                     (span_is_there ? "" : ", no such span"));
        const std::string consumer =
            level + std::to_string(set_form) + std::to_string(span_is_there);
        make_known(consumer);
        if (span_is_there) {
          ASSERT_EQ(accept("old", old, consumer), Accepted::new_message);
        }
        pqxx::work tx(second);
        tx.exec("set transaction isolation level " + level);
        tx.exec("select count(*) from inbox.accepted");  // takes the snapshot
        forget(consumer);
        std::optional<Accepted> answer;
        try {
          const Arrival arrival{"t", "old", old};
          answer = set_form ? inbox::accept(tx, consumer, std::span(&arrival, 1)).front()
                            : inbox::accept(tx, consumer, "t", "old", old);
          tx.commit();
        } catch (const pqxx::serialization_failure&) {
          answer.reset();
        }
        if (answer) EXPECT_EQ(*answer, Accepted::expired);
        else EXPECT_NE(level, "read committed");
      }
    }
  }
}

TEST_F(InboxTest, ForgettingWaitsForATransactionThatAcceptsWhatIsForgotten) {
  ASSERT_EQ(accept("newest"), Accepted::new_message);
  ASSERT_EQ(accept("very old", now - 2h), Accepted::new_message);
  pqxx::work tx(first);
  ASSERT_EQ(inbox::accept(tx, "c", "t", "old", now - 2h), Accepted::new_message);
  auto pruned = std::async(std::launch::async, [this] {
    pqxx::work other(second);
    const auto rows = inbox::prune(other, "c");
    other.commit();
    return rows;
  });
  second_waits();
  tx.commit();
  EXPECT_EQ(pruned.get(), 2);
  EXPECT_EQ(accept("old", now - 2h), Accepted::expired);
}

// In a repeatable snapshot it does not see a span that was new while it waited.
TEST_F(InboxTest, WhatWasAcceptedWhileItWasForgottenIsNeverFreshAgain) {
  for (const std::string level : {"read committed", "repeatable read", "serializable"}) {
    SCOPED_TRACE(level);
    make_known(level);
    ASSERT_EQ(accept("newest", now, level), Accepted::new_message);
    pqxx::work tx(first);
    ASSERT_EQ(inbox::accept(tx, level, "t", "old", now - 3h), Accepted::new_message);
    auto pruned = std::async(std::launch::async, [this, &level] {
      try {
        pqxx::work other(second);
        other.exec("set transaction isolation level " + level);
        inbox::prune(other, level);
        other.commit();
      } catch (const pqxx::serialization_failure&) {  // it is called again
      }
    });
    second_waits();
    tx.commit();
    pruned.get();
    EXPECT_NE(accept("old", now - 3h, level), Accepted::new_message);
    forget(level);
    EXPECT_EQ(accept("old", now - 3h, level), Accepted::expired);
  }
}

TEST_F(InboxTest, WhatIsDoneWithCostsNothingWhenReleasesAreLookedFor) {
  db.sql(
      "insert into inbox.parked (consumer, topic, \"partition\", record_offset, sent_at, key, "
      "error_class, error_text, resolution, decided_by, "
      "decided_at, handled_at) select c.id, 't', 0, g, now(), 'k', 'handler', 'x', 'release', "
      "'me', now(), now() from inbox.consumer c "
      "cross join generate_series(1, 20000) g where c.name = 'c'");
  db.sql("select inbox.park('c', 't', 0, 0, now(), 'k', null, null, 'k', 'handler', 'x')");
  db.sql(
      "insert into inbox.parked (consumer, topic, \"partition\", record_offset, sent_at, key, "
      "error_class, error_text) "
      "select c.id, 't', 1, g, now(), 'k', 'key_blocked', 'x' from inbox.consumer c cross join "
      "generate_series(1, 3000) g where c.name = 'c'");
  db.sql(
      "insert into inbox.tally (consumer, seen_at, duplicates, expired) select c.id, now(), 1, 0 "
      "from inbox.consumer c "
      "cross join generate_series(1, 20000) where c.name = 'c'");
  db.sql("analyze inbox.parked; analyze inbox.tally");
  db.sql("select pg_stat_reset()");
  {
    pqxx::connection consumer(dsn);
    pqxx::nontransaction tx(consumer);
    tx.exec("select inbox.next_released('c', true), inbox.prune('c')");
  }
  const std::string read =
      "select sum(t.seq_tup_read + coalesce(t.idx_tup_fetch, 0)) from pg_stat_user_tables t "
      "where t.schemaname = 'inbox' and t.relname in ('parked', 'tally')";
  eventually("the reading is counted", [&] {
    return db.value(
               "select sum(coalesce(t.seq_scan, 0) + coalesce(t.idx_scan, 0)) > 1 from "
               "pg_stat_user_tables t where t.schemaname = 'inbox'") == "t";
  });
  EXPECT_LT(std::stoll(db.value(read)),
            15'000);  // two for each that waits; none of the 40,000 others
}

TEST_F(InboxTest, TheSetFormAnswersAsTheSingleFormDoes) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  make_known("single");
  make_known("set");
  for (const char* consumer : {"single", "set"}) {
    accept("first", now - 2h, consumer);
    forget(consumer);
  }
  for (int round = 0; round < 60; ++round) {
    std::vector<std::string> keys;
    std::vector<Arrival> arrivals;
    const std::size_t count = random() % 40;
    keys.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
      keys.push_back(std::string(random() % 5 == 0 ? "\"\\,{}\xC3\xA4 " : "") +
                     std::to_string(random() % static_cast<unsigned>(10 + round)));
      const auto topic = random() % 4 == 0 ? inbox::any_topic : random() % 2 == 0 ? "t" : "u";
      arrivals.push_back({topic, keys.back(), now - std::chrono::seconds(random() % 7'200)});
    }
    pqxx::work tx(first);
    std::vector<Accepted> one_by_one;
    for (const Arrival& a : arrivals)
      one_by_one.push_back(inbox::accept(tx, "single", a.topic, a.dedup_key, a.sent_at));
    ASSERT_EQ(inbox::accept(tx, "set", arrivals), one_by_one) << "round " << round;
    if (random() % 3 == 0) {
      tx.abort();
    } else {
      tx.commit();
    }
  }
  EXPECT_EQ(db.value("select count(distinct (duplicates, expired)) from inbox.statistics where "
                     "consumer <> 'c'"),
            "1");
}

TEST_F(InboxTest, TheCommitIsDurableWhateverTheSessionSays) {
  for (const bool set_form : {false, true}) {
    pqxx::work tx(first);
    tx.exec("set local synchronous_commit = off");
    const Arrival arrival{"t", set_form ? "a" : "b", now};
    if (set_form) inbox::accept(tx, "c", std::span(&arrival, 1));
    else inbox::accept(tx, "c", "t", arrival.dedup_key, now);
    EXPECT_EQ(tx.exec("select current_setting('synchronous_commit')")[0][0].as<std::string>(),
              "on");
    tx.commit();
  }
}

TEST_F(InboxTest, AConsumerThatIsNotRegisteredIsToldTheRemedy) {
  try {
    accept("k", now, "unknown");
    ADD_FAILURE() << "it was accepted";
  } catch (const pqxx::sql_error& e) {
    EXPECT_NE(std::string(e.what()).find("HINT:  select inbox.register"), std::string::npos)
        << e.what();
  }
}

TEST_F(InboxTest, AKeyThatCouldBeCutOffIsRefusedBeforeAnythingIsSent) {
  pqxx::work tx(first);
  for (const std::string& key : {std::string(), std::string("a\0b", 3), std::string(1025, 'k')}) {
    EXPECT_THROW(inbox::accept(tx, "c", "t", key, now), std::invalid_argument);
    const Arrival arrival{"t", key, now};
    EXPECT_THROW(inbox::accept(tx, "c", std::span(&arrival, 1)), std::invalid_argument);
  }
  EXPECT_EQ(inbox::accept(tx, "c", "t", std::string(1024, 'k'), now), Accepted::new_message);
  EXPECT_TRUE(inbox::accept(tx, "c", std::vector<Arrival>{}).empty());
  tx.commit();
}

TEST_F(InboxTest, TimesKeepTheirMicroseconds) {
  make_known("fine", 1h, 1s);
  pqxx::work tx(first);
  const auto edge = std::chrono::floor<std::chrono::seconds>(now);
  inbox::accept(tx, "fine", "t", "before", edge - 1us);
  inbox::accept(tx, "fine", "t", "at", edge);
  tx.commit();
  EXPECT_EQ(db.value("select count(distinct span) from inbox.accepted a join inbox.consumer c on "
                     "c.id = a.consumer where c.name = 'fine'"),
            "2");
}

TEST_F(InboxTest, TheLengthOfASpanCannotBeChangedAndTheMemoryCan) {
  make_known("c", 2h, 10s);
  EXPECT_EQ(db.value("select keep from inbox.consumer where name = 'c'"), "02:00:00");
  EXPECT_THROW(make_known("c", 2h, 20s), pqxx::sql_error);
}

TEST_F(InboxTest, WhatASlowPartitionMayStillDeliverIsNotExpired) {
  const auto report = [&](int partition, std::optional<TimePoint> read_to) {
    pqxx::work tx(first);
    const inbox::Position position{"t", partition, read_to};
    inbox::report(tx, "c", std::span(&position, 1));
    tx.commit();
  };
  ASSERT_EQ(accept("old", now - 150min), Accepted::new_message);
  report(0, now);
  report(1, now - 2h);
  forget();
  EXPECT_EQ(accept("old", now - 150min), Accepted::duplicate);
  EXPECT_EQ(accept("very old", now - 181min), Accepted::expired);

  report(1, now - 30min);
  report(2, std::nullopt);
  forget();
  EXPECT_EQ(accept("old", now - 150min), Accepted::duplicate);
  report(2, now + 10h);  // no farther than the present
  EXPECT_EQ(db.value("select read_to <= now() from inbox.position where partition = 2"), "t");
  report(2, std::nullopt);  // takes nothing back
  forget();
  EXPECT_EQ(accept("old", now - 150min), Accepted::expired);
  EXPECT_EQ(accept("less old", now - 89min), Accepted::new_message);
  EXPECT_EQ(db.value("select read_to = (select min(read_to) from inbox.position) "
                     "from inbox.statistics where consumer = 'c'"),
            "t");

  // Nobody reads partition 1 any more.
  db.sql(
      "update inbox.position set reported_at = now() - interval '61 minutes' "
      "where partition = 1");
  forget();
  EXPECT_EQ(accept("less old", now - 89min), Accepted::expired);
}

// The rights of a consumer suffice to delete what is done with, and no more.
TEST_F(InboxTest, ParkedMessagesAreDeletedSomeTimeAfterTheyAreDoneWith) {
  pqxx::nontransaction consumer(first);
  for (const char* state : {"waits", "discarded", "released", "handled"}) {
    consumer.exec("select inbox.park('c', '" + std::string(state) +
                  "', 0, 0, now(), null, null, null, null, 'handler', 'x')");
  }
  const auto decide = [&](const std::string& topics, const std::string& resolution) {
    db.sql("select inbox.decide(array(select id from inbox.parked where topic in (" + topics +
           ")), '" + resolution + "', 'me')");
  };
  decide("'discarded'", "discard");
  decide("'released', 'handled'", "release");
  db.sql("select inbox.handled(id) from inbox.parked where topic = 'handled'");
  const auto left = [&](const std::string& keep) {
    consumer.exec("select inbox.prune('c', 100, interval '" + keep + "')");
    return db.value("select string_agg(topic, ' ' order by id) from inbox.parked");
  };
  EXPECT_EQ(left("1 hour"), "waits discarded released handled");
  EXPECT_EQ(left("0"), "waits released");
  EXPECT_THROW(consumer.exec("delete from inbox.parked"), pqxx::sql_error);
}

// An order's charge and its e-mail are two messages, though both are called after the order.
TEST_F(InboxTest, OneKeyInTwoTopicsIsTwoMessagesUnlessTheTopicIsLeftOut) {
  pqxx::work tx(first);
  const std::vector<Arrival> arrivals = {{"charges", "order-1", now},
                                         {"emails", "order-1", now},
                                         {"charges", "order-1", now},
                                         {inbox::any_topic, "order-1", now},
                                         {inbox::any_topic, "order-1", now}};
  EXPECT_EQ(inbox::accept(tx, "c", arrivals),
            (std::vector{Accepted::new_message, Accepted::new_message, Accepted::duplicate,
                         Accepted::new_message, Accepted::duplicate}));
  tx.commit();
  pqxx::work again(second);
  EXPECT_EQ(inbox::accept(again, "c", "emails", "order-1", now), Accepted::duplicate);
  EXPECT_EQ(inbox::accept(again, "c", "uploads", "order-1", now), Accepted::new_message);
  EXPECT_EQ(inbox::accept(again, "c", inbox::any_topic, "order-1", now), Accepted::duplicate);
}

// Two transactions that lock one row make a multixact of two members, and n of them one of n.
TEST_F(InboxTest, ManyTransactionsAtATimeAddFewMembersToMultixacts) {
  const auto members = [&] {
    db.sql("checkpoint");
    return std::stoll(db.value("select next_multi_offset from pg_control_checkpoint()"));
  };
  accept("first");
  constexpr int sessions = 24;
  constexpr int rounds = 10;
  std::list<pqxx::connection> connections;
  for (int i = 0; i < sessions; ++i) {
    // The first transaction of a slot adds its row, and others of the slot wait for it.
    pqxx::work tx(connections.emplace_back(dsn));
    inbox::accept(tx, "c", "t", "first of " + std::to_string(i), now);
    tx.commit();
  }
  const std::int64_t before = members();
  for (int round = 0; round < rounds; ++round) {
    std::list<pqxx::work> open;
    for (auto& connection : connections) {
      const std::string key = std::to_string(round) + "-" + std::to_string(open.size());
      EXPECT_EQ(inbox::accept(open.emplace_back(connection), "c", "t", key, now),
                Accepted::new_message);
    }
    for (auto& tx : open) tx.commit();
  }
  EXPECT_LE(members() - before, 2 * sessions * rounds);
}

// Deleted rows stay in the index as long as a snapshot is open that shows them.
TEST_F(InboxTest, UnderAnOldSnapshotEachPageOfPruningBeginsWhereTheLastOneEnded) {
  constexpr std::int64_t rows = 20'000;
  db.sql(
      "select inbox.accept_all('c', array_agg('t'::text), array_agg('old-' || g), array_agg(now() "
      "- interval '1 day' " +
      std::string("+ g * interval '10 milliseconds')) from generate_series(1, ") +
      std::to_string(rows) + ") g");
  accept("new");
  pqxx::connection c(db.dsn());
  pqxx::transaction<pqxx::isolation_level::repeatable_read> old(c);
  old.exec("select count(*) from inbox.accepted");
  db.sql("select pg_stat_reset()");
  std::int64_t gone = 0;
  {
    pqxx::connection consumer(dsn);  // PostgreSQL 13 counts all that it did only once it has ended
    for (std::int64_t page = 200; page == 200; gone += page) {
      pqxx::work tx(consumer);
      page = inbox::prune(tx, "c", 200);
      tx.commit();
    }
  }
  EXPECT_EQ(gone, rows);
  EXPECT_EQ(db.value("select count(*) from inbox.accepted"), "1");
  std::int64_t read = 0;
  eventually("the server has counted", [&] {
    read = std::stoll(db.value(
        "select idx_tup_read from pg_stat_user_indexes where indexrelname = 'accepted_span'"));
    return read >= rows;
  });
  EXPECT_LE(read, 4 * rows);
}

}  // namespace
}  // namespace relay
