// SPDX-License-Identifier: Apache-2.0
// Reading the newest committed progress record back, from a topic in any condition; and a relay
// that cannot read it yet.
#include "relay/kafka/progress.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <stdexcept>

#include "tests/support/checker.h"
#include "tests/support/kafka_admin.h"

namespace relay {
namespace {

using test::TestOutbox;

constexpr Millis patience{10'000};

// A transactional producer that is not the relay.
class Stranger {
 public:
  Stranger(const std::string& brokers, const std::string& id) {
    kafka::Options options;
    options.brokers = brokers;
    auto conf = kafka::make_conf(options, {{"transactional.id", "stranger." + id},
                                           {"transaction.timeout.ms", "120000"},
                                           {"linger.ms", "0"}});
    client_ = std::move(*kafka::make_client(RD_KAFKA_PRODUCER, std::move(*conf)));
    check(rd_kafka_init_transactions(client_.get(), wait_ms), "init_transactions");
  }

  // Opens a transaction with these records in partition 0.
  void write(const std::string& topic, const std::string& key,
             const std::vector<std::string>& values) {
    check(rd_kafka_begin_transaction(client_.get()), "begin_transaction");
    for (const std::string& v : values) {
      const auto code =
          rd_kafka_producev(client_.get(), RD_KAFKA_V_TOPIC(topic.c_str()), RD_KAFKA_V_PARTITION(0),
                            RD_KAFKA_V_KEY(key.data(), key.size()),
                            RD_KAFKA_V_VALUE(const_cast<char*>(v.data()), v.size()),
                            RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
      if (code != RD_KAFKA_RESP_ERR_NO_ERROR) throw std::runtime_error(rd_kafka_err2str(code));
    }
    if (rd_kafka_flush(client_.get(), wait_ms) != RD_KAFKA_RESP_ERR_NO_ERROR)
      throw std::runtime_error("the stranger's records are not taken");
  }
  void commit() {
    check(rd_kafka_commit_transaction(client_.get(), wait_ms), "commit_transaction");
  }
  void abort() { check(rd_kafka_abort_transaction(client_.get(), wait_ms), "abort_transaction"); }

 private:
  static constexpr int wait_ms = 20'000;
  static void check(rd_kafka_error_t* error, const char* doing) {
    const kafka::KafkaError owned(error);
    if (owned)
      throw std::runtime_error(std::string(doing) + ": " + rd_kafka_error_string(owned.get()));
  }
  kafka::Client client_;
};

// A progress topic without a relay.
class ProgressRecordTest : public ::testing::Test {
 protected:
  explicit ProgressRecordTest(test::ScratchKafka& broker = test::shared_kafka())
      : kafka(broker),
        stranger(broker.brokers(),
                 ::testing::UnitTest::GetInstance()->current_test_info()->name()) {
    options.brokers = kafka.brokers();
    options.relay = "r";
    options.progress_topic = ::testing::UnitTest::GetInstance()->current_test_info()->name();
  }
  void create(const std::vector<std::string>& config = {"cleanup.policy=compact"}) {
    kafka.create_topic(options.progress_topic, 1, config);
  }
  static std::string record(int number) {
    return kafka::progress_json({{7, 1}, 1, number, Uuid::random(), std::nullopt});
  }
  void commit(std::vector<std::string> values) {
    stranger.write(options.progress_topic, options.relay, values);
    stranger.commit();
  }
  void abort(std::vector<std::string> values) {
    stranger.write(options.progress_topic, options.relay, values);
    stranger.abort();
  }
  // The number of the newest record; 0: there is none; -1: unknown.
  std::int64_t newest(bool to_the_end, Millis within = patience) {
    const auto found = kafka::read_progress(options, to_the_end, Deadline(within));
    if (!found) {
      EXPECT_EQ(found.error().fault, Fault::kafka) << found.error().text();
      return -1;
    }
    return *found ? (*found)->number : 0;
  }

  test::ScratchKafka& kafka;
  Stranger stranger;
  kafka::Options options;
};

TEST_F(ProgressRecordTest, AnEmptyTopicHasNone) {
  create();
  EXPECT_EQ(newest(true), 0);
  EXPECT_EQ(newest(false), 0);
  abort({record(1)});
  EXPECT_EQ(newest(true), 0);
}

TEST_F(ProgressRecordTest, TheNewestIsTheLastCommittedOne) {
  create();
  for (int n = 1; n <= 40; ++n) commit({record(n)});
  EXPECT_EQ(newest(true), 40);
  abort({record(41)});
  EXPECT_EQ(newest(true), 40);
  EXPECT_EQ(newest(false), 40);
  commit({record(42)});
  EXPECT_EQ(newest(true), 42);
}

// Further back than the first steps of the search reach.
TEST_F(ProgressRecordTest, ItIsFoundBehindManyAbortedRecordsAndControlRecords) {
  create();
  commit({record(1)});
  commit({record(2)});
  for (int n = 3; n < 30; ++n) abort({record(n)});
  EXPECT_EQ(newest(true), 2);
  abort(std::vector<std::string>(3'000, record(30)));
  EXPECT_EQ(newest(true), 2);
}

TEST_F(ProgressRecordTest, AnOpenTransactionMakesItUnknownUntilItEnds) {
  create();
  commit({record(1)});
  Stranger other(kafka.brokers(), options.progress_topic + ".other");
  other.write(options.progress_topic, options.relay, {record(9)});
  commit({record(2)});
  EXPECT_EQ(newest(true, Millis{1'500}), -1);
  EXPECT_EQ(newest(false), 1);  // all that is decided
  other.abort();
  EXPECT_EQ(newest(true), 2);
}

TEST_F(ProgressRecordTest, AMissingOrMisshapenTopicIsRefused) {
  auto found = kafka::read_progress(options, true, Deadline(patience));
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().fault, Fault::refused) << found.error().text();
  kafka.create_topic(options.progress_topic, 2);
  found = kafka::read_progress(options, true, Deadline(patience));
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().fault, Fault::refused) << found.error().text();
}

TEST_F(ProgressRecordTest, ARecordOfAnotherRelayIsRefused) {
  create();
  stranger.write(options.progress_topic, "another", {record(1)});
  stranger.commit();
  const auto found = kafka::read_progress(options, true, Deadline(patience));
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().fault, Fault::refused) << found.error().text();
}

// A broker whose cleaner does not wait.
test::ScratchKafka& cleaning_kafka() {
  static test::ScratchKafka broker({"log.cleaner.backoff.ms=100"});
  return broker;
}

class CompactedProgressTest : public ProgressRecordTest {
 protected:
  CompactedProgressTest() : ProgressRecordTest(cleaning_kafka()) {}
  std::size_t kept() {
    return test::read_log(kafka.brokers(), {options.progress_topic},
                          test::Isolation::read_uncommitted)
        .records.size();
  }
};

TEST_F(CompactedProgressTest, ItIsFoundAcrossGapsOfCompaction) {
  create({"cleanup.policy=compact", "segment.ms=100", "min.cleanable.dirty.ratio=0.001",
          "delete.retention.ms=1"});
  for (int n = 1; n <= 30; ++n) commit({record(n)});
  commit({record(31)});
  abort(std::vector<std::string>(500, record(32)));
  // The active segment is never compacted: each further record ends one.
  test::eventually("the topic is compacted", [&] {
    abort({record(33)});
    return kept() < 100;
  });
  EXPECT_EQ(newest(true), 31);
}

// The relay was killed after Kafka had committed its batch, and a stranger's open transaction hides
// the record that says so.
TEST(HiddenProgress, ARelayThatCannotReadItsRecordWaitsAndSendsNothingAgain) {
  TestOutbox db;
  const std::string topic = db.topic("t");
  test::create_counters(db);
  Stranger stranger(db.kafka().brokers(), db.name());
  {
    auto doomed = db.relay({{"OUTBOX_CRASH_AT", "confirmed"}}, "relay-with-crash-points");
    doomed.says("to=streaming");
    stranger.write("outbox-progress." + db.name(), db.name(), {"anything"});
    test::write(db, topic, 20);
    ASSERT_EQ(doomed.wait(), -SIGKILL) << doomed.output();
  }
  const auto sent = [&] {
    return test::read_log(db.kafka().brokers(), {topic}, test::Isolation::read_uncommitted)
        .records.size();
  };
  const auto once = sent();
  auto relay = db.relay();
  relay.says("to=stalled");
  EXPECT_NE(relay.output().find("the end was not reached in time"), std::string::npos)
      << relay.output();
  test::eventually("the relay asks again",
                   [&] { return db.value("select epoch > 2 from outbox.lease") == "t"; });
  EXPECT_EQ(sent(), once);
  EXPECT_EQ(db.value("select count(*) from outbox.batch where delivered_at is not null"), "0");
  stranger.abort();
  db.wait_until_idle();
  EXPECT_NE(relay.output().find("found=delivered"), std::string::npos) << relay.output();
  test::write(db, topic, 5);
  db.wait_until_idle();
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  const auto verdict = test::check_delivery(db, {topic});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
}

// It holds back consumers of the topic, but not the relay.
TEST(HiddenProgress, AnOpenTransactionInAMessagesTopicDelaysNoConfirmation) {
  TestOutbox db;
  const std::string topic = db.topic("t", 1);
  test::create_counters(db);
  Stranger stranger(db.kafka().brokers(), db.name());
  stranger.write(topic, "k", {"never committed"});
  {
    auto doomed = db.relay({{"OUTBOX_CRASH_AT", "confirmed"}}, "relay-with-crash-points");
    test::write(db, topic, 20);
    ASSERT_EQ(doomed.wait(), -SIGKILL) << doomed.output();
  }
  auto relay = db.relay();
  db.wait_until_idle();
  EXPECT_NE(relay.output().find("found=delivered"), std::string::npos) << relay.output();
  stranger.abort();
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  const auto verdict = test::check_delivery(db, {topic});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
}

// As after `init --kafka` on a busy cluster, and after the start of a broker.
TEST(MissingProgressTopic, ARelayWaitsForOneThatIsThereAMomentLater) {
  TestOutbox db;
  const std::string progress = "outbox-progress.later." + db.name();
  db.environment["OUTBOX_RELAY_KAFKA_PROGRESS_TOPIC"] = progress;
  auto relay = db.relay();
  relay.says("does not exist");
  db.kafka().create_topic(progress, 1, {"cleanup.policy=compact"});
  relay.says("to=streaming");
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
}

TEST(MissingProgressTopic, ARelayWaitsAMomentForTheRightToSeeIt) {
  TestOutbox db(test::shared_postgres(), &test::shared_kafka_with_rights());
  const std::string progress = "outbox-progress." + db.name();
  test::deny(db.kafka().brokers(), progress, test::Denied::describe);
  auto relay = db.relay();
  relay.says("not authorized for the progress topic");
  test::allow_again(db.kafka().brokers(), progress);
  relay.says("to=streaming");
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
}

}  // namespace
}  // namespace relay
