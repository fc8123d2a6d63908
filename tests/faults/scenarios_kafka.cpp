// SPDX-License-Identifier: Apache-2.0
// Faults of brokers and of the network to them.
#include <signal.h>

#include <algorithm>
#include <cmath>

#include "relay/kafka/handle.h"
#include "tests/faults/scenarios.h"

namespace relay::faults {
namespace {

constexpr Millis in_sync_within{120'000};
constexpr std::int64_t request_timeout_ms =
    3'000;  // of the relay's client; librdkafka's own is 60 s

test::Process::Environment impatient() {
  return {
      {"OUTBOX_RELAY_KAFKA_PROPERTIES", "socket.timeout.ms=" + std::to_string(request_timeout_ms)}};
}

std::string ms(Millis t) { return std::to_string(t.count()) + " ms"; }

void broker_killed(Round& round) {
  const Millis after = round.let_run(0, 300);
  round.session.servers.kafka->kill();
  round.session.servers.kafka->start();
  round.note("killed", after);
  round.healed();
}

// A broker that cannot write to its only log directory exits. The operator frees space and starts
// it again.
void disk_is_full(Round& round) {
  const test::ScratchKafka& kafka = *round.session.servers.kafka;
  const Millis after = round.let_run(0, 300);
  round.session.servers.disk->fill();
  const Millis lasted = round.let_run(500, 5'000);
  const bool ended = ::kill(kafka.pid(), 0) != 0;
  round.session.servers.disk->empty();
  kafka.kill();
  kafka.start();
  round.note("full", after, " for " + ms(lasted) + (ended ? ", the broker ended" : ""));
  round.healed();
}

void until_in_sync(Round& round) {
  test::eventually(
      "all replicas are in sync", [&] { return round.session.servers.kafka->in_sync(); },
      in_sync_within);
}

// The partition that the broker computes for a transactional id: the hash of a Java string.
int coordinator_partition(const std::string& transactional_id, int partitions) {
  std::uint32_t hash = 0;
  for (const char c : transactional_id) hash = hash * 31 + static_cast<unsigned char>(c);
  return static_cast<int>((hash & 0x7fffffff) % static_cast<std::uint32_t>(partitions));
}

constexpr int transaction_state_partitions = 4;  // as scripts/scratch sets it

// In at-least-once mode no transaction needs the coordinator; another leader is chosen.
void a_leader_goes(Round& round) {
  ScenarioSession& session = round.session;
  test::ScratchKafka& kafka = *session.servers.kafka;
  const Millis after = round.let_run(0, 300);
  const bool killed = chance(round.random, 0.5);
  int broker = 0;
  switch (round.number % 3) {
    case 0: {
      const auto partition = static_cast<int>(between(round.random, 0, 1));
      broker = kafka.leader(session.topics.back(), partition);
      round.note("the leader of partition " + std::to_string(partition));
      break;
    }
    case 1:
      broker = kafka.leader("outbox-progress." + session.db.name());
      round.note("the leader of the progress topic");
      break;
    default:
      broker = session.options.mode == Mode::exactly_once
                   ? kafka.leader("__transaction_state",
                                  coordinator_partition("outbox-relay." + session.db.name(),
                                                        transaction_state_partitions))
                   : static_cast<int>(between(round.random, 1, 3));
      round.note("the transaction coordinator");
  }
  if (killed) kafka.kill(broker);
  else kafka.stop(broker);
  round.note("broker " + std::to_string(broker) + (killed ? " killed" : " stopped"), after);
  round.healed();  // two brokers are enough
  session.until_batches(1, Millis{60'000});
  round.recovered();
  kafka.start(broker);
  until_in_sync(round);
  session.until_batches(1, Millis{60'000});
}

void broker_paused(Round& round) {
  const Millis after = round.let_run(0, 300);
  round.session.servers.kafka->pause();
  const Millis paused = round.let_run(1'000, 2 * request_timeout_ms);
  round.session.servers.kafka->resume();
  round.healed();
  round.note("stopped for " + ms(paused) + " after " + ms(after));
}

// A broker that is not among `those`.
int another_broker(std::initializer_list<int> those) {
  int broker = 1;
  while (std::find(those.begin(), those.end(), broker) != those.end()) ++broker;
  return broker;
}

// With two of three brokers gone the controllers have no majority either, so that the replicas
// which are gone still count as in sync and the last broker waits for them. If the topic requires
// three and one goes, it refuses produce requests.
void too_few_in_sync(Round& round) {
  ScenarioSession& session = round.session;
  test::ScratchKafka& kafka = *session.servers.kafka;
  const Millis after = round.let_run(0, 300);
  const int leader = kafka.leader(session.topics.front());
  const int first = another_broker({leader});
  if (round.number % 2 == 0) {
    const int second = another_broker({leader, first});
    kafka.kill(first);
    kafka.kill(second);
    round.let_run(500, 3'000);
    kafka.start(first);
    kafka.start(second);
    round.note("brokers " + std::to_string(first) + " and " + std::to_string(second) + " killed",
               after);
  } else {
    kafka.alter_topic(session.topics.front(), {"min.insync.replicas=3"});
    kafka.kill(first);
    round.let_run(4'000, 6'000);  // the controller misses it after 3 s
    kafka.start(first);
    round.note("three in sync are demanded, broker " + std::to_string(first) + " killed", after);
  }
  until_in_sync(round);
  if (round.number % 2 != 0) kafka.alter_topic(session.topics.front(), {"min.insync.replicas=2"});
  round.healed();
}

void comes_and_goes(Round& round) {
  auto& proxy = round.session.servers.kafka_proxy;
  for (int i = 0; i < 2; ++i) {
    proxy.refuse(true);
    proxy.cut();
    round.let_run(2'000, 2'000);
    proxy.refuse(false);
    if (i == 0) round.let_run(2'000, 2'000);
  }
  round.note("comes and goes");
}

void network_faults(Round& round) {
  auto& proxy = round.session.servers.kafka_proxy;
  const Millis after = round.let_run(0, 300);
  switch (between(round.random, 0, 3)) {
    case 0: {
      proxy.swallow(true);
      const Millis lasted = round.let_run(500, 6'000);
      proxy.swallow(false);
      round.note("everything swallowed for " + ms(lasted));
      break;
    }
    case 1: {
      // Half of the latencies are short, half are long.
      const Millis latency{static_cast<std::int64_t>(
          10 * std::pow(200.0, std::uniform_real_distribution<double>(0, 1)(round.random)))};
      proxy.schedule({.latency = latency});
      const Millis lasted = round.let_run(1'000, 5'000);
      proxy.schedule({});
      round.note("a latency of " + ms(latency) + " for " + ms(lasted));
      break;
    }
    case 2: {
      proxy.schedule({.bytes_per_second = 64 << 10});
      const Millis lasted = round.let_run(1'000, 5'000);
      proxy.schedule({});
      round.note("64 KiB/s for " + ms(lasted));
      break;
    }
    default: comes_and_goes(round);
  }
  round.healed();
  round.note("after " + ms(after));
}

// A client that initializes the transactional id of the relay: the last one that does owns it.
class Impostor {
 public:
  Impostor(const std::string& brokers, const std::string& relay) {
    kafka::Options options;
    options.brokers = brokers;
    auto conf = kafka::make_conf(options, {{"transactional.id", "outbox-relay." + relay}});
    client_ = std::move(*kafka::make_client(RD_KAFKA_PRODUCER, std::move(*conf)));
  }
  // Returns false if the relay was faster.
  bool initialise() {
    const kafka::KafkaError error(rd_kafka_init_transactions(client_.get(), 30'000));
    return !error;
  }
  // Never committed.
  void write(const std::string& topic) {
    const kafka::KafkaError error(rd_kafka_begin_transaction(client_.get()));
    if (error) return;
    rd_kafka_producev(client_.get(), RD_KAFKA_V_TOPIC(topic.c_str()), RD_KAFKA_V_PARTITION(0),
                      RD_KAFKA_V_KEY("k", 1), RD_KAFKA_V_END);
    rd_kafka_flush(client_.get(), 5'000);
  }

 private:
  kafka::Client client_;
};

int times(const std::string& text, const std::string& what) {
  int n = 0;
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
  return n;
}

// Alone behind the proxy, so that its requests can be counted: while the relay has a transaction
// open, the broker aborts that one, refuses the request, and is asked again. Each time the relay is
// fenced.
void impostor_comes(Round& round) {
  ScenarioSession& session = round.session;
  test::KafkaProxy& proxy = session.servers.kafka_proxy;
  // In at-least-once mode no client would end its transaction.
  const bool writes = chance(round.random, 0.5) && session.options.mode == Mode::exactly_once;
  const Relay& relay = session.relays.front();
  const auto said = relay.process.output().size();
  const auto epoch = session.epoch();
  const int asked_before = proxy.count(test::KafkaApi::init_producer_id);
  Impostor impostor(proxy.address(), session.db.name());
  const Millis after = round.let_run(0, 300);
  if (!impostor.initialise())
    throw std::runtime_error("the impostor cannot initialise transactions");
  round.healed();
  if (writes) impostor.write("outbox-progress." + session.db.name());
  round.note("an impostor initialises" + std::string(writes ? " and writes" : ""), after);
  if (session.options.mode == Mode::at_least_once) return;  // no relay is fenced
  test::eventually("the relay notices", [&] { return session.epoch() > epoch; });
  session.until_batches(1, Millis{60'000});
  round.recovered();
  round.let_run(100, 300);
  const int fenced = times(relay.process.output().substr(said), " fenced epoch=");
  const int asked = proxy.count(test::KafkaApi::init_producer_id) - asked_before;
  round.note("it asked " + std::to_string(asked) + " times, the relay was fenced " +
             std::to_string(fenced) + " times");
  if (fenced < 1 || fenced > asked)
    round.broke(&Counts::fencing, "the relay was fenced " + std::to_string(fenced) + " times");
}

}  // namespace

std::vector<Scenario> kafka_scenarios() {
  const ServerOptions three{.brokers = 3};
  return {
      {"KA01", broker_killed},
      {.id = "KA02", .inject = a_leader_goes, .rounds_of_session = 10, .servers = three},
      {"KA03", broker_paused, {.relay = impatient()}},
      {"KA06", network_faults, {.through_kafka_proxy = true, .relay = impatient()}},
      {.id = "KA07", .inject = too_few_in_sync, .rounds_of_session = 10, .servers = three},
      {.id = "KA08",
       .inject = disk_is_full,
       .rounds_of_session = 5,
       .servers = {.small_disk = ServerOptions::Disk::of_kafka}},
      {"KA10", impostor_comes},
  };
}

}  // namespace relay::faults
