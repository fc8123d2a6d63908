// SPDX-License-Identifier: Apache-2.0
// Delivered messages can be sent again, with the keys by which consumers know them; scheduled ones
// can be listed and cancelled.
#include <gtest/gtest.h>
#include <signal.h>

#include <future>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/support/checker.h"

namespace relay {
namespace {

using nlohmann::json;
using test::TestOutbox;

class ReplayTest : public ::testing::Test {
 protected:
  ReplayTest()
      : topic(db.topic("t", 2)),
        as_operator({{"OUTBOX_RELAY_POSTGRES_DSN", db.login("outbox_operator")}}) {
    test::create_counters(db);
  }

  json command(std::vector<std::string> arguments, int code = 0) {
    arguments.push_back("--json");
    const auto done = db.command(arguments, as_operator);
    EXPECT_EQ(done.code, code) << done.output;
    return json::parse(done.output, nullptr, false);
  }
  // How often each deduplication key arrived, by the number of its replay, "" for none.
  std::map<std::string, std::map<std::string, int>> arrived(const std::string& in) {
    std::map<std::string, std::map<std::string, int>> out;
    for (const auto& r :
         test::read_log(db.kafka().brokers(), {in}, test::Isolation::read_committed).records) {
      ++out[r.header("outbox-replay").value_or("")][r.header("dedup-key").value_or("")];
    }
    return out;
  }

  TestOutbox db;
  std::string topic;
  test::Process::Environment as_operator;
};

TEST_F(ReplayTest, EachDeliveredMessageComesAgainOnceWithItsKeyAndInOrder) {
  db.environment["OUTBOX_RELAY_DELIVERY_BATCH_MESSAGES_MAX"] =
      "50";  // several batches, cut within differences
  const std::string other = db.topic("other");
  test::write(db, topic, 100);
  test::write(db, other, 5);
  db.sql("insert into outbox.message (topic, key, payload, headers) values ('" + topic +
         "', '\\x6b', '', '[]')");
  db.sql("insert into outbox.message (topic, payload, dedup_key, headers) values ('" + topic +
         "', 'x', 'mine', '{\"a\": \"1\"}')");
  db.deliver();
  const std::string id = db.value("select id from outbox.parked");
  ASSERT_EQ(db.command({"parked", "edit", id, "--no-headers", "--why", "a test"}).code, 0);
  db.deliver();

  const auto counted = command({"replay", "--since", "2000-01-01", "--topic", topic, "--dry-run"});
  EXPECT_EQ(counted["messages"], 302);
  const auto done =
      command({"replay", "--since", "2000-01-01", "--topic", topic, "--why", "a test"});
  EXPECT_EQ(done["messages"], 302) << done;
  db.deliver();
  auto copies = arrived(topic);
  EXPECT_EQ(copies.size(), 2u);
  EXPECT_EQ(copies[""], copies["1"]);
  EXPECT_EQ(copies["1"].size(), 302u);
  EXPECT_EQ(copies["1"]["mine"], 1);
  EXPECT_EQ(copies["1"][id], 1);
  EXPECT_EQ(arrived(other).size(), 1u);
  // In the order of before: the replayed payloads "KEY N" rise by key.
  std::map<std::string, long long> newest;
  for (const auto& r :
       test::read_log(db.kafka().brokers(), {topic}, test::Isolation::read_committed).records) {
    const auto blank = r.payload.value_or("").find(' ');
    if (!r.header("outbox-replay") || blank == std::string::npos) continue;
    const auto n = std::stoll(r.payload->substr(blank + 1));
    EXPECT_GT(n, newest[r.key.value_or("")]);
    newest[r.key.value_or("")] = n;
  }
  // A replay is not replayed.
  EXPECT_EQ(command({"replay", "--since", "2000-01-01", "--dry-run"})["messages"], 302 + 15);
  EXPECT_EQ(
      db.value(
          "select messages || ' ' || why || ' ' || (finished_at is not null) from outbox.replay"),
      "302 a test true");
}

TEST_F(ReplayTest, AnInterruptedReplayGoesOnBehindWhatWasDone) {
  db.environment["OUTBOX_RELAY_DELIVERY_BATCH_MESSAGES_MAX"] = "10";
  test::write(db, topic, 20);
  db.deliver();
  // As if it had been killed behind the second batch.
  db.sql(
      "insert into outbox.replay (since, until, asked_by, why, upto_batch, messages) select "
      "'2000-01-01', now(), 'x', 'y', 2, 20");
  EXPECT_EQ(command({"replay", "--resume", "1", "--dry-run"})["messages"], 40);
  const auto resumed = command({"replay", "--resume", "1"});
  EXPECT_EQ(resumed["messages"], 60) << resumed;
  EXPECT_EQ(resumed["since"], "2000-01-01T00:00:00Z");
  EXPECT_EQ(db.value("select count(*) from outbox.message where headers ? 'outbox-replay'"), "40");
  EXPECT_EQ(db.command({"replay", "--resume", "1"}, as_operator).code, 1);
}

TEST_F(ReplayTest, TwoWhoCarryOnTheSameReplayEnqueueNothingTwice) {
  db.environment["OUTBOX_RELAY_DELIVERY_BATCH_MESSAGES_MAX"] = "10";
  test::write(db, topic, 20);
  db.deliver();
  db.sql(
      "insert into outbox.replay (since, until, asked_by, why) select '2000-01-01', now(), 'x', "
      "'y'");
  pqxx::connection somebody(db.dsn());
  auto held = std::make_unique<pqxx::work>(somebody);
  held->exec("select from outbox.replay for update");
  const auto resume = [&] { return db.command({"replay", "--resume", "1"}, as_operator); };
  auto one = std::async(std::launch::async, resume);
  auto other = std::async(std::launch::async, resume);
  test::eventually("both wait", [&] {
    return db.value(
               "select count(*) from pg_stat_activity where datname = current_database() and "
               "wait_event_type = 'Lock'") == "2";
  });
  held->commit();
  const auto codes = std::multiset<int>{one.get().code, other.get().code};
  EXPECT_EQ(codes, (std::multiset<int>{0, 5}));
  EXPECT_EQ(db.value("select count(*) from outbox.message where headers ? 'outbox-replay'"), "60");
}

TEST_F(ReplayTest, OnlyAnOperatorCanSayThatAMessageIsAReplay) {
  pqxx::connection shop(db.login("outbox_writer"));
  pqxx::nontransaction tx(shop);
  EXPECT_THROW(
      tx.exec(
          "insert into outbox.message (topic, headers) values ('t', '{\"outbox-replay\": \"1\"}')"),
      pqxx::sql_error);
  EXPECT_THROW(tx.exec("select outbox.enqueue('t', 'k'::text, 'p'::text, '{\"outbox-replay\": "
                       "\"1\"}', null, now())"),
               pqxx::sql_error);
  tx.exec("insert into outbox.message (topic, headers) values ('t', '{\"other\": \"1\"}')");
}

TEST_F(ReplayTest, BadTimesAndAnEmptyRangeAreSaidSo) {
  const auto bad = db.command({"replay", "--since", "yesteryear", "--why", "x"}, as_operator);
  EXPECT_EQ(bad.code, 2) << bad.output;
  EXPECT_NE(bad.output.find("HINT: "), std::string::npos) << bad.output;
  const auto empty = db.command(
      {"replay", "--since", "2000-01-01", "--until", "2000-01-02", "--why", "x"}, as_operator);
  EXPECT_EQ(empty.code, 1) << empty.output;
  EXPECT_EQ(db.command({"replay", "--why", "x"}).code, 2);
}

TEST_F(ReplayTest, ItDoesNotDisturbLiveTraffic) {
  test::write(db, topic, 400);
  db.deliver();
  auto relay = db.relay();
  relay.says("to=streaming");
  const std::string until = db.value("select clock_timestamp()");
  auto live = std::async(std::launch::async, [&] { test::write(db, topic, 400); });
  EXPECT_EQ(
      command({"replay", "--since", "2000-01-01", "--until", until, "--why", "a test"})["messages"],
      1200);
  live.get();
  db.wait_until_idle();
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  const auto copies = arrived(topic);
  EXPECT_EQ(copies.at("").size(), 2400u);
  EXPECT_EQ(copies.at("1").size(), 1200u);
  for (const auto& [key, times] : copies.at("1")) EXPECT_EQ(times, 1) << key;
}

TEST_F(ReplayTest, ScheduledMessagesAreListedInTheOrderInWhichTheyFallDueAndCanBeCancelled) {
  const auto schedule = [&](const std::string& due) {
    return db.value("select outbox.enqueue('" + topic +
                    "', 'k'::text, 'x'::text, deliver_at => now() + interval '" + due + "')");
  };
  const std::string second = schedule("2 hours");
  const std::string first = schedule("1 hour");
  auto listed = command({"scheduled", "list"})["scheduled"];
  ASSERT_EQ(listed.size(), 2u);
  EXPECT_EQ(listed[0]["id"], first);
  EXPECT_EQ(command({"scheduled", "cancel", first})["cancelled"], 1);
  listed = command({"scheduled", "list", "--topic", topic})["scheduled"];
  ASSERT_EQ(listed.size(), 1u);
  EXPECT_EQ(listed[0]["id"], second);
  EXPECT_EQ(db.command({"scheduled", "cancel", first}, as_operator).code, 1);
  EXPECT_EQ(db.command({"scheduled", "cancel", "nonsense"}).code, 2);
}

}  // namespace
}  // namespace relay
