// SPDX-License-Identifier: Apache-2.0
// examples/inbox_python: a consumer that knows the inbox by its SQL alone.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include "tests/support/consuming.h"
#include "tests/support/process.h"
#include "tests/support/test_inbox.h"

namespace relay {
namespace {

TEST(InboxPythonTest, EachMessageIsCountedOnceAlsoAfterAKill) {
  test::TestInbox db;
  test::ScratchKafka& kafka = test::shared_kafka();
  const std::string topic = "python" + std::to_string(getpid());
  kafka.create_topic(topic, 2);
  const std::string dsn = db.login("inbox_consumer");
  db.sql("create table received (id bigint generated always as identity, key bytea)");
  db.sql("grant insert on received to inbox_consumer");
  test::produce_numbers(kafka.brokers(), topic, 0, 1'000);
  test::produce_numbers(kafka.brokers(), topic, 700, 300);
  test::produce(kafka.brokers(), topic, {{.payload = "without a key"}});

  const auto start = [&](const std::string& group) {
    return test::Process(
        {"/usr/bin/python3", OUTBOX_SOURCE_DIR "/examples/inbox_python/consumer.py",
         kafka.brokers(), group, dsn, topic},
        {});
  };
  const auto received = [&] { return db.value("select count(*) from received"); };
  {
    auto consumer = start("first");
    test::eventually("all are counted: " + consumer.output(), [&] { return received() == "1000"; });
    test::eventually("the last is parked", [&] {
      return db.value("select error_class from inbox.parked") == "malformed";
    });
  }  // killed: the offsets that Kafka got may be less than what was handled

  test::produce_numbers(kafka.brokers(), topic, 1'000, 10);
  auto next = start("first");
  test::eventually(
      "the new ones are counted: " + next.output(), [&] { return received() == "1010"; },
      Millis{90'000});
  test::eventually("its partitions are reported: " + next.output(),
                   [&] { return db.value("select count(*) from inbox.position") == "2"; });
  next.signal(SIGTERM);
  EXPECT_EQ(next.wait(), 0) << next.output();
  EXPECT_EQ(db.value("select count(*) from inbox.parked"), "1");
}

}  // namespace
}  // namespace relay
