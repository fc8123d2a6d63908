// SPDX-License-Identifier: Apache-2.0
// Many delivered messages are sent again while others are written. OUTBOX_REPLAY_MESSAGES says how
// many; a full run takes a million.
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>
#include <iostream>

#include "tests/support/checker.h"
#include "tests/support/from_environment.h"
#include "tests/support/load.h"

namespace relay {
namespace {

using test::TestOutbox;

constexpr std::int64_t keys = 1'000;
constexpr Millis within{600'000};

std::int64_t messages_wanted() { return test::number_from("OUTBOX_REPLAY_MESSAGES", 50'000); }

std::int64_t number_of(const test::KafkaRecord& r) {
  return std::stoll(r.payload->substr(r.payload->find(' ') + 1));
}

// Commits messages "kI N" with N rising over all keys in turn; every other one has a deduplication
// key of its own.
void write_all(TestOutbox& db, const std::string& topic, std::int64_t messages) {
  for (std::int64_t from = 1; from <= messages; from += 50'000) {
    db.sql("insert into outbox.message (topic, key, payload, dedup_key) select '" + topic +
           "', convert_to('k' || g % " + std::to_string(keys) +
           ", 'UTF8'), convert_to('k' || g % " + std::to_string(keys) +
           " || ' ' || g, 'UTF8'), case when g % 2 = 0 then 'd' || g end "
           "from generate_series(" +
           std::to_string(from) + ", " + std::to_string(std::min(from + 49'999, messages)) + ") g");
  }
}

// Waits until the newest message of the topic is delivered; all that were committed before it are
// then, too. TestOutbox::settled() looks at every single one.
void until_newest_delivered(TestOutbox& db, const std::string& topic) {
  test::eventually(
      "the newest message of " + topic + " is delivered",
      [&] {
        return db.value(
                   "select s.state from (select max(m.seq) as seq from outbox.message m where "
                   "m.topic = '" +
                   topic + "') n cross join lateral outbox.status_of_seq(n.seq) s") == "delivered";
      },
      within);
}

// Of each key, first copies and replayed ones must come without a gap and in order, and both with
// the same deduplication key.
void expect_each_once_more(TestOutbox& db, const std::string& topic, std::int64_t messages) {
  std::vector<std::string> dedup_keys(static_cast<std::size_t>(messages + 1));
  std::map<std::pair<bool, std::int64_t>, std::int64_t>
      newest;  // by whether it is replayed, and key
  std::int64_t firsts = 0, replays = 0, strangers = 0, misplaced = 0;
  const auto log = test::read_log(db.kafka().brokers(), {topic}, test::Isolation::read_committed,
                                  std::chrono::seconds(120));
  EXPECT_TRUE(log.unread.empty());
  for (const auto& r : log.records) {
    const bool replayed = r.header("outbox-replay").has_value();
    const auto n = number_of(r);
    const auto next =
        newest.try_emplace({replayed, n % keys}, n % keys == 0 ? 0 : n % keys - keys).first;
    misplaced += n != next->second + keys;
    next->second = n;
    ++(replayed ? replays : firsts);
    std::string& dedup_key = dedup_keys.at(static_cast<std::size_t>(n));
    if (replayed) strangers += dedup_key != r.header("dedup-key").value_or("");
    else dedup_key = r.header("dedup-key").value_or("");
  }
  EXPECT_EQ(firsts, messages);
  EXPECT_EQ(replays, messages);
  EXPECT_EQ(misplaced, 0);
  EXPECT_EQ(strangers, 0);
}

// What test::write() wrote: of each key all numbers from 1 on.
std::int64_t expect_all_in_order(TestOutbox& db, const std::string& topic) {
  std::map<std::string, std::int64_t> newest;
  std::int64_t arrived = 0, misplaced = 0;
  for (const auto& r :
       test::read_log(db.kafka().brokers(), {topic}, test::Isolation::read_committed).records) {
    misplaced += number_of(r) != newest[*r.key] + 1;
    newest[*r.key] = number_of(r);
    ++arrived;
  }
  EXPECT_EQ(misplaced, 0);
  EXPECT_EQ(std::to_string(arrived), db.value("select sum(c.n) from counter c"));
  return arrived;
}

TEST(ReplayLoad, EachMessageComesAgainOnceAndLiveTrafficIsNotDisturbed) {
  const auto messages = messages_wanted();
  TestOutbox db;
  const std::string topic = db.topic("t", 4);
  const std::string live = db.topic("live");
  test::create_counters(db);
  write_all(db, topic, messages);
  auto relay = db.relay();
  until_newest_delivered(db, topic);

  test::Load load([&] { test::write(db, live, 20); });
  test::until_delivered(db, 100);
  const auto began = Clock::now();
  const auto done = test::run_command({test::program_path("outbox-relay"), "replay", "--since",
                                       "2000-01-01", "--topic", topic, "--why", "a test"},
                                      db.environment, within);
  EXPECT_EQ(done.code, 0) << done.output;
  const auto enqueued = Clock::now();
  until_newest_delivered(db, topic);
  const auto delivered = Clock::now();
  test::until_delivered(db, 100);
  load.end();
  until_newest_delivered(db, live);
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  EXPECT_EQ(relay.output().find("to=stalled"), std::string::npos) << relay.output();

  expect_each_once_more(db, topic, messages);
  const auto beside = expect_all_in_order(db, live);
  const auto seconds = [&](Clock::time_point until) {
    return std::chrono::duration<double>(until - began).count();
  };
  std::cout << messages << " messages enqueued again in " << seconds(enqueued)
            << " s and delivered in " << seconds(delivered) << " s, "
            << static_cast<double>(messages) / seconds(delivered) << " a second, beside " << beside
            << " live ones\n";
}

}  // namespace
}  // namespace relay
