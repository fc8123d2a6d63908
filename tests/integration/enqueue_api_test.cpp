// SPDX-License-Identifier: Apache-2.0
// outbox::enqueue(): what is written, in which order, what is refused, and that it belongs to the
// caller's transaction.
#include "outbox/enqueue.h"

#include <gtest/gtest.h>

#include <pqxx/pqxx>

#include "tests/support/checker.h"

namespace enqueue_api_test {
namespace {

using outbox::Message;
using outbox::MessageId;
using relay::test::TestOutbox;

std::string all_bytes() {
  std::string bytes;
  for (int i = 0; i < 256; ++i) bytes += static_cast<char>(i);
  return bytes;
}

// As the application: a login with the rights of outbox_writer and no others.
class EnqueueApiTest : public ::testing::Test {
 protected:
  EnqueueApiTest() : connection(db.login("outbox_writer")), topic(db.topic("t", 1)) {}

  std::vector<outbox::MessageId> write(const std::vector<Message>& messages) {
    pqxx::work tx(connection);
    auto ids = outbox::enqueue(tx, messages);
    tx.commit();
    return ids;
  }
  std::vector<relay::test::KafkaRecord> delivered() {
    db.deliver();
    return relay::test::read_log(db.kafka().brokers(), {topic},
                                 relay::test::Isolation::read_committed)
        .records;
  }

  TestOutbox db;
  pqxx::connection connection;
  std::string topic;
};

TEST_F(EnqueueApiTest, WhatIsWrittenArrivesByteForByte) {
  const std::string awkward = "a\"b\\c,{}null \xC3\xA4\n";
  const auto ids = write({
      {.topic = topic,
       .key = all_bytes(),
       .payload = all_bytes(),
       .headers = {{awkward, awkward}, {"empty", ""}},
       .dedup_key = awkward},
      {.topic = topic, .key = "", .payload = ""},
      {.topic = topic},
  });
  const auto records = delivered();
  ASSERT_EQ(records.size(), 3U);
  EXPECT_EQ(records[0].key, all_bytes());
  EXPECT_EQ(records[0].payload, all_bytes());
  EXPECT_EQ(records[0].header("dedup-key"), awkward);
  EXPECT_EQ(records[0].header(awkward), awkward);
  EXPECT_EQ(records[0].header("empty"), "");
  EXPECT_EQ(records[1].key, "");
  EXPECT_EQ(records[1].payload, "");
  EXPECT_EQ(records[1].header("dedup-key"), ids[1].text());
  EXPECT_FALSE(records[2].key);
  EXPECT_FALSE(records[2].payload);
  EXPECT_EQ(records[2].header("dedup-key"), ids[2].text());
}

TEST_F(EnqueueApiTest, ABatchOfManyStatementsKeepsItsOrderAndItsIds) {
  std::vector<Message> messages;
  for (int i = 0; i < 3'500; ++i)
    messages.push_back({.topic = topic, .key = "k", .payload = std::to_string(i)});
  messages[1].payload = std::string(5 << 20, 'x');  // a statement of its own
  messages[1].topic = "not." + topic;  // and parked, so that Kafka's limits do not matter
  const auto ids = write(messages);
  ASSERT_EQ(ids.size(), messages.size());
  const auto records = delivered();
  ASSERT_EQ(records.size(), messages.size() - 1);
  for (std::size_t i = 0; i < records.size(); ++i) {
    const std::size_t n = i == 0 ? 0 : i + 1;
    ASSERT_EQ(records[i].payload, messages[n].payload);
    ASSERT_EQ(records[i].header("dedup-key"), ids[n].text());
  }
}

TEST_F(EnqueueApiTest, BelongsToTheTransactionOfTheCaller) {
  {
    pqxx::work tx(connection);
    outbox::enqueue(tx, Message{.topic = topic, .payload = "rolled back"});
    tx.abort();
  }
  pqxx::work tx(connection);
  {
    pqxx::subtransaction inner(tx);
    outbox::enqueue(inner, Message{.topic = topic, .payload = "rolled back to the savepoint"});
    inner.abort();
  }
  const outbox::MessageId id = outbox::enqueue(tx, Message{.topic = topic, .payload = "committed"});
  EXPECT_EQ(db.value("select count(*) from outbox.status_of('" + id.text() + "')"), "0");
  tx.commit();
  EXPECT_EQ(db.value("select state from outbox.status_of('" + id.text() + "')"), "pending");
  const auto records = delivered();
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0].payload, "committed");
}

TEST_F(EnqueueApiTest, ScheduledMessagesAreWrittenWithTheirTimeAndTheOthersAtOnce) {
  using namespace std::chrono;
  const auto tomorrow = time_point_cast<microseconds>(system_clock::now()) + 24h;
  const auto ids =
      write({{.topic = topic, .payload = "2", .deliver_at = tomorrow + 1us},
             {.topic = topic, .payload = "now"},
             {.topic = topic, .payload = "1", .dedup_key = "d", .deliver_at = tomorrow},
             {.topic = topic, .payload = "due", .deliver_at = system_clock::now() - 1h}});
  ASSERT_EQ(ids.size(), 4U);
  const auto micros = [&](const outbox::MessageId& id) {
    return db.value(
        "select (extract(epoch from deliver_at) * 1000000)::bigint from outbox.scheduled where id "
        "= '" +
        id.text() + "'");
  };
  EXPECT_EQ(micros(ids[0]), std::to_string((tomorrow + 1us).time_since_epoch().count()));
  EXPECT_EQ(micros(ids[2]), std::to_string(tomorrow.time_since_epoch().count()));
  EXPECT_EQ(db.value("select count(*) from outbox.message where id = '" + ids[1].text() + "'"),
            "1");
  auto relay = db.relay();
  relay::test::eventually("the due one is moved", [&] {
    return db.value("select count(*) from outbox.message where id = '" + ids[3].text() + "'") ==
           "1";
  });
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
}

TEST_F(EnqueueApiTest, WhatCouldNeverBeSentIsRefusedBeforeAnythingIsWritten) {
  const std::string zero("a\0b", 3);
  const std::vector<std::pair<Message, std::string>> wrong = {
      {{.topic = ""}, "topic"},
      {{.topic = "a/b"}, "topic"},
      {{.topic = ".."}, "topic"},
      {{.topic = std::string(250, 'a')}, "topic"},
      {{.topic = topic, .headers = {{"dedup-key", "x"}}}, "reserved"},
      {{.topic = topic, .headers = {{"outbox-replay", "x"}}}, "reserved"},
      {{.topic = topic, .headers = {{"effect-x", "x"}}}, "reserved"},
      {{.topic = topic, .headers = {{"a", zero}}}, "zero byte"},
      {{.topic = topic, .headers = {{zero, "a"}}}, "zero byte"},
      {{.topic = topic, .headers = {{"a", "\xFF"}}}, "UTF-8"},
      {{.topic = topic, .dedup_key = zero}, "zero byte"},
      {{.topic = topic, .dedup_key = ""}, "dedup_key is empty"},
      {{.topic = topic, .dedup_key = std::string(1025, 'k')}, "1025 bytes"},
      {{.topic = topic, .key = std::string((1 << 20) + 1, 'k')}, "key has 1048577 bytes"},
      {{.topic = topic, .headers = {{"a", std::string(1 << 20, 'x')}}},
       "headers have 1048584 bytes"},
  };
  pqxx::work tx(connection);
  for (const auto& [message, why] : wrong) {
    const std::vector<Message> messages = {{.topic = topic, .payload = "good"}, message};
    try {
      outbox::enqueue(tx, messages);
      ADD_FAILURE() << why << " was taken";
    } catch (const outbox::InvalidMessage& e) {
      EXPECT_EQ(e.index(), 1U);
      EXPECT_NE(std::string(e.what()).find(why), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find("HINT:"), std::string::npos) << e.what();
    }
  }
  outbox::enqueue(
      tx, Message{.topic = topic, .headers = {{"a", "b"}}, .dedup_key = std::string(1024, 'k')});
  EXPECT_TRUE(outbox::enqueue(tx, std::vector<Message>{}).empty());
  tx.commit();  // it was not spoilt
  EXPECT_EQ(db.value("select count(*) from outbox.message"), "1");
}

// A nontransaction would make the message true at once, whatever becomes of the rest.
template <class Transaction>
concept can_enqueue = requires(Transaction& tx, const Message& message) {
  outbox::enqueue(tx, message);
};
static_assert(can_enqueue<pqxx::work> && can_enqueue<pqxx::subtransaction>);
static_assert(!can_enqueue<pqxx::nontransaction>);

}  // namespace
}  // namespace enqueue_api_test
