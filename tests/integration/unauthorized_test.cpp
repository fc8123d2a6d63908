// SPDX-License-Identifier: Apache-2.0
// A topic that the relay may see, or not even see, and not write to: its messages are parked, and
// the others flow.
#include <gtest/gtest.h>
#include <signal.h>

#include <set>

#include "tests/support/checker.h"
#include "tests/support/kafka_admin.h"

namespace relay {
namespace {

using test::TestOutbox;

class UnauthorizedTest : public ::testing::TestWithParam<std::tuple<const char*, test::Denied>> {};

TEST_P(UnauthorizedTest, MessagesOfTheTopicAreParkedAndTheOthersFlow) {
  TestOutbox db(test::shared_postgres(), &test::shared_kafka_with_rights());
  const bool exactly_once = std::get<0>(GetParam()) == std::string("exactly-once");
  db.environment["OUTBOX_RELAY_RELAY_MODE"] = std::get<0>(GetParam());
  db.environment["OUTBOX_RELAY_LEASE_TTL"] = "5s";
  const std::string open = db.topic("open");
  const std::string closed = db.topic("closed");
  const std::string other = db.topic("other");
  test::deny(db.kafka().brokers(), closed, std::get<1>(GetParam()));
  for (const std::string& topic : {open, closed, other, closed, open}) {
    db.sql("insert into outbox.message (topic, key, payload) values ('" + topic + "', 'k', 'x')");
  }
  auto relay = db.relay();
  relay.says("to=streaming");
  db.wait_until_idle();
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  EXPECT_EQ(db.value("select string_agg(p.topic || ' ' || p.error_class, ',' order by p.seq) from "
                     "outbox.parked p"),
            closed + " topic_unauthorized," + closed + " topic_unauthorized")
      << relay.output();
  std::set<std::string> arrived;
  const auto log =
      test::read_log(db.kafka().brokers(), {open, other}, test::Isolation::read_committed);
  for (const auto& record : log.records) arrived.insert(*record.header("dedup-key"));
  EXPECT_EQ(arrived.size(), 3U);
  if (exactly_once) {
    EXPECT_EQ(log.records.size(), 3U);
  }
}

// In a transaction the cluster names none of them, and the search must come to its end.
TEST(UnauthorizedTopics, OneIsFoundAmongMany) {
  TestOutbox db(test::shared_postgres(), &test::shared_kafka_with_rights());
  constexpr int many = 150;
  std::string values;
  std::string closed;
  for (int i = 0; i < many; ++i) {
    closed = db.topic("t" + std::to_string(i), 1);
    values += std::string(i == 0 ? "" : ",") + "('" + closed + "', 'k', 'x')";
  }
  test::deny(db.kafka().brokers(), closed, test::Denied::write);
  db.sql("insert into outbox.message (topic, key, payload) values " + values);
  db.deliver();
  EXPECT_EQ(
      db.value("select string_agg(p.topic || ' ' || p.error_class, ',') from outbox.parked p"),
      closed + " topic_unauthorized");
}

INSTANTIATE_TEST_SUITE_P(
    Denied, UnauthorizedTest,
    ::testing::Combine(::testing::Values("exactly-once", "at-least-once"),
                       ::testing::Values(test::Denied::describe, test::Denied::write)),
    [](const auto& p) {
      return std::string(std::get<0>(p.param) == std::string("exactly-once") ? "exactly_once"
                                                                             : "at_least_once") +
             (std::get<1>(p.param) == test::Denied::write ? "_write" : "_describe");
    });

}  // namespace
}  // namespace relay
