// SPDX-License-Identifier: Apache-2.0
// outbox::Consumer: each message has its effect once, in the order of its key, whatever goes away
// in between.
#include "outbox/consumer.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <iostream>
#include <pqxx/pqxx>
#include <random>

#include "common/pqxx_statement.h"
#include "tests/support/consuming.h"
#include "tests/support/dying_consumers.h"
#include "tests/support/from_environment.h"
#include "tests/support/process.h"
#include "tests/support/test_inbox.h"
#include "tests/support/test_outbox.h"
#include "tests/support/usage.h"

namespace relay {
namespace {

using namespace std::chrono_literals;
using test::eventually;
using test::NewRecord;
using test::RunningConsumer;
using test::write_effect;

std::int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// A service with a database and a topic of its own. The consumer's login has the rights of
// inbox_consumer and those on `effect`.
class ConsumerTest : public ::testing::Test {
 protected:
  explicit ConsumerTest(test::ScratchPostgres& postgres = test::shared_postgres())
      : db(postgres), dsn(db.login("inbox_consumer")) {
    static int count = 0;
    topic = "c" + std::to_string(getpid()) + "-" + std::to_string(++count);
    test::create_effect_table(db);
  }

  void create_topic(int partitions, const std::vector<std::string>& config = {}) {
    kafka().create_topic(topic, partitions, config);
  }
  static test::ScratchKafka& kafka() { return test::shared_kafka(); }
  void produce(const std::vector<NewRecord>& records) {
    test::produce(kafka().brokers(), topic, records);
  }
  void produce_numbers(int first, int count, int keys = 20) {
    test::produce_numbers(kafka().brokers(), topic, first, count, keys);
  }

  outbox::ConsumerOptions options() const {
    outbox::ConsumerOptions o{
        .brokers = kafka().brokers(), .group = "group-" + topic, .topics = {topic}, .dsn = dsn};
    o.properties = {{"session.timeout.ms", "6000"}, {"heartbeat.interval.ms", "500"}};
    return o;
  }
  std::string effects() {
    return db.value("select count(*) || ' of ' || count(distinct dedup_key) from effect");
  }
  void until_effects(int count) {
    eventually(
        "there are " + std::to_string(count) + " effects, but " + effects(),
        [&] {
          return std::stoi(db.value("select count(distinct dedup_key) from effect")) >= count;
        },
        Millis{60'000});
  }
  // Each effect once, and those of a key in the order of their numbers.
  void expect_once_and_in_order(int count) {
    EXPECT_EQ(effects(), std::to_string(count) + " of " + std::to_string(count));
    EXPECT_EQ(db.value("select count(*) from (select payload::bigint < lag(payload::bigint) over "
                       "(partition by key order by id) as wrong "
                       "from effect) e where wrong"),
              "0");
  }
  std::string parked(const std::string& what) {
    return db.value("select string_agg(" + what + ", ' ' order by id) from inbox.parked");
  }

  test::TestInbox db;
  const std::string dsn;
  std::string topic;
};

TEST_F(ConsumerTest, EachMessageHasItsEffectOnceAlsoWhenKafkaHasItTwice) {
  create_topic(3);
  produce_numbers(0, 1'000);
  produce_numbers(500, 500);
  RunningConsumer consumer(options(), &write_effect);
  eventually("all were met",
             [&] { return consumer.stats().new_messages + consumer.stats().duplicates == 1'500; });
  EXPECT_EQ(consumer.stats().new_messages, 1'000);
  EXPECT_EQ(consumer.stats().state, outbox::ConsumerStats::State::consuming);
  consumer.stop();
  EXPECT_EQ(consumer.stats().state, outbox::ConsumerStats::State::stopped);
  expect_once_and_in_order(1'000);

  // What was committed to Kafka is not even looked at again.
  produce_numbers(1'000, 10);
  RunningConsumer next(options(), &write_effect);
  until_effects(1'010);
  EXPECT_EQ(next.stats().duplicates, 0);
}

TEST_F(ConsumerTest, ARecordArrivesWithAllThatBelongsToIt) {
  create_topic(1, {"message.timestamp.type=LogAppendTime"});
  produce({{.dedup_key = "d",
            .key = std::string("k\0\xFF", 3),
            .payload = "p",
            .headers = {{"a", "b"}, {"sent-at", "1700000000123"}}}});
  std::promise<std::string> seen;
  RunningConsumer consumer(options(), [&](pqxx::dbtransaction&, const outbox::Record& r) {
    seen.set_value(std::string(r.topic) + " " + std::to_string(r.offset) + " " +
                   std::string(*r.key) + " " + std::string(*r.payload) + " " +
                   std::string(r.dedup_key) + " " + std::string(*r.header("a")) + " " +
                   std::to_string(r.sent_at.time_since_epoch().count()));
  });
  auto text = seen.get_future();
  ASSERT_EQ(text.wait_for(20s), std::future_status::ready)
      << consumer.events() << parked("error_text");
  EXPECT_EQ(text.get(), topic + " 0 " + std::string("k\0\xFF", 3) + " p d b 1700000000123");
}

TEST_F(ConsumerTest, APoisonedMessageIsParkedAndTheOthersGoOnInTheOrderOfTheirKeys) {
  create_topic(1);
  produce_numbers(0, 300, 3);
  std::atomic<bool> cured = false;
  RunningConsumer consumer(options(), [&](pqxx::dbtransaction& tx, const outbox::Record& record) {
    write_effect(tx, record);
    if (record.dedup_key == "31" && !cured)
      throw outbox::Poison("31 is too much");  // of key k1: 34, 37, … come later
  });
  eventually("all are settled",
             [&] { return consumer.stats().new_messages + consumer.stats().parked == 300; });
  EXPECT_EQ(effects(), "210 of 210");
  EXPECT_EQ(
      db.value("select error_class || ' ' || error_text from inbox.parked where dedup_key = '31'"),
      "handler 31 is too much");
  EXPECT_EQ(
      db.value(
          "select count(*) from inbox.parked where error_class = 'key_blocked' and key = 'k1'"),
      "89");

  // It goes again where nothing was changed, and its key waits.
  db.sql(
      "select inbox.decide(array[(select id from inbox.parked where dedup_key = '31')], 'release', "
      "'me')");
  eventually("it is parked again", [&] { return consumer.stats().parked == 91; });
  cured = true;
  db.sql(
      "select inbox.decide(array[(select id from inbox.parked where dedup_key = '31')], 'release', "
      "'me')");
  until_effects(300);
  expect_once_and_in_order(300);
  produce_numbers(300, 3, 3);
  until_effects(303);
  expect_once_and_in_order(303);
}

TEST_F(ConsumerTest, WithoutOrderAPoisonedMessageMakesNoOtherWait) {
  create_topic(1);
  produce_numbers(0, 100, 2);
  auto o = options();
  o.order = outbox::ConsumerOptions::Order::none;
  RunningConsumer consumer(o, [](pqxx::dbtransaction& tx, std::span<const outbox::Record> records) {
    for (const outbox::Record& record : records) {
      write_effect(tx, record);
      if (record.dedup_key == "10" || record.dedup_key == "77") tx.exec("select 1 / 0");
    }
  });
  until_effects(98);
  EXPECT_EQ(parked("dedup_key"), "10 77");
  EXPECT_EQ(effects(), "98 of 98");
}

TEST_F(ConsumerTest, WhatCannotBeAcceptedIsParkedOnceWithItsReason) {
  create_topic(1);
  std::string key_that_is_no_text = "\xFF";
  produce({{.dedup_key = "1", .payload = "1"},
           {.dedup_key = {}, .key = "a", .payload = "without"},
           {.dedup_key = key_that_is_no_text, .payload = "no text", .headers = {{"x", "\xFE"}}},
           {.dedup_key = std::string(1025, 'k')},
           {.dedup_key = "2", .payload = "2", .headers = {{"sent-at", "yesterday"}}},
           {.dedup_key = "3", .key = "a", .payload = "3"},
           {.dedup_key = "4", .key = "b", .payload = "4"}});
  for (int round = 0; round < 2; ++round) {
    auto o = options();
    o.group += std::to_string(round);  // the second reads all of it again
    o.consumer = "same";
    RunningConsumer consumer(o, &write_effect);
    const int expected = round == 0 ? 7 : 3;
    eventually("all were met", [&] {
      return consumer.stats().new_messages + consumer.stats().duplicates +
                 consumer.stats().parked >=
             expected;
    });
    consumer.stop();
  }
  EXPECT_EQ(parked("error_class"), "malformed malformed malformed malformed key_blocked");
  EXPECT_EQ(effects(), "2 of 2");
  EXPECT_EQ(db.value("select headers->1 from inbox.parked where payload = 'no text'"),
            "[\"x\", \"fe\"]");
}

TEST_F(ConsumerTest, WhatIsOlderThanTheMemoryIsParkedAndItsKeyWaits) {
  create_topic(1);
  auto o = options();
  o.keep = 1h;
  const std::int64_t day = 86'400'000;
  produce({{.dedup_key = "young", .payload = "1"}});
  {
    RunningConsumer consumer(o, &write_effect);
    until_effects(1);
    consumer.stop();
  }
  db.sql("select inbox.report('" + o.group + "', '{" + topic + "}', '{0}', array[now()])");
  db.sql("select inbox.prune('" + o.group + "')");
  produce({{.dedup_key = "old", .key = "k", .payload = "2", .timestamp_ms = now_ms() - day},
           {.dedup_key = "after", .key = "k", .payload = "3"}});
  RunningConsumer consumer(o, &write_effect);
  eventually("it is parked", [&] { return consumer.stats().parked == 2; });
  EXPECT_EQ(parked("error_class"), "expired key_blocked");
  db.sql("select inbox.decide(array[(select min(id) from inbox.parked)], 'discard', 'me')");
  until_effects(2);
  EXPECT_EQ(db.value("select string_agg(dedup_key, ' ' order by id) from effect"), "young after");
}

TEST_F(ConsumerTest, ConsumersJoinAndLeaveUnderLoadAndNothingIsLostOrRepeated) {
  create_topic(6);
  const int count = 20'000;
  auto producing = std::async(std::launch::async, [&] {
    for (int n = 0; n < count; n += 500) {
      produce_numbers(n, 500);
      eventually(
          "the consumers keep up",
          [&] { return std::stoi(db.value("select count(*) from effect")) > n - 2'000; },
          Millis{60'000});
    }
  });
  auto o = options();
  o.batch_messages_max = 50;
  RunningConsumer steady(o, &write_effect);
  int joined = 0;
  while (producing.wait_for(0s) != std::future_status::ready) {
    RunningConsumer passing(o, &write_effect);
    const auto wanted = passing.stats().new_messages + 200;
    eventually("the one that joined works", [&] {
      return passing.stats().new_messages >= wanted ||
             producing.wait_for(0s) == std::future_status::ready;
    });
    passing.stop();
    ++joined;
  }
  producing.get();
  until_effects(count);
  expect_once_and_in_order(count);
  EXPECT_GE(joined, 2);
}

TEST_F(ConsumerTest, AHandlerThatIsSlowerThanThePollIntervalKeepsItsPartitions) {
  create_topic(2);
  produce_numbers(0, 4);
  auto o = options();
  o.batch_messages_max = 1;
  o.properties.emplace_back("max.poll.interval.ms", "6000");
  std::promise<void> let_go;
  auto gone_on = let_go.get_future().share();
  std::atomic<int> calls = 0;
  RunningConsumer consumer(o, [&](pqxx::dbtransaction& tx, const outbox::Record& record) {
    if (++calls == 1) gone_on.wait();
    write_effect(tx, record);
  });
  eventually("the handler has been at it for longer than the interval",
             [&] { return consumer.stats().busy_for > 8s; });
  let_go.set_value();
  until_effects(4);
  EXPECT_EQ(calls, 4);
  EXPECT_EQ(consumer.event_count("partitions_assigned"), 1) << consumer.events();
  EXPECT_EQ(consumer.event_count("partitions_lost"), 0) << consumer.events();
  expect_once_and_in_order(4);
}

TEST_F(ConsumerTest, AConflictIsRepeatedAndParksNothing) {
  create_topic(1);
  produce_numbers(0, 10);
  std::atomic<int> conflicts = 0;
  RunningConsumer consumer(options(), [&](pqxx::dbtransaction& tx, const outbox::Record& record) {
    write_effect(tx, record);
    if (record.dedup_key == "5" && ++conflicts <= 3)
      tx.exec("do $$ begin raise exception 'again' using errcode = '40P01'; end $$");
  });
  until_effects(10);
  EXPECT_EQ(consumer.stats().retries, 3);
  EXPECT_EQ(consumer.stats().parked, 0);
  EXPECT_EQ(consumer.event_count("state_changed", "to", "stalled"), 0);
  expect_once_and_in_order(10);
}

TEST_F(ConsumerTest, AMissingTableStallsAndParksNothing) {
  create_topic(1);
  produce_numbers(0, 10);
  RunningConsumer consumer(options(), [](pqxx::dbtransaction& tx, const outbox::Record& record) {
    tx.exec("select from later");
    write_effect(tx, record);
  });
  eventually("it is stalled",
             [&] { return consumer.stats().state == outbox::ConsumerStats::State::stalled; });
  eventually("it has tried several times", [&] { return consumer.stats().retries >= 4; });
  db.sql("create table later ()");
  db.sql("grant select on later to inbox_consumer");
  until_effects(10);
  EXPECT_EQ(consumer.stats().parked, 0);
  EXPECT_EQ(consumer.event_count("state_changed", "to", "stalled"), 1) << consumer.events();
}

// Of the time limits of the login, one ends a statement and the other a connection.
TEST_F(ConsumerTest, AMessageThatTakesTooLongIsParkedAndTheOthersGoOn) {
  create_topic(1);
  produce_numbers(0, 40, 40);
  auto o = options();
  o.dsn += " options='-c statement_timeout=300ms'";
  RunningConsumer consumer(o, [](pqxx::dbtransaction& tx, const outbox::Record& record) {
    if (record.dedup_key == "17") tx.exec("select pg_sleep(3)");
    write_effect(tx, record);
  });
  until_effects(39);
  eventually("it is parked", [&] { return consumer.stats().parked == 1; });
  EXPECT_EQ(db.value("select dedup_key || ' ' || error_class from inbox.parked"), "17 handler");
  EXPECT_NE(db.value("select error_text from inbox.parked").find("timeout"), std::string::npos);
  expect_once_and_in_order(39);
}

TEST_F(ConsumerTest, ABatchThatTakesTooLongIsHandledInPieces) {
  create_topic(1);
  produce_numbers(0, 40, 40);
  auto o = options();
  o.dsn += " options='-c idle_in_transaction_session_timeout=1s'";
  std::promise<void> never;
  RunningConsumer consumer(o, [&](pqxx::dbtransaction& tx, std::span<const outbox::Record> all) {
    never.get_future().wait_for(all.size() * 60ms);
    never = {};
    for (const outbox::Record& record : all) write_effect(tx, record);
  });
  until_effects(40);
  EXPECT_EQ(consumer.stats().parked, 0) << consumer.events();
  expect_once_and_in_order(40);
}

// PostgreSQL answers COMMIT in a transaction that has failed with a rollback, and with success.
TEST_F(ConsumerTest, AMessageWhoseHandlerCaughtAnErrorOfTheDatabaseIsParked) {
  create_topic(1);
  produce_numbers(0, 20, 20);
  RunningConsumer consumer(options(), [](pqxx::dbtransaction& tx, const outbox::Record& record) {
    write_effect(tx, record);
    if (record.dedup_key != "3" && record.dedup_key != "19") return;
    try {
      outbox::common::run(tx, "select 1 / $1::integer", std::string("0"));
    } catch (const pqxx::sql_error&) {
    }
  });
  eventually("all are settled",
             [&] { return consumer.stats().new_messages + consumer.stats().parked == 20; });
  EXPECT_EQ(effects(), "18 of 18");
  EXPECT_EQ(parked("dedup_key"), "3 19");
  EXPECT_EQ(db.value("select count(*) from inbox.parked where error_text like 'the handler caught "
                     "a database error%'"),
            "2");
}

TEST_F(ConsumerTest, WhatIsTooDeepForTheServerIsParked) {
  create_topic(1);
  produce_numbers(0, 10, 10);
  RunningConsumer consumer(options(), [](pqxx::dbtransaction& tx, const outbox::Record& record) {
    if (record.dedup_key == "3")
      outbox::common::run(tx, "select $1::jsonb", std::string(100'000, '['));
    write_effect(tx, record);
  });
  eventually("all are settled",
             [&] { return consumer.stats().new_messages + consumer.stats().parked == 10; });
  EXPECT_EQ(effects(), "9 of 9");
  EXPECT_EQ(parked("dedup_key"), "3");
}

TEST_F(ConsumerTest, AReleasedMessageThatCannotBeHandledHoldsUpNoOther) {
  create_topic(1);
  produce_numbers(0, 4, 4);
  std::atomic<bool> released = false;
  RunningConsumer consumer(options(), [&](pqxx::dbtransaction& tx, const outbox::Record& record) {
    if (!released) throw outbox::Poison("not yet");
    if (record.dedup_key == "0" || record.dedup_key == "1") tx.exec("select from later");
    write_effect(tx, record);
  });
  eventually("all are parked", [&] { return consumer.stats().parked == 4; });
  released = true;
  // And one that somebody else has written, with headers that are none.
  db.sql("select inbox.park('group-" + topic +
         "', 'x', 0, 1, now(), null, '9', '{\"a\": \"b\"}', 'odd', 'handler', 'x')");
  db.sql("select inbox.decide(array(select id from inbox.parked), 'release', 'me')");
  until_effects(2);
  EXPECT_EQ(db.value("select string_agg(dedup_key, ' ' order by dedup_key) from effect"), "2 3");
  eventually("the odd one is parked again", [&] {
    return db.value(
               "select count(*) from inbox.parked where dedup_key = 'odd' and resolution is null "
               "and error_text <> 'x'") == "1";
  });
  EXPECT_GE(consumer.event_count("release_put_off"), 1) << consumer.events();
  EXPECT_EQ(db.value("select string_agg(dedup_key, ' ' order by dedup_key) from inbox.parked where "
                     "resolution = 'release' and handled_at is null"),
            "0 1");
}

TEST_F(ConsumerTest, AReasonInLettersThatTheDatabaseLacksIsKeptInThoseThatItHas) {
  test::ScratchPostgres server;
  for (const char* statement :
       {"alter database template1 is_template false", "drop database template1",
        "create database template1 template template0 encoding 'LATIN1' lc_collate 'C' lc_ctype "
        "'C' is_template true"}) {
    pqxx::connection owner(server.dsn());
    pqxx::nontransaction(owner).exec(statement);
  }
  test::TestInbox latin(server);
  test::create_effect_table(latin);
  create_topic(1);
  produce_numbers(0, 5, 5);
  auto o = options();
  o.dsn = latin.login("inbox_consumer");
  RunningConsumer consumer(o, [](pqxx::dbtransaction& tx, const outbox::Record& record) {
    if (record.dedup_key == "3") throw outbox::Poison("\xE6\xBC\xA2 is no letter");
    write_effect(tx, record);
  });
  eventually("all are settled",
             [&] { return consumer.stats().new_messages + consumer.stats().parked == 5; });
  EXPECT_EQ(latin.value("select error_text from inbox.parked"), "??? is no letter");
  latin.sql("select inbox.decide(array(select id from inbox.parked), 'release', 'me')");
  eventually("it is parked again", [&] { return consumer.stats().parked == 2; });
}

// Consumers die, one after the other, and then one lives.
test::EffectReport survive(std::int64_t deaths, const test::Process::Environment& environment) {
  test::DyingConsumers consumers(test::shared_postgres(), test::shared_kafka(),
                                 test::DyingConsumers::Company::none);
  std::mt19937_64 random(test::seed_of_this_run());
  for (std::int64_t n = 0; n < deaths; ++n) consumers.one_dies(random(), environment);
  return consumers.check_delivery();
}

TEST(ConsumerCrashTest, AConsumerThatIsKilledAroundItsCommitsLosesAndRepeatsNothing) {
  const auto found = survive(test::number_from("OUTBOX_ROUNDS", 10), {});
  EXPECT_TRUE(found.good()) << found;
}

// The checker sees what it is to see.
TEST(ConsumerCrashTest, AnEffectOutsideTheTransactionIsFoundToBeRepeated) {
  const auto found = survive(3, {{"OUTBOX_AUTOCOMMIT", "1"}});
  EXPECT_GT(found.repeated + found.journal, 0) << found;
}

// A lag that would take several times as much: tests/bench/consume.cpp measures a million.
TEST_F(ConsumerTest, MemoryIsBoundedWhateverTheLag) {
  create_topic(6);
  test::produce_numbers(kafka().brokers(), topic, 0, 300'000, 1'000, 200);
  test::Process process(
      {test::program_path("consumer-that-dies"), kafka().brokers(), topic, dsn, "0"}, {});
  eventually(
      "it works",
      [&] { return std::stoi(db.value("select count(*) from inbox.accepted")) >= 10'000; },
      Millis{120'000});
  EXPECT_LE(test::peak_memory_kb(process.pid()), 64 * 1024);
}

// A server of its own, which is stopped.
class ConsumerOutageTest : public ConsumerTest {
 protected:
  static test::ScratchPostgres& own() {
    static test::ScratchPostgres server;
    return server;
  }
  ConsumerOutageTest() : ConsumerTest(own()) {}
};

TEST_F(ConsumerOutageTest, PostgresqlStopsAndStartsUnderLoadAndNothingIsLostOrRepeated) {
  create_topic(3);
  const int count = 30'000;
  produce_numbers(0, count);
  auto o = options();
  o.batch_messages_max = 20;
  RunningConsumer consumer(o, &write_effect);
  for (int outage = 1; outage <= 4; ++outage) {
    const auto seen = consumer.stats().new_messages;
    eventually("it works", [&] {
      return consumer.stats().new_messages >= std::min<std::int64_t>(seen + 500, count);
    });
    own().stop(outage % 2 == 0 ? test::ScratchPostgres::Stop::fast
                               : test::ScratchPostgres::Stop::immediate);
    eventually("it is stalled",
               [&] { return consumer.stats().state == outbox::ConsumerStats::State::stalled; });
    const auto retries = consumer.stats().retries;
    eventually("it has tried again", [&] { return consumer.stats().retries >= retries + 4; });
    own().start();
    eventually("it goes on",
               [&] { return consumer.stats().state == outbox::ConsumerStats::State::consuming; });
  }
  until_effects(count);
  expect_once_and_in_order(count);
  EXPECT_EQ(consumer.stats().parked, 0);
  EXPECT_LT(consumer.stats().retries, 200);
  EXPECT_EQ(consumer.event_count("state_changed", "to", "stalled"), 4) << consumer.events();
  EXPECT_EQ(consumer.event_count("partitions_assigned"), 1) << consumer.events();
}

TEST_F(ConsumerTest, SetUpErrorsAreToldWithTheRemedy) {
  const auto refused = [&](const outbox::ConsumerOptions& o, bool runs) -> std::string {
    try {
      outbox::Consumer consumer(o, outbox::Consumer::Handler(&write_effect));
      if (runs) consumer.run({});
      return "was taken";
    } catch (const outbox::ConsumerSetupError& e) {
      return e.what();
    }
  };
  const auto with = [&](const std::string& name, const std::string& value) {
    auto o = options();
    o.properties.emplace_back(name, value);
    return o;
  };
  EXPECT_NE(refused({}, false).find(
                "brokers is empty; group is empty; topics is empty; dsn is empty. HINT:"),
            std::string::npos);
  for (const char* name : {"isolation.level", "enable.auto.commit", "enable.auto.offset.store",
                           "auto.commit.interval.ms", "group.id", "partition.assignment.strategy",
                           "queued.min.messages", "rebalance_cb"}) {
    EXPECT_NE(refused(with(name, "x"), false).find("belongs to the consumer"), std::string::npos)
        << name;
  }
  const std::string secret = refused(with("socket.timeout.ms", "hunter2"), false);
  EXPECT_NE(secret.find("rejects the value of \"socket.timeout.ms\". HINT:"), std::string::npos)
      << secret;
  EXPECT_EQ(secret.find("hunter2"), std::string::npos);
  auto without_schema = options();
  without_schema.dsn = db.postgres().dsn();
  EXPECT_NE(
      refused(without_schema, true).find("HINT: create it with `outbox-relay init --schema inbox`"),
      std::string::npos);
  db.sql("update inbox.schema_version set number = 0");
  EXPECT_NE(refused(options(), true).find("has version 0, this program needs 1\nHINT: upgrade it"),
            std::string::npos);
}

}  // namespace
}  // namespace relay
