// SPDX-License-Identifier: Apache-2.0
// Kafka 4 forgets to end a transaction in partitions that have no leader at that moment:
// examples/lost_markers shows what docs/lost-markers.md says, and a relay whose batch is affected
// goes on without a loss. Kafka 3.9 does not forget.
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>
#include <string_view>

#include "tests/support/checker.h"
#include "tests/support/kafka_admin.h"

namespace relay {
namespace {

using test::ScratchKafka;
using test::TestOutbox;

constexpr int victim = 2;

bool forgets() {
  const char* const version = std::getenv("KAFKA_VERSION");
  return version == nullptr || !std::string_view(version).starts_with("3.");
}

class LostMarkers : public ::testing::Test {
 protected:
  // What the example prints and its exit code, with the transaction and the next one ending so.
  test::Finished show(const std::string& end, const std::string& then) const {
    const std::string scratch = std::string(OUTBOX_SOURCE_DIR) + "/scripts/scratch ";
    const std::string place = " " + kafka.folder().string() + " ";
    const std::string broker = std::to_string(victim);
    return test::run_command(
        {"/usr/bin/python3", OUTBOX_SOURCE_DIR "/examples/lost_markers/lost_markers.py",
         "--bootstrap", kafka.brokers(), "--broker", broker, "--stop",
         scratch + "stop-kafka" + place + "KILL " + broker, "--start",
         scratch + "start-kafka" + place + broker, "--end", end, "--then", then},
        {}, Millis{180'000});
  }

  ScratchKafka kafka{{"brokers=3"}};
};

void expect_says(const test::Finished& done, const std::string& line) {
  EXPECT_NE(("\n" + done.output).find("\n" + line + "\n"), std::string::npos)
      << "no line '" << line << "' in\n"
      << done.output;
}

TEST_F(LostMarkers, TheNextTransactionDecidesAboutTheOneThatHadEnded) {
  struct Case {
    const char *end, *then, *says;
  };
  for (const auto& [end, then, says] :
       {Case{"commit", "commit", "LATE  n0 n1 n2 n3: visible only since n+1 was committed"},
        Case{"commit", "abort", "LOST  n0 n1 n2 n3, though commit said OK"},
        Case{"abort", "commit", "GHOST n0 n1 n2 n3: visible, though they were aborted"}}) {
    const auto done = show(end, then);
    expect_says(done, std::string("n     ") + end + " says OK");
    EXPECT_EQ(done.code, forgets() ? 1 : 0) << done.output;
    expect_says(done, forgets() ? says : "INTACT");
  }
}

// A relay whose only batch has the fate of the example's transaction: Kafka has said that it is
// committed.
class LostMarkersOfARelay : public LostMarkers {
 protected:
  LostMarkersOfARelay() : db(test::shared_postgres(), &kafka), topic(db.name() + ".alone") {
    test::create_topic_on(kafka.brokers(), topic, victim);
  }

  void enqueue(const std::string& payload) {
    db.sql("insert into outbox.message (topic, key, payload) values ('" + topic + "', 'k', '" +
           payload + "')");
  }
  std::string arrived() {
    std::string out;
    for (const auto& r :
         test::read_log(kafka.brokers(), {topic}, test::Isolation::read_committed).records)
      out += r.payload.value_or("") + " ";
    return out;
  }
  test::Process relay_that_lost_markers() {
    enqueue("first");
    auto relay = db.relay({{"OUTBOX_STOP_AT", "reported"}, {"OUTBOX_RELAY_LEASE_TTL", "30s"}},
                          "relay-with-crash-points");
    relay.stops();
    kafka.kill(victim);
    test::eventually("the partition has no leader",
                     [&] { return !test::has_leader(kafka.brokers(), topic); });
    relay.signal(SIGCONT);
    test::eventually("Kafka says that the batch is committed", [&] {
      return db.value("select count(*) from outbox.batch where delivered_at is not null") == "1";
    });
    kafka.start(victim);
    test::eventually("the partition has its leader again",
                     [&] { return test::has_leader(kafka.brokers(), topic); });
    return relay;
  }

  TestOutbox db;
  const std::string topic;
};

TEST_F(LostMarkersOfARelay, ItsNextBatchShowsWhatWasHidden) {
  auto relay = relay_that_lost_markers();
  if (forgets()) {
    EXPECT_EQ(arrived(), "");
  }
  enqueue("second");
  db.wait_until_idle();
  EXPECT_EQ(arrived(), "first second ");
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
}

// As docs/runbook.md says.
TEST_F(LostMarkersOfARelay,
       WhereTheProgressTopicIsConcernedItWaitsUntilSomebodyEndsTheTransaction) {
  if (!forgets()) GTEST_SKIP() << "this Kafka does not forget";
  const std::string progress = "outbox-progress.of-the-victim." + db.name();
  test::create_topic_on(kafka.brokers(), progress, victim);
  kafka.alter_topic(progress, {"cleanup.policy=compact"});
  db.environment["OUTBOX_RELAY_KAFKA_PROGRESS_TOPIC"] = progress;
  auto first = relay_that_lost_markers();
  first.signal(SIGTERM);
  EXPECT_EQ(first.wait(), 0) << first.output();

  auto waiting = db.relay();
  waiting.says("reading the progress topic: the end was not reached in time", Millis{60'000});
  waiting.signal(SIGTERM);
  EXPECT_EQ(waiting.wait(), 0) << waiting.output();
  // The progress topic begins with the claim of the relay name and the marker of its transaction.
  for (const auto& [name, first_offset] : {std::pair{progress, "2"}, {topic, "0"}}) {
    const auto ended =
        test::run_command({"/bin/bash", "-c",
                           "cd \"$0\" && . scripts/lib.sh && java -cp \"$KAFKA_HOME/*\" "
                           "org.apache.kafka.tools.TransactionsCommand --bootstrap-server \"$1\" "
                           "abort --topic \"$2\" --partition 0 "
                           "--start-offset \"$3\"",
                           OUTBOX_SOURCE_DIR, kafka.brokers(), name, first_offset},
                          {});
    EXPECT_EQ(ended.code, 0) << ended.output;
  }
  auto relay = db.relay();
  relay.says("progress_lost", Millis{60'000});
  relay.says("to=streaming");
  EXPECT_EQ(arrived(), "");
  const auto replayed = db.command({"replay", "--since", "2026-01-01T00:00:00Z"});
  EXPECT_EQ(replayed.code, 0) << replayed.output;
  db.wait_until_idle();
  EXPECT_EQ(arrived(), "first ");
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
}

}  // namespace
}  // namespace relay
