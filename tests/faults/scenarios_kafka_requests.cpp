// SPDX-License-Identifier: Apache-2.0
// Faults of single requests: the request is lost, its answer is lost, or it arrives late.
#include <array>

#include "tests/faults/scenarios.h"

namespace relay::faults {
namespace {

using test::KafkaApi;
using test::KafkaProxy;
using test::KafkaRequest;
using Then = KafkaProxy::Then;

constexpr Millis opens_within{30'000};

struct Kind {
  KafkaApi api;
  const char* name;
  bool at_start;          // of a client; the others come with every batch
  bool in_transactions;   // at-least-once has none
  int passed_by_max = 0;  // requests of this kind that may go by before the one that is chosen
};

constexpr std::array<Kind, 9> kinds = {
    {{KafkaApi::produce, "Produce", false, false, 5},
     {KafkaApi::add_partitions_to_txn, "AddPartitionsToTxn", false, true, 5},
     {KafkaApi::end_txn, "EndTxn", false, true, 2},
     {KafkaApi::metadata, "Metadata", true, false, 4},
     {KafkaApi::find_coordinator, "FindCoordinator", true, true, 0},
     {KafkaApi::init_producer_id, "InitProducerId", true, false, 0},
     {KafkaApi::list_offsets, "ListOffsets", true, false, 1},
     {KafkaApi::fetch, "Fetch", true, false, 0},
     {KafkaApi::api_versions, "ApiVersions", true, false, 4}}};

// Chooses one of the first `count` kinds.
const Kind& some_kind(Round& round, std::size_t count) {
  const bool transactions = round.session.options.mode == Mode::exactly_once;
  while (true) {
    const Kind& kind = kinds[static_cast<std::size_t>(
        between(round.random, 0, static_cast<std::int64_t>(count) - 1))];
    if (transactions || !kind.in_transactions) return kind;
  }
}

// Holds a request, at most until the end of the round.
class Order {
 public:
  Order(KafkaProxy& proxy, const Kind& kind, Then then, std::int64_t pass_by)
      : proxy_(proxy),
        held_(proxy.hold(kind.api, then,
                         [left = pass_by](const KafkaRequest&) mutable { return left-- == 0; })) {}
  ~Order() { proxy_.forget(held_); }
  Order(const Order&) = delete;
  Order& operator=(const Order&) = delete;
  KafkaProxy::Held* operator->() const { return held_.get(); }

 private:
  KafkaProxy& proxy_;
  const std::shared_ptr<KafkaProxy::Held> held_;
};

// Requests of a client's start occur once in each incarnation: the relay is killed to cause one.
void connection_reset(Round& round) {
  ScenarioSession& session = round.session;
  const Kind& kind = some_kind(round, kinds.size());
  const bool before = chance(round.random, 0.5);
  const auto pass_by = between(round.random, 0, kind.passed_by_max);
  const Millis after = round.let_run(0, 100);
  if (kind.at_start) session.kill(session.relays.front());
  const Order order(session.servers.kafka_proxy, kind,
                    before ? Then::lose_request : Then::lose_answer, pass_by);
  if (kind.at_start) session.start_relay();
  order->caught();
  round.healed();
  round.note(std::string(kind.name) + " " + std::to_string(pass_by + 1) +
             (before ? " lost" : " answered in vain") + " after " + std::to_string(after.count()) +
             " ms");
}

std::int64_t newest_batch(ScenarioSession& session) {
  return std::stoll(session.db.value("select coalesce(max(b.number), 0) from outbox.batch b"));
}

// In at-least-once mode the broker recognizes the late copy by its sequence number, does not write
// it, and acknowledges it.
void delivered_late(Round& round) {
  ScenarioSession& session = round.session;
  const Kind& kind = some_kind(round, 3);
  const auto pass_by = between(round.random, 0, kind.passed_by_max);
  round.let_run(0, 100);
  const Order order(session.servers.kafka_proxy, kind, Then::cut_client, pass_by);
  order->caught();
  const auto batch = newest_batch(session);
  test::eventually(
      "a later batch is opened", [&] { return newest_batch(session) > batch; }, opens_within);
  const Millis after = round.let_run(0, 60);
  const int answer = order->release();
  round.healed();
  round.note(std::string(kind.name) + " of batch " + std::to_string(batch) + " arrived " +
             std::to_string(after.count()) + " ms after the next was opened: answer " +
             std::to_string(answer));
  if (answer == 0 && session.options.mode == Mode::exactly_once) {
    round.broke(&Counts::fencing, std::string("a late ") + kind.name + " was accepted");
  }
}

}  // namespace

std::vector<Scenario> kafka_request_scenarios() {
  return {
      {"KA04", connection_reset, {.through_kafka_proxy = true}},
      {"KA05", delivered_late, {.through_kafka_proxy = true}},
  };
}

}  // namespace relay::faults
