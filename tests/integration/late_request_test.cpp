// SPDX-License-Identifier: Apache-2.0
// A request of batch n is delayed on a connection that has broken, its repetition succeeds, and the late copy reaches the broker
// amid batch n+1. With the incarnation rule the broker refuses it: n+1 has another epoch. Without the rule it acts on n+1.
//
// What a late request can be is what the relay sends: it commits, or abandons its producer, so that there is no abort of its own
// to come late. What it abandons is aborted by the next incarnation's init_transactions, under a new epoch.
#include <gtest/gtest.h>
#include <signal.h>

#include "tests/support/judge.h"
#include "tests/support/kafka_proxy.h"

namespace outbox {
namespace {

using test::Judgement;
using test::KafkaApi;
using test::KafkaProxy;
using test::KafkaRequest;
using test::Process;
using test::World;
using Then = test::KafkaProxy::Then;

constexpr const char* intact = "";
constexpr const char* rule_off = "incarnation_rule_off";
constexpr int many = 19'000;  // takes longer to hand over than librdkafka waits before it registers a partition

// A broker that tells its clients to come by the proxy, if they have come by it.
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

// One outbox whose relay reaches Kafka through the proxy, and whose batches are written one at a time, each over two topics.
class Stage {
 public:
  explicit Stage(Network& net = shared_network())
      : network(net), world(test::shared_postgres(), &net.kafka), first(world.topic("first", 1)), second(world.topic("second", 1)) {
    world.environment["OUTBOX_RELAY_KAFKA_BROKERS"] = net.proxy.address();
    world.environment["OUTBOX_RELAY_LEASE_TTL"] = "60s";  // the relay is stopped for a while, and must not lose it
  }

  Process start(const std::string& defect, Process::Environment more = {}) {
    if (defect.empty()) return world.relay(more, "relay-with-crash-points");
    more["OUTBOX_SABOTAGE"] = defect;
    return world.relay(more, "outbox-relay-sabotaged");
  }
  // Commits one batch: `messages` to the first topic, then some to the second.
  void write_batch(int messages = 10) {
    const std::string base = std::to_string(++batch * 100'000);
    world.sql("insert into outbox.message (topic, key, payload) select t, convert_to('k', 'UTF8'), convert_to('k ' || " + base +
              " + i, 'UTF8') from (select '" + first + "' t, i from generate_series(1, " + std::to_string(messages) + ") i union all select '" +
              second + "', i from generate_series(1, 10) i order by 1, 2) m");
  }
  // Records of the newest batch in the topic that this reader sees now.
  std::int64_t newest_in(const std::string& topic, test::Isolation isolation) {
    std::int64_t found = 0;
    for (const auto& r : test::read_log(network.kafka.brokers(), {topic}, isolation, Millis{500}).records) {
      found += std::stoi(r.payload->substr(2)) > batch * 100'000;
    }
    return found;
  }
  std::int64_t visible() {
    return newest_in(first, test::Isolation::read_committed) + newest_in(second, test::Isolation::read_committed);
  }
  // So that a relay that was killed need not be waited out.
  void expire_lease() { world.sql("update outbox.lease set expires_at = clock_timestamp()"); }
  Judgement finish(Process& relay) {
    world.settled();
    relay.signal(SIGTERM);
    EXPECT_EQ(relay.wait(), 0) << relay.output();
    return test::judge(world, {first, second});
  }

  Network& network;
  World world;
  const std::string first;
  const std::string second;
  int batch = 0;
};

void wait_until_stopped(const Process& relay) {
  test::eventually("the relay stops", [&] {
    return test::run_command({"/usr/bin/grep", "-q", "State:.T", "/proc/" + std::to_string(relay.pid()) + "/status"}, {}).code == 0;
  });
}

int times(const std::string& text, const std::string& what) {
  int n = 0;
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
  return n;
}

// Where batch n+1 is when the late request comes.
enum class Amid {
  reported,          // all of it is written, its commit not yet sent
  second_request,    // its first Produce is written, the second under way
  second_partition,  // the first partition's messages are written, the others' partitions not yet registered
};

struct Late {
  KafkaApi api;
  Amid amid;
  bool killed = false;        // the relay, right after it
  bool made_an_abort = false; // the late EndTxn, see ALateAbort…
};

struct Outcome {
  int answer = 0;               // to the late request
  std::int64_t visible = 0;     // of n+1, before its commit
  Judgement verdict;
  std::string log;
};

// Holds what must not reach the broker yet when the late request comes; nullptr: the relay stops itself.
std::shared_ptr<KafkaProxy::Held> halt(Stage& stage, Amid amid) {
  KafkaProxy& proxy = stage.network.proxy;
  if (amid == Amid::second_request) return proxy.hold(KafkaApi::produce, Then::stall, [n = 0](const KafkaRequest&) mutable { return ++n == 2; });
  if (amid == Amid::second_partition) {
    return proxy.hold(KafkaApi::add_partitions_to_txn, Then::stall, [&](const KafkaRequest& r) { return r.contains(stage.second); });
  }
  return nullptr;
}

Outcome deliver(const Late& late, const std::string& defect) {
  Stage stage;
  auto relay = stage.start(defect, {{"OUTBOX_STOP_AT", late.amid == Amid::reported ? "reported:3" : ""}});
  stage.write_batch();  // so that every connection is there
  stage.world.settled();
  const auto held = stage.network.proxy.hold(late.api, Then::cut_client);
  stage.write_batch();  // n
  held->caught();
  stage.world.settled();

  const auto halted = halt(stage, late.amid);
  stage.write_batch(late.amid == Amid::second_partition ? many : 10);  // n+1
  if (halted) {
    halted->caught();
  } else {
    wait_until_stopped(relay);
  }
  if (late.amid == Amid::second_partition) {
    test::eventually("the first partition is written", [&] { return stage.newest_in(stage.first, test::Isolation::read_uncommitted) == many; });
  }
  Outcome out;
  KafkaRequest request = held->request();
  if (late.made_an_abort) request.bytes.back() = '\0';
  out.answer = held->release(request);
  const bool commits = late.api == KafkaApi::end_txn && !late.made_an_abort;
  if (out.answer == 0 && commits) test::eventually("the late commit shows", [&] { return stage.visible() > 0; });
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
  const Late late{KafkaApi::end_txn, Amid::second_request};
  expect_refused(deliver(late, intact));
  const auto broken = deliver(late, rule_off);
  EXPECT_EQ(broken.answer, 0);
  EXPECT_GT(broken.visible, 0);
  EXPECT_FALSE(broken.verdict.exactly_once()) << broken.verdict;
}

}  // namespace
}  // namespace outbox
