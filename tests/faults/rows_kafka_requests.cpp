// SPDX-License-Identifier: Apache-2.0
// Faults of single requests: lost, answered in vain, late.
#include <array>

#include "tests/faults/rows.h"

namespace outbox::faults {
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

constexpr std::array<Kind, 9> kinds = {{{KafkaApi::produce, "Produce", false, false, 5},
                                        {KafkaApi::add_partitions_to_txn, "AddPartitionsToTxn", false, true, 5},
                                        {KafkaApi::end_txn, "EndTxn", false, true, 2},
                                        {KafkaApi::metadata, "Metadata", true, false, 4},
                                        {KafkaApi::find_coordinator, "FindCoordinator", true, true, 0},
                                        {KafkaApi::init_producer_id, "InitProducerId", true, false, 0},
                                        {KafkaApi::list_offsets, "ListOffsets", true, false, 1},
                                        {KafkaApi::fetch, "Fetch", true, false, 0},
                                        {KafkaApi::api_versions, "ApiVersions", true, false, 4}}};

// The first `count` kinds are chosen from.
const Kind& some_kind(Round& round, std::size_t count) {
  const bool transactions = round.stretch.options.mode == Mode::exactly_once;
  while (true) {
    const Kind& kind = kinds[static_cast<std::size_t>(between(round.random, 0, static_cast<std::int64_t>(count) - 1))];
    if (transactions || !kind.in_transactions) return kind;
  }
}

// An order to hold a request, which does not outlive the round.
class Order {
 public:
  Order(KafkaProxy& proxy, const Kind& kind, Then then, std::int64_t pass_by)
      : proxy_(proxy), held_(proxy.hold(kind.api, then, [left = pass_by](const KafkaRequest&) mutable { return left-- == 0; })) {}
  ~Order() { proxy_.forget(held_); }
  Order(const Order&) = delete;
  Order& operator=(const Order&) = delete;
  KafkaProxy::Held* operator->() const { return held_.get(); }

 private:
  KafkaProxy& proxy_;
  const std::shared_ptr<KafkaProxy::Held> held_;
};

// A client starts with an incarnation, so that the relay is killed for what only a start brings.
void connection_reset(Round& round) {
  Stretch& stretch = round.stretch;
  const Kind& kind = some_kind(round, kinds.size());
  const bool before = chance(round.random, 0.5);
  const auto pass_by = between(round.random, 0, kind.passed_by_max);
  const Millis after = round.let_run(0, 100);
  if (kind.at_start) stretch.kill(stretch.relays.front());
  const Order order(stretch.servers.kafka_proxy, kind, before ? Then::lose_request : Then::lose_answer, pass_by);
  if (kind.at_start) stretch.start_relay();
  order->caught();
  round.healed();
  round.tell(std::string(kind.name) + " " + std::to_string(pass_by + 1) + (before ? " lost" : " answered in vain") + " after " +
             std::to_string(after.count()) + " ms");
}

std::int64_t newest_batch(Stretch& stretch) { return std::stoll(stretch.world.value("select coalesce(max(b.number), 0) from outbox.batch b")); }

// At-least-once, the broker knows the late copy by its sequence number and does not write it again, but its answer is that all is well.
void delivered_late(Round& round) {
  Stretch& stretch = round.stretch;
  const Kind& kind = some_kind(round, 3);
  const auto pass_by = between(round.random, 0, kind.passed_by_max);
  round.let_run(0, 100);
  const Order order(stretch.servers.kafka_proxy, kind, Then::cut_client, pass_by);
  order->caught();
  const auto batch = newest_batch(stretch);
  test::eventually("a later batch is opened", [&] { return newest_batch(stretch) > batch; }, opens_within);
  const Millis after = round.let_run(0, 60);
  const int answer = order->release();
  round.healed();
  round.tell(std::string(kind.name) + " of batch " + std::to_string(batch) + " arrived " + std::to_string(after.count()) +
             " ms after the next was opened: answer " + std::to_string(answer));
  if (answer == 0 && stretch.options.mode == Mode::exactly_once) {
    round.broke(&Counts::fencing, std::string("a late ") + kind.name + " was accepted");
  }
}

}  // namespace

std::vector<Row> kafka_request_rows() {
  return {
      {"K4", connection_reset, {.through_kafka_proxy = true}},
      {"K5", delivered_late, {.through_kafka_proxy = true}},
  };
}

}  // namespace outbox::faults
