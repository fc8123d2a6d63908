// SPDX-License-Identifier: Apache-2.0
// How far a consumer has read each partition: the inbox expires nothing that one of them may still
// deliver, and the lag of the group becomes 0.
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <list>

#include "outbox/inbox.h"
#include "tests/support/consuming.h"
#include "tests/support/test_inbox.h"
#include "tests/support/transaction.h"

namespace relay {
namespace {

using test::eventually;
using test::RunningConsumer;
using namespace std::chrono_literals;

class ConsumerPositionTest : public ::testing::Test {
 protected:
  ConsumerPositionTest() : dsn(db.login("inbox_consumer")) {
    static int count = 0;
    topic = "position" + std::to_string(getpid()) + "-" + std::to_string(++count);
    test::create_effect_table(db);
  }
  outbox::ConsumerOptions options() const {
    return {.brokers = kafka().brokers(), .group = "group-" + topic, .topics = {topic}, .dsn = dsn};
  }
  static test::ScratchKafka& kafka() { return test::shared_kafka(); }
  // Of the only partition.
  std::string reported(const std::string& what) {
    return db.value("select " + what + " from inbox.position where topic = '" + topic + "'");
  }

  test::TestInbox db;
  const std::string dsn;
  std::string topic;
};

// A group that reads a topic for the first time reads one partition to the present before it begins
// another.
TEST_F(ConsumerPositionTest, TheHistoryOfAPartitionIsNotExpiredBecauseOthersWereReadSooner) {
  constexpr int records = 200;
  kafka().create_topic(topic, 2);
  const auto now = std::chrono::system_clock::now();
  std::vector<test::NewRecord> history;
  for (int i = 0; i < records; ++i) {
    const auto sent = now - 3h * (records - 1 - i) / records;
    const auto ms = std::chrono::duration_cast<Millis>(sent.time_since_epoch()).count();
    for (const int partition : {0, 1}) {
      history.push_back({.dedup_key = std::to_string(partition) + "-" + std::to_string(i),
                         .payload = "x",
                         .headers = {{"sent-at", std::to_string(ms)}},
                         .partition = partition});
    }
  }
  test::produce(kafka().brokers(), topic, history);
  auto o = options();
  o.keep = 1h;
  o.span = 10s;
  o.batch_messages_max = 1;
  std::array<int, 2> read{};
  std::atomic<int> pruned = 0;
  RunningConsumer consumer(o, [&](pqxx::dbtransaction& tx, const outbox::Record& record) {
    test::write_effect(tx, record);
    // The first partition has been read, but for its newest message.
    if (++read.at(static_cast<std::size_t>(record.partition)) == records && pruned++ == 0) {
      pqxx::connection other(dsn);
      pqxx::work prune(other);
      outbox::inbox::prune(prune, "group-" + topic);
      prune.commit();
    }
  });
  eventually("all are read", [&] {
    const auto stats = consumer.stats();
    return stats.new_messages + stats.expired == 2 * records;
  });
  EXPECT_GE(pruned, 1);
  EXPECT_EQ(consumer.stats().expired, 0);
  EXPECT_EQ(db.value("select count(*) from inbox.position where topic = '" + topic + "'"), "2");
}

// A marker of a transaction takes an offset behind the last record.
TEST_F(ConsumerPositionTest, TheLagOfTheGroupBecomesZeroBehindTransactions) {
  kafka().create_topic(topic, 1);
  test::TransactionalSender sender(kafka().brokers(), topic);
  RunningConsumer consumer(options(), &test::write_effect);
  for (const bool commits : {true, false, true, false}) {
    sender.begin();
    sender.send(std::to_string(commits), topic, "k");
    commits ? sender.commit() : sender.abort();
    eventually("nothing is left to read",
               [&] { return test::group_lag(kafka().brokers(), "group-" + topic, topic) == 0; });
  }
  EXPECT_EQ(consumer.stats().new_messages, 1);
}

// What an open transaction hides may be old when it is shown.
TEST_F(ConsumerPositionTest, APartitionBehindAnOpenTransactionWasNotReadToItsEnd) {
  kafka().create_topic(topic, 1);
  test::TransactionalSender sender(kafka().brokers(), topic);
  const auto lag = [&] { return test::group_lag(kafka().brokers(), "group-" + topic, topic); };
  sender.begin();
  sender.send("shown", topic, "k");
  sender.commit();
  sender.begin();
  sender.send("hidden", topic, "k");
  RunningConsumer consumer(options(), &test::write_effect);
  eventually("it is at the end that it sees", [&] { return lag() == 1; });
  // Another member joins, and each reports where it is.
  std::list<RunningConsumer> others;
  const auto reported_end = [&] {
    const std::string before = db.value("select clock_timestamp()");
    others.emplace_back(options(), &test::write_effect);
    eventually("the position is reported",
               [&] { return reported("reported_at > '" + before + "'") == "t"; });
    return reported("read_to > '" + before + "'");
  };
  EXPECT_EQ(reported_end(), "f");
  sender.commit();
  eventually("nothing is left to read", [&] { return lag() == 0; });
  EXPECT_EQ(reported_end(), "t");
}

}  // namespace
}  // namespace relay
