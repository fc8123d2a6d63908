// SPDX-License-Identifier: Apache-2.0
// A request of batch n is delayed on a connection that has broken, its repetition succeeds, and the
// late copy reaches the broker amid batch n+1. With the incarnation rule the broker refuses it: n+1
// has another epoch. Without the rule it acts on n+1.
//
// What a late request can be is what the relay sends: it commits, or abandons its producer. An
// abort of its own has no transaction after it on which it could act: what is abandoned is aborted
// by the next incarnation's init_transactions, under a new epoch.
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <set>

#include "tests/support/checker.h"
#include "tests/support/kafka_proxy.h"

namespace relay {
namespace {

using test::CheckerReport;
using test::KafkaApi;
using test::KafkaProxy;
using test::KafkaRequest;
using test::Process;
using test::TestOutbox;
using Then = test::KafkaProxy::Then;

constexpr const char* intact = "";
constexpr const char* rule_off = "incarnation_rule_off";
constexpr int many =
    19'000;  // takes longer to hand over than librdkafka waits before it registers a partition

// A broker that refers its clients to the proxy, if they have come by it.
struct Network {
  explicit Network(const std::vector<std::string>& properties = {})
      : kafka([&] {
          auto all = properties;
          all.push_back("advertised=" + proxy.address());
          return all;
        }()) {
    proxy.forward_to(kafka.proxied());
  }
  KafkaProxy proxy;
  test::ScratchKafka kafka;
};

Network& shared_network() {
  static Network network;
  return network;
}

// One outbox whose relay reaches Kafka through the proxy, and whose batches are written one at a
// time, each over two topics.
class ServersUnderTest {
 public:
  explicit ServersUnderTest(Network& net = shared_network())
      : network(net),
        db(test::shared_postgres(), &net.kafka),
        first(db.topic("first", 1)),
        second(db.topic("second", 1)) {
    db.environment["OUTBOX_RELAY_KAFKA_BROKERS"] = net.proxy.address();
    db.environment["OUTBOX_RELAY_LEASE_TTL"] =
        "60s";  // the relay is stopped for a while, and must not lose it
  }

  Process start(const std::string& defect, Process::Environment more = {}) {
    if (defect.empty()) return db.relay(more, "relay-with-crash-points");
    more["OUTBOX_MUTANT"] = defect;
    return db.relay(more, "outbox-relay-mutants");
  }
  // Commits one batch: `messages` to the first topic, then some to the second.
  void write_batch(int messages = 10) {
    const std::string base = std::to_string(++batch * 100'000);
    db.sql(
        "insert into outbox.message (topic, key, payload) select t, convert_to('k', 'UTF8'), "
        "convert_to('k ' || " +
        base + " + i, 'UTF8') from (select '" + first + "' t, i from generate_series(1, " +
        std::to_string(messages) + ") i union all select '" + second +
        "', i from generate_series(1, 10) i order by 1, 2) m");
  }
  // Records of the newest batch in the topic that this reader sees now.
  std::int64_t newest_in(const std::string& topic, test::Isolation isolation) {
    std::int64_t found = 0;
    for (const auto& r :
         test::read_log(network.kafka.brokers(), {topic}, isolation, Millis{500}).records) {
      found += std::stoi(r.payload->substr(2)) > batch * 100'000;
    }
    return found;
  }
  std::int64_t visible() {
    return newest_in(first, test::Isolation::read_committed) +
           newest_in(second, test::Isolation::read_committed);
  }
  // So that a relay that was killed need not be waited out.
  void expire_lease() { db.sql("update outbox.lease set expires_at = clock_timestamp()"); }
  CheckerReport finish(Process& relay) {
    db.wait_until_idle();
    relay.signal(SIGTERM);
    EXPECT_EQ(relay.wait(), 0) << relay.output();
    return test::check_delivery(db, {first, second});
  }

  Network& network;
  TestOutbox db;
  const std::string first;
  const std::string second;
  int batch = 0;
};

int times(const std::string& text, const std::string& what) {
  int n = 0;
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
  return n;
}

// Where batch n+1 is when the late request comes.
enum class Amid {
  reported,          // all of it is written, its commit not yet sent
  second_topic,      // the messages of one topic are written, the other's under way; the progress
                     // record may be either
  second_partition,  // the first partition's messages are written, the others' partitions not yet
                     // registered
};

struct Late {
  KafkaApi api;
  Amid amid;
  bool killed = false;         // the relay, right after it
  bool made_an_abort = false;  // the late EndTxn, see ALateAbort…
};

struct Outcome {
  int answer = 0;            // to the late request
  std::int64_t visible = 0;  // of n+1, before its commit
  CheckerReport verdict;
  std::string log;
};

// Holds what must not reach the broker yet when the late request comes; nullptr: the relay stops
// itself.
std::shared_ptr<KafkaProxy::Held> halt(ServersUnderTest& stage, Amid amid) {
  KafkaProxy& proxy = stage.network.proxy;
  if (amid == Amid::second_topic) {
    return proxy.hold(KafkaApi::produce, Then::stall,
                      [&stage, n = 0](const KafkaRequest& r) mutable {
                        n += r.contains(stage.first) || r.contains(stage.second);
                        return n == 2;
                      });
  }
  if (amid == Amid::second_partition) {
    return proxy.hold(KafkaApi::add_partitions_to_txn, Then::stall,
                      [&stage](const KafkaRequest& r) { return r.contains(stage.second); });
  }
  return nullptr;
}

Outcome deliver(const Late& late, const std::string& defect) {
  ServersUnderTest stage;
  auto relay =
      stage.start(defect, {{"OUTBOX_STOP_AT", late.amid == Amid::reported ? "reported:3" : ""}});
  stage.write_batch();  // so that every connection is there
  stage.db.wait_until_idle();
  const auto held = stage.network.proxy.hold(late.api, Then::cut_client);
  stage.write_batch();  // n
  held->caught();
  stage.db.wait_until_idle();

  const auto halted = halt(stage, late.amid);
  stage.write_batch(late.amid == Amid::second_partition ? many : 10);  // n+1
  if (halted) {
    halted->caught();
  } else {
    relay.stops();
  }
  if (late.amid == Amid::second_partition) {
    test::eventually("the first partition is written", [&] {
      return stage.newest_in(stage.first, test::Isolation::read_uncommitted) == many;
    });
  }
  Outcome out;
  KafkaRequest request = held->request();
  if (late.made_an_abort) request.bytes.back() = '\0';
  out.answer = held->release(request);
  const bool commits = late.api == KafkaApi::end_txn && !late.made_an_abort;
  if (out.answer == 0 && commits)
    test::eventually("the late commit shows", [&] { return stage.visible() > 0; });
  out.visible = stage.visible();

  if (late.killed) {
    relay.signal(SIGKILL);
    relay.wait();
    if (halted) halted->drop();
    stage.expire_lease();
    auto next = stage.start(defect);
    out.verdict = stage.finish(next);
  } else {
    if (halted) halted->release();
    relay.signal(SIGCONT);
    out.verdict = stage.finish(relay);
  }
  out.log = relay.output();
  return out;
}

void expect_refused(const Outcome& out) {
  EXPECT_EQ(out.answer, test::invalid_producer_epoch);
  EXPECT_EQ(out.visible, 0);
  EXPECT_TRUE(out.verdict.exactly_once()) << out.verdict;
  EXPECT_EQ(times(out.log, "transaction_disturbed"), 1) << out.log;
  EXPECT_EQ(times(out.log, "incarnation_renewed"), 1) << out.log;
  EXPECT_EQ(times(out.log, " error "), 0) << out.log;
}

TEST(LateRequest, ALateCommitTearsTheNextBatchWithoutTheRule) {
  const Late late{KafkaApi::end_txn, Amid::second_topic};
  expect_refused(deliver(late, intact));
  const auto broken = deliver(late, rule_off);
  EXPECT_EQ(broken.answer, 0);
  EXPECT_EQ(broken.visible, 10);
  // The other half is refused. Did the progress record belong to the half that was committed, it
  // counts as delivered; else all is sent again.
  EXPECT_EQ(broken.verdict.repeated + broken.verdict.lost, 10) << broken.verdict;
}

TEST(LateRequest, ALateCommitBeforeADeathRepeatsMessagesWithoutTheRule) {
  const Late late{KafkaApi::end_txn, Amid::second_partition, true};
  expect_refused(deliver(late, intact));
  const auto broken = deliver(late, rule_off);
  EXPECT_EQ(broken.answer, 0);
  EXPECT_EQ(broken.visible, many);
  EXPECT_EQ(broken.verdict.repeated, many) << broken.verdict;
}

// The progress record is part of the transaction: a late commit that finds all of n+1 written
// commits the record with it. Nothing comes twice even if the relay dies there, unlike with a
// consumer group's offset, which is offered last. It is visible early.
TEST(LateRequest, ALateCommitOfAWholeBatchTakesTheProgressRecordWithIt) {
  for (const bool killed : {false, true}) {
    const Late late{KafkaApi::end_txn, Amid::reported, killed};
    expect_refused(deliver(late, intact));
    const auto broken = deliver(late, rule_off);
    EXPECT_EQ(broken.answer, 0);
    EXPECT_EQ(broken.visible, 20);
    EXPECT_TRUE(broken.verdict.exactly_once()) << broken.verdict;
  }
}

// This relay aborts only on a producer that it destroys next. A client that went on would lose
// messages for which commit said OK, so that what keeps the late request out must be the epoch and
// not its kind: here a held commit is turned into an abort on its way.
TEST(LateRequest, ALateAbortLosesMessagesWithoutTheRule) {
  const Late late{KafkaApi::end_txn, Amid::second_partition, false, true};
  expect_refused(deliver(late, intact));
  const auto broken = deliver(late, rule_off);
  EXPECT_EQ(broken.answer, 0);
  EXPECT_EQ(broken.verdict.lost, many) << broken.verdict;
}

// A relay that abandons a transaction may abort it, or leave that to the coordinator. In neither
// case another transaction of its epoch follows, on which that abort could act.
TEST(LateRequest, NothingIsCommittedUnderAnEpochThatWasAborted) {
  ServersUnderTest stage;
  const std::string strict = stage.db.topic("strict", 1, {"cleanup.policy=compact"});
  std::atomic<int> commits = 0;
  std::atomic<int> late_commits = 0;
  std::set<std::string> aborted;
  const auto look = [&](const KafkaRequest& r) {  // called by one thread at a time; the request
                                                  // ends in producer id, epoch, commit or not
    const std::string producer = r.bytes.substr(r.bytes.size() - 11, 10);
    if (r.bytes.back() == '\0') aborted.insert(producer);
    else ++(aborted.contains(producer) ? late_commits : commits);
    return false;
  };
  const auto never = stage.network.proxy.hold(KafkaApi::end_txn, Then::stall, look);
  auto relay = stage.start(intact);
  stage.db.sql("insert into outbox.message (topic, payload) values ('" + strict +
               "', 'refused for want of a key')");
  stage.write_batch();
  const auto verdict = stage.finish(relay);
  stage.network.proxy.forget(never);
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
  EXPECT_EQ(verdict.parked, 1) << verdict;
  EXPECT_GT(commits, 0);
  EXPECT_EQ(late_commits, 0);
}

TEST(LateRequest, ALateProduceOfACommittedBatchIsRefused) {
  expect_refused(deliver({KafkaApi::produce, Amid::reported}, intact));
}

TEST(LateRequest, ALateRegistrationOfAPartitionIsRefused) {
  const Late late{KafkaApi::add_partitions_to_txn, Amid::reported};
  expect_refused(deliver(late, intact));
  EXPECT_EQ(deliver(late, rule_off).answer,
            0);  // harmless there: n+1 has registered the same partitions
}

// The relay dies while its Produce is on the way; the next one sends the batch again, and the old
// bytes come just before the new.
TEST(LateRequest, ALateProduceOfADeadRelayIsRefused) {
  ServersUnderTest stage;
  auto dead = stage.start(intact);
  stage.write_batch();
  stage.db.wait_until_idle();
  const auto old = stage.network.proxy.hold(KafkaApi::produce, Then::stall);
  stage.write_batch();
  old->caught();
  dead.signal(SIGKILL);
  dead.wait();
  stage.expire_lease();
  const auto again = stage.network.proxy.hold(KafkaApi::produce, Then::stall);
  auto relay = stage.start(intact);
  again->caught();
  EXPECT_EQ(old->release(), test::invalid_producer_epoch);
  EXPECT_EQ(again->release(), 0);
  const auto verdict = stage.finish(relay);
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
}

// No epoch can keep out a late InitProducerId: it raises the epoch and so fences us once. The lease
// says that we still hold it.
TEST(LateRequest, ALateFencingOfOurOwnIsNotTakenForALostLease) {
  ServersUnderTest stage;
  const auto held = stage.network.proxy.hold(KafkaApi::init_producer_id, Then::cut_client);
  auto relay = stage.start(intact, {{"OUTBOX_STOP_AT", "reported:2"}});
  held->caught();
  stage.write_batch();
  stage.db.wait_until_idle();
  stage.write_batch();
  relay.stops();
  const int answer = held->release();  // the epoch is raised in either case
  EXPECT_TRUE(answer == 0 || answer == test::concurrent_transactions) << answer;
  relay.signal(SIGCONT);
  const auto verdict = stage.finish(relay);
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
  const std::string log = relay.output();
  EXPECT_EQ(times(log, "fenced epoch="), 1) << log;
  EXPECT_EQ(times(log, "to=streaming"), 2) << log;
  EXPECT_EQ(stage.db.value("select count(*) from outbox.batch"), "2");
}

TEST(LateRequest, ConnectionsThatTheBrokerClosesWhenIdleCostNoIncarnation) {
  Network network({"connections.max.idle.ms=4000"});  // longer than a request takes
  ServersUnderTest stage(network);
  auto relay = stage.start(intact);
  stage.write_batch();
  stage.db.wait_until_idle();
  for (int pause = 0; pause < 2; ++pause) {
    const int closed = network.proxy.closed_by_broker();
    test::eventually("the broker closes idle connections",
                     [&] { return network.proxy.closed_by_broker() >= closed + 2; });
    stage.write_batch();
    stage.db.wait_until_idle();
  }
  const auto verdict = stage.finish(relay);
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
  const std::string log = relay.output();
  EXPECT_EQ(times(log, "transaction_disturbed"), 0) << log;
  EXPECT_EQ(times(log, "incarnation_renewed"), 0) << log;
  EXPECT_EQ(times(log, "to=stalled"), 0) << log;
}

// At-least-once.

TEST(LateRequest, AtLeastOnceAnAnswerThatIsLostIsAskedForAgainAndRepeatsNothing) {
  ServersUnderTest stage;
  stage.db.environment["OUTBOX_RELAY_RELAY_MODE"] = "at-least-once";
  auto relay = stage.start(intact);
  stage.write_batch();
  stage.db.wait_until_idle();
  const auto lost = stage.network.proxy.hold(KafkaApi::produce, Then::lose_answer);
  stage.write_batch();
  lost->caught();
  const auto verdict = stage.finish(relay);
  EXPECT_TRUE(verdict.exactly_once())
      << verdict;  // the sequence numbers of the idempotent producer show the broker
}

TEST(LateRequest, AtLeastOnceADeathBeforeTheAnswerRepeatsOnlyTheBatchInDoubt) {
  ServersUnderTest stage;
  stage.db.environment["OUTBOX_RELAY_RELAY_MODE"] = "at-least-once";
  auto dead = stage.start(intact);
  stage.write_batch();
  stage.db.wait_until_idle();
  std::string records;  // the end of the request whose answer is lost: its repetition has the same
  const auto lost =
      stage.network.proxy.hold(KafkaApi::produce, Then::lose_answer, [&](const KafkaRequest& r) {
        records = r.bytes.substr(r.bytes.size() - 40);
        return true;
      });
  const auto repeated = stage.network.proxy.hold(
      KafkaApi::produce, Then::stall,
      [&](const KafkaRequest& r) { return !records.empty() && r.bytes.ends_with(records); });
  stage.write_batch();
  lost->caught();
  repeated->caught();
  dead.signal(SIGKILL);
  dead.wait();
  repeated->drop();
  stage.expire_lease();
  auto relay = stage.start(intact);
  const auto verdict = stage.finish(relay);
  EXPECT_TRUE(verdict.at_least_once()) << verdict;
  EXPECT_GE(verdict.repeated, 1) << verdict;
  EXPECT_LE(verdict.repeated, 20) << verdict;
}

}  // namespace
}  // namespace relay
