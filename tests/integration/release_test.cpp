// SPDX-License-Identifier: Apache-2.0
// What an operator decides about parked messages is executed, in the order of their keys,
// whatever dies meanwhile.
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <fstream>
#include <future>

#include "relay/core/loop.h"
#include "tests/support/checker.h"

namespace relay {
namespace {

using test::TestOutbox;

class ReleaseTest : public ::testing::Test {
 protected:
  // Everybody has the rights of his role and no others.
  ReleaseTest() : topic(db.topic("t", 2)), operator_dsn(db.login("outbox_operator")) {
    db.environment["OUTBOX_RELAY_TOPICS_MISSING_AFTER"] = "500ms";
    db.environment["OUTBOX_RELAY_POSTGRES_DSN"] = db.login("outbox_relay");
  }

  // Commits "KEY N" messages, in the order of `messages`; one ending in ! cannot be sent because of
  // its headers.
  void put(const std::vector<std::string>& messages, const std::string& to = {}) {
    for (std::string m : messages) {
      const bool bad = m.back() == '!';
      if (bad) m.pop_back();
      db.sql("insert into outbox.message (topic, key, payload, headers) values ('" +
             (to.empty() ? topic : to) + "', convert_to(split_part('" + m +
             "', ' ', 1), 'UTF8'), convert_to('" + m + "', 'UTF8'), " + (bad ? "'[]'" : "null") +
             ")");
    }
  }
  std::string id_of(const std::string& payload) {
    return db.value("select m.id from outbox.message m where convert_from(m.payload, 'UTF8') = '" +
                    payload + "'");
  }
  std::string state_of(const std::string& payload) {
    return db.value("select s.state from outbox.status_of('" + id_of(payload) + "') s");
  }
  test::Finished decide(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "parked");
    arguments.insert(arguments.end(), {"--why", "a test"});
    return db.command(arguments, {{"OUTBOX_RELAY_POSTGRES_DSN", operator_dsn}});
  }
  void run(const std::vector<std::string>& arguments) {
    const auto done = decide(arguments);
    ASSERT_EQ(done.code, 0) << done.output;
  }
  // Payloads of the topic's records, by partition and offset.
  std::vector<std::string> arrived(const std::string& in = {}) {
    std::vector<std::string> out;
    for (const auto& r : test::read_log(db.kafka().brokers(), {in.empty() ? topic : in},
                                        test::Isolation::read_committed)
                             .records) {
      out.push_back(r.payload.value_or("-"));
    }
    return out;
  }
  void expect_exactly_once(const std::vector<std::string>& topics, std::int64_t parked = 0) {
    const auto verdict = test::check_delivery(db, topics);
    EXPECT_TRUE(verdict.exactly_once()) << verdict;
    EXPECT_EQ(verdict.parked, parked) << verdict;
  }

  TestOutbox db;
  std::string topic;
  std::string operator_dsn;
};

TEST_F(ReleaseTest, AnEditedMessageIsSentAndThoseBehindItFollowInOrder) {
  put({"a 1", "a 2!", "a 3", "b 1"});
  db.deliver();
  put({"a 4"});
  db.deliver();
  EXPECT_EQ(state_of("a 4"), "parked");
  run({"edit", id_of("a 2"), "--no-headers"});
  db.deliver();
  put({"a 5"});
  db.deliver();
  for (const char* m : {"a 1", "a 2", "a 3", "a 4", "a 5", "b 1"})
    EXPECT_EQ(state_of(m), "delivered") << m;
  expect_exactly_once({topic});
  EXPECT_EQ(db.value("select string_agg(p.resolution || ':' || p.decided_by || ':' || "
                     "p.decided_why, ' ' order by p.seq) from outbox.parked p"),
            "edit:outbox_operator-" + db.name() +
                ":a test release:outbox-relay:what it waited for was decided "
                "release:outbox-relay:what it waited for was decided");
}

TEST_F(ReleaseTest, ADecisionIsCarriedOutByTheRunningRelay) {
  put({"a 1!", "a 2"});
  auto relay = db.relay();
  relay.says("to=streaming");
  db.wait_until_idle();
  run({"edit", id_of("a 1"), "--no-headers"});
  db.wait_until_released();
  put({"a 3"});
  db.wait_until_idle();
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  expect_exactly_once({topic});
}

TEST_F(ReleaseTest, ADiscardedMessageIsNeverSentAndThoseBehindItAre) {
  put({"a 1!", "a 2", "a 3!", "a 4"});
  db.deliver();
  run({"discard", id_of("a 1")});
  db.deliver();
  EXPECT_EQ(arrived(), std::vector<std::string>{"a 2"});
  EXPECT_EQ(state_of("a 1"), "discarded");
  EXPECT_EQ(state_of("a 3"), "parked");
  EXPECT_EQ(state_of("a 4"), "parked");
  run({"discard", "--class", "bad_headers"});
  db.deliver();
  EXPECT_EQ(arrived(), (std::vector<std::string>{"a 2", "a 4"}));
  const auto traced = db.command({"trace", id_of("a 3")},
                                 {{"OUTBOX_RELAY_POSTGRES_DSN", db.login("outbox_observer")}});
  EXPECT_EQ(traced.code, 0);
  EXPECT_NE(traced.output.find("decided to discard it: a test"), std::string::npos)
      << traced.output;
  expect_exactly_once({topic}, 2);
}

TEST_F(ReleaseTest, ADecidedMessageWaitsForAnEarlierOneOfItsKeyThatIsNot) {
  put({"a 1!", "a 2", "a 3!", "b 1!"});
  db.deliver();
  run({"edit", id_of("a 3"), "--no-headers"});
  run({"edit", id_of("b 1"), "--no-headers"});
  db.deliver();
  EXPECT_EQ(arrived(), std::vector<std::string>{"b 1"});
  run({"edit", id_of("a 1"), "--no-headers"});
  db.deliver();
  expect_exactly_once({topic});
  EXPECT_EQ(arrived().size(), 4u);
}

TEST_F(ReleaseTest, WhatCannotBeSentAgainIsParkedAgainWithTheRestOfItsKey) {
  put({"a 1!", "a 2", "b 1!"});
  db.deliver();
  run({"release", "--class", "bad_headers"});
  db.deliver();
  EXPECT_TRUE(arrived().empty());
  EXPECT_EQ(db.value("select string_agg(p.error_class, ' ' order by p.seq) from outbox.parked p "
                     "where p.released_in is null"),
            "bad_headers key_blocked bad_headers");
  run({"edit", id_of("a 1"), "--headers", "{\"x\": \"1\"}"});
  run({"edit", id_of("b 1"), "--no-headers"});
  db.deliver();
  expect_exactly_once({topic});
  EXPECT_EQ(arrived().size(), 3u);
}

TEST_F(ReleaseTest, AnEditCanMendTopicKeyAndPayload) {
  db.sql(
      "insert into outbox.message (topic, key, payload) values ('no such/topic', '\\x6b', "
      "convert_to('k 1', 'UTF8')), "
      "('no such/topic', '\\x6b', convert_to('k 2', 'UTF8'))");
  db.deliver();
  const std::string id = id_of("k 1");
  const std::string file = ::testing::TempDir() + db.name() + ".payload";
  std::ofstream(file) << "m 7";
  run({"edit", id, "--topic", topic, "--key", "m", "--payload-file", file});
  run({"edit", id_of("k 2"), "--topic", topic, "--no-key", "--tombstone"});
  db.deliver();
  EXPECT_EQ(arrived(), (std::vector<std::string>{"m 7", "-"}));
  EXPECT_EQ(db.value("select convert_from(p.payload, 'UTF8') from outbox.parked p where p.id = '" +
                     id + "'"),
            "k 1");
  const auto traced =
      db.command({"trace", id}, {{"OUTBOX_RELAY_POSTGRES_DSN", db.login("outbox_observer")}});
  EXPECT_EQ(traced.code, 0) << traced.output;
  EXPECT_NE(traced.output.find("It was read back from Kafka just now."), std::string::npos)
      << traced.output;
}

TEST_F(ReleaseTest, AReleasedMessageCannotBeChangedAnyMore) {
  put({"a 1!"});
  db.deliver();
  run({"discard", "--all"});
  db.deliver();
  EXPECT_THROW(db.sql("update outbox.parked set resolution = 'release'"), pqxx::sql_error);
  const auto again = decide({"release", "--all"});
  EXPECT_EQ(again.code, 1) << again.output;
}

TEST_F(ReleaseTest, AQuarantinedTopicIsReleasedByOneCommand) {
  const std::string unwritable = db.topic("unwritable");
  put({"a 1", "a 2", "b 1"}, unwritable);
  put({"a 1"});
  db.deliver({{"OUTBOX_RELAY_TOPICS_ALLOW", topic}});
  EXPECT_EQ(db.value("select count(*) from outbox.parked where error_class = 'topic_not_allowed'"),
            "3");
  run({"release", "--topic", unwritable});
  db.deliver();
  expect_exactly_once({topic, unwritable});
}

TEST_F(ReleaseTest, AMissingTopicHealsItself) {
  const std::string late = db.name() + ".late";
  put({"a 1", "a 2", "b 1"}, late);
  auto relay = db.relay();
  relay.says("reason=topic_missing");
  db.wait_until_idle();
  put({"a 3"}, late);
  db.wait_until_idle();
  EXPECT_EQ(db.value("select count(*) from outbox.parked"), "4");
  db.topic("late");
  relay.says("topic_found");
  put({"a 4"}, late);
  db.wait_until_idle();
  test::eventually("all are released", [&] {
    return db.value("select count(*) from outbox.parked where released_in is null") == "0";
  });
  db.wait_until_idle();
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  expect_exactly_once({late});
  EXPECT_EQ(arrived(late).size(), 5u);
}

TEST_F(ReleaseTest, OfManyMissingTopicsTheLastIsFoundAsWell) {
  db.sql("insert into outbox.message (topic, key, payload) select '" + db.name() +
         ".none' || g, 'k', 'x' from generate_series(1, 450) g");
  const std::string late = db.name() + ".zlate";
  put({"a 1"}, late);
  auto relay = db.relay();
  db.wait_until_idle();
  EXPECT_EQ(db.value("select count(*) from outbox.parked"), "451");
  db.topic("zlate");
  test::eventually("it is released", [&] {
    return db.value("select count(*) from outbox.parked where released_in is not null") == "1";
  });
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
}

TEST_F(ReleaseTest, ALargeReleaseIsCutIntoBatchesAndKeepsTheOrderOfItsKeys) {
  db.sql("insert into outbox.message (topic, key, payload, headers) select '" + topic +
         "', convert_to('k' || g % 3, 'UTF8'), "
         "convert_to('k' || g % 3 || ' ' || g, 'UTF8'), case when g <= 3 then '[]'::jsonb end from "
         "generate_series(1, 2000) g");
  db.deliver();
  db.environment["OUTBOX_RELAY_DELIVERY_BATCH_MESSAGES_MAX"] = "100";
  for (const char* m : {"k1 1", "k2 2", "k0 3"}) run({"edit", id_of(m), "--no-headers"});
  db.deliver();
  EXPECT_GE(std::stoll(db.value("select count(*) from outbox.batch where kind = 'release'")), 20);
  expect_exactly_once({topic});
  EXPECT_EQ(arrived().size(), 2000u);
}

// What an operator holds in an open transaction is not waited for: the relay would wait with the
// lease in its hands.
TEST_F(ReleaseTest, AnOpenTransactionOfAnOperatorDoesNotHoldTheLease) {
  const std::string late = db.name() + ".late";
  put({"a 1", "b 1"}, late);
  auto relay = db.relay();
  relay.says("reason=topic_missing");
  db.wait_until_idle();
  pqxx::connection somebody(db.dsn());
  {
    pqxx::work open(somebody);
    open.exec("select from outbox.parked p where p.key = '\\x61' for update");
    db.topic("late");
    relay.says("topic_found");
    test::eventually(
        "the other message is released",
        [&] {
          return db.value("select count(*) from outbox.parked where released_in is not null") ==
                 "1";
        },
        Millis{15'000});
    const std::string expires = db.value("select expires_at from outbox.lease");
    test::eventually(
        "the lease is renewed",
        [&] { return db.value("select expires_at from outbox.lease") != expires; }, Millis{5'000});
  }
  test::eventually("all are released", [&] {
    return db.value("select count(*) from outbox.parked where released_in is null") == "0";
  });
  db.wait_until_idle();
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  EXPECT_EQ(relay.output().find("to=stalled"), std::string::npos) << relay.output();
  expect_exactly_once({late});
}

// The choice is made, and before it is written somebody discards the message that would come next.
TEST_F(ReleaseTest, ADecisionThatIsMadeWhileTheRelayChoosesIsNotOverwritten) {
  db.environment["OUTBOX_RELAY_DELIVERY_BATCH_MESSAGES_MAX"] = "2";
  put({"a 1!", "a 2", "a 3", "a 4"});
  db.deliver();
  db.sql("alter function outbox.releasable rename to releasable_at_once");
  db.sql(
      "create function outbox.releasable(by_key boolean, rows_max integer, bytes_max bigint) "
      "returns table (parked_for bigint, seq bigint, bytes bigint, next_leader boolean) language "
      "plpgsql as $$ begin "
      "return query select r.parked_for, r.seq, r.bytes, r.next_leader from "
      "outbox.releasable_at_once(by_key, rows_max, bytes_max) r; "
      "if rows_max > 1 then perform pg_advisory_xact_lock_shared(7); end if; end $$");
  db.sql("grant execute on all functions in schema outbox to outbox_relay, outbox_operator");
  pqxx::connection somebody(db.dsn());
  auto held = std::make_unique<pqxx::work>(somebody);
  held->exec("select pg_advisory_xact_lock(7)");
  run({"edit", id_of("a 1"), "--no-headers"});
  auto relay = db.relay();
  test::eventually("the relay has chosen", [&] {
    return db.value(
               "select exists (select from pg_locks where locktype = 'advisory' and not granted "
               "and database = "
               "(select oid from pg_database where datname = current_database()))") == "t";
  });
  run({"discard", id_of("a 3")});
  held->commit();
  test::eventually("all are released", [&] {
    return db.value("select count(*) from outbox.parked where released_in is null") == "0";
  });
  db.wait_until_idle();
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  EXPECT_EQ(arrived(), (std::vector<std::string>{"a 1", "a 2", "a 4"}));
  EXPECT_EQ(state_of("a 3"), "discarded");
}

TEST_F(ReleaseTest, TwoEditsAtTheSameTimeAreBothKept) {
  put({"a 1!"});
  db.deliver();
  const std::string id = id_of("a 1");
  const std::string file = ::testing::TempDir() + db.name() + ".payload";
  std::ofstream(file) << "a 7";
  const test::Process::Environment as_operator = {{"OUTBOX_RELAY_POSTGRES_DSN", operator_dsn}};
  const auto edit = [&](std::vector<std::string> what) {
    return std::async(std::launch::async, [&, what]() mutable {
      what.insert(what.begin(), {"parked", "edit", id, "--why", "a test"});
      return db.command(what, as_operator);
    });
  };
  pqxx::connection somebody(db.dsn());
  auto held = std::make_unique<pqxx::work>(somebody);
  held->exec("select from outbox.parked for update");
  auto payload = edit({"--payload-file", file});
  auto headers = edit({"--headers", "{\"x\": \"1\"}"});
  test::eventually("both wait", [&] {
    return db.value(
               "select count(*) from pg_stat_activity where datname = current_database() and "
               "wait_event_type = 'Lock'") == "2";
  });
  held->commit();
  EXPECT_EQ(payload.get().code, 0);
  EXPECT_EQ(headers.get().code, 0);
  EXPECT_EQ(
      db.value(
          "select convert_from(edited_payload, 'UTF8') || edited_headers::text from outbox.parked"),
      "a 7{\"x\": \"1\"}");
}

// Poison amid other messages under load; released by waves while writers go on.
class PoisonTest : public ReleaseTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(PoisonTest, NothingIsLostRepeatedOrReorderedUnderLoad) {
  db.environment["OUTBOX_RELAY_DELIVERY_ORDER"] = GetParam();
  test::create_counters(db);
  auto relay = db.relay();
  relay.says("to=streaming");
  std::atomic<bool> ended = false;
  auto writer = std::async(std::launch::async, [&] {
    test::write(db, topic, 2'000, 40);
    ended = true;
  });
  auto poisoner = std::async(std::launch::async, [&] {
    pqxx::connection connection(db.dsn());
    for (int i = 0; i < 40; ++i) {
      pqxx::work tx(connection);
      const std::string key = "k" + std::to_string(i % 40);
      tx.exec("with c as (insert into counter values ('" + key +
              "', 1) on conflict (key) do update set n = counter.n + 1 returning n) "
              "insert into outbox.message (topic, key, payload, headers) select '" +
              topic + "', convert_to('" + key + "', 'UTF8'), convert_to('" + key +
              " ' || n, 'UTF8'), '[]' from c");
      tx.commit();
    }
  });
  while (!ended) {
    db.sql(
        "update outbox.parked p set resolution = case when p.seq % 2 = 0 then 'discard' else "
        "'edit' end, decided_by = 'test', "
        "decided_at = now(), edited_topic = case when p.seq % 2 = 1 then p.topic end, edited_key = "
        "case when p.seq % 2 = 1 then p.key end, "
        "edited_payload = case when p.seq % 2 = 1 then p.payload end where p.released_in is null "
        "and p.error_class = 'bad_headers'");
  }
  writer.get();
  poisoner.get();
  db.wait_until_idle();
  decide({"discard", "--class", "bad_headers"});
  db.wait_until_idle();
  db.wait_until_released();
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  auto verdict = test::check_delivery(db, {topic});
  if (GetParam() == std::string("message"))
    verdict.reordered = 0;  // an edited message comes when it is edited
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
  EXPECT_EQ(db.value("select count(*) from outbox.parked where released_in is null"), "0");
}

INSTANTIATE_TEST_SUITE_P(InBothOrders, PoisonTest, ::testing::Values("key", "message"),
                         [](const auto& p) { return std::string(p.param); });

// A release is killed at every point between two steps, in both modes.
class ReleaseCrashTest : public ReleaseTest,
                         public ::testing::WithParamInterface<std::tuple<Mode, int>> {};

TEST_P(ReleaseCrashTest, NothingIsLostGhostedRepeatedOrReordered) {
  const Mode mode = std::get<0>(GetParam());
  const auto phase = static_cast<Phase>(std::get<1>(GetParam()));
  db.environment["OUTBOX_RELAY_RELAY_MODE"] = to_string(mode);
  put({"a 1", "a 2!", "a 3", "b 1!", "b 2", "c 1!", "c 2!", "c 3"});
  db.deliver();
  run({"edit", id_of("a 2"), "--no-headers"});
  run({"discard", id_of("b 1")});
  run({"release", id_of("c 1")});  // in vain: it is parked again
  auto doomed = db.relay({{"OUTBOX_CRASH_AT", to_string(phase)}}, "relay-with-crash-points");
  EXPECT_EQ(doomed.wait(), -SIGKILL) << doomed.output();
  put({"a 4", "b 3", "c 4"});
  const std::string log = db.deliver();
  EXPECT_EQ(log.find(" error "), std::string::npos) << log;
  EXPECT_EQ(db.value("select string_agg(convert_from(p.payload, 'UTF8') || ':' || p.error_class, ' "
                     "' order by p.seq) from outbox.parked p "
                     "where p.released_in is null"),
            "c 1:bad_headers c 2:bad_headers c 3:key_blocked c 4:key_blocked");
  const auto verdict = test::check_delivery(db, {topic});
  EXPECT_TRUE(verdict.at_least_once()) << verdict;
  if (mode == Mode::exactly_once) {
    EXPECT_EQ(verdict.repeated, 0) << verdict;
  }
  EXPECT_EQ(verdict.arrived, 6) << verdict;  // a 1 to 4, b 2, b 3
}

std::vector<int> phases_after_the_first_start() {
  std::vector<int> phases;
  for (int phase = 0; phase <= static_cast<int>(last_phase); ++phase) {
    if (phase != static_cast<int>(Phase::claimed)) phases.push_back(phase);
  }
  return phases;
}

INSTANTIATE_TEST_SUITE_P(AtEveryPhase, ReleaseCrashTest,
                         ::testing::Combine(::testing::Values(Mode::exactly_once,
                                                              Mode::at_least_once),
                                            ::testing::ValuesIn(phases_after_the_first_start())),
                         [](const auto& point) {
                           std::string name = std::get<0>(point.param) == Mode::exactly_once
                                                  ? "exactly_once_"
                                                  : "at_least_once_";
                           return name + to_string(static_cast<Phase>(std::get<1>(point.param)));
                         });

}  // namespace
}  // namespace relay
