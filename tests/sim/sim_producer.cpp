// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/sim_producer.h"

#include <algorithm>

#include "common/check.h"
#include "relay/base/mutants.h"
#include "tests/sim/database_ports.h"

namespace relay::sim {
namespace {

constexpr std::size_t usual_record_batch = 2;

Error lost(bool in_doubt) { return {Fault::kafka, "Kafka: no answer in time", {}, in_doubt}; }

std::size_t partition_of(const Message& m) {
  const int by = m.key ? m.key->front() - '0' : id_of(m);
  return static_cast<std::size_t>(by) % progress_partition;
}

}  // namespace

Result<std::optional<Progress>> SimProducer::newest_progress(bool to_the_end, const Meanwhile&) {
  schedule_.point();
  if (schedule_.fate() == RequestFate::lost) return lost(false);
  if (to_the_end && transactional() && broker_.hidden())
    return Error{Fault::kafka, "Kafka: an open transaction hides the newest progress record"};
  return broker_.newest_progress();
}

// What is under way may still arrive. Never throws: a killed process ends here as well.
void SimProducer::abandon() {
  if (clean_ && answered_ < outgoing_.size() && schedule_.maybe(3))
    broker_.late.push_back(outgoing_[answered_]);
  clean_ = false;
  outgoing_.clear();
  messages_.clear();
  answered_ = 0;
}

Result<void> SimProducer::renew(Mode mode, const std::function<Result<void>()>& meanwhile) {
  abandon();
  schedule_.point();
  while (schedule_.maybe(8)) {
    if (auto r = meanwhile(); !r) return r;
  }
  mode_ = mode;
  record_batch_max_ = wanted_record_batch_max_;
  all_answered_ = true;
  sequence_ = {};
  if (!transactional()) {
    if (schedule_.fate() == RequestFate::lost) return lost(false);
    producer_ = broker_.new_idempotent_producer();
    epoch_ = 0;
  } else {
    producer_ = Broker::transactional_producer;
    bool is_lost = false;
    exchange({Request::Kind::init, producer_, 0, 0, 0, {}, false, std::nullopt}, is_lost);
    if (is_lost) return lost(true);
    epoch_ = broker_.epoch();
    all_answered_ = true;  // what counts is the transactions
  }
  clean_ = true;
  schedule_.point();
  return {};
}

// Sends a request until it is answered, as the client does, which reports no repeats.
Code SimProducer::exchange(const Request& r, bool& is_lost) {
  switch (schedule_.fate()) {
    case RequestFate::arrives: return broker_.handle(r);
    case RequestFate::answer_lost: broker_.handle(r); break;
    case RequestFate::late: broker_.late.push_back(r); break;
    case RequestFate::lost:
      if (schedule_.maybe(2)) broker_.late.push_back(r);
      is_lost = true;
      return Code::ok;
  }
  all_answered_ = false;
  return broker_.handle(r);
}

Result<Validation> SimProducer::validate(const Page& page, std::optional<Timestamp>) {
  CHECK(clean_ || MUTANT(incarnation_rule_off));
  Validation validation;
  validation.complete = !schedule_.maybe(16);
  for (std::size_t i = 0; i < page.messages.size(); ++i) {
    const Message& m = page.messages[i];
    if (trait_of(m) == Trait::too_large)
      validation.rejected.push_back({i, m.seq, "too_large", "larger than the topic takes"});
  }
  return validation;
}

Result<void> SimProducer::begin() {
  CHECK(clean_ || MUTANT(incarnation_rule_off));
  added_ = {};
  failure_.reset();
  refused_.clear();
  return {};
}

void SimProducer::queue(std::size_t partition, std::vector<const Message*> messages,
                        const std::optional<Progress>& progress) {
  if (transactional() && !added_[partition]) {
    added_[partition] = true;
    outgoing_.push_back(
        {Request::Kind::add_partition, producer_, epoch_, partition, 0, {}, false, std::nullopt});
    messages_.emplace_back();
  }
  Request r{Request::Kind::produce, producer_, epoch_, partition,
            sequence_[partition],   {},        false,  progress};
  for (const Message* m : messages) {
    r.ids.push_back(id_of(*m));
    if (trait_of(*m) == Trait::refused) r.has_refused = true;
  }
  sequence_[partition] += static_cast<int>(messages.size()) + (progress ? 1 : 0);
  outgoing_.push_back(std::move(r));
  messages_.push_back(std::move(messages));
}

Result<Delivery> SimProducer::send(const Batch&, const Page& page, const PageMask& masked,
                                   const Progress& progress) {
  outgoing_.clear();
  messages_.clear();
  answered_ = 0;
  progress_ = progress;
  first_ = page.messages.data();
  const std::size_t most = record_batch_max_ != 0 ? record_batch_max_ : usual_record_batch;
  std::array<std::vector<const Message*>, progress_partition> next;
  for (std::size_t i = 0; i < page.messages.size(); ++i) {
    if (masked.contains(i)) continue;
    const Message& m = page.messages[i];
    const std::size_t p = partition_of(m);
    next[p].push_back(&m);
    if (next[p].size() == most || schedule_.maybe(2))
      queue(p, std::exchange(next[p], {}), std::nullopt);
  }
  for (std::size_t p = 0; p < progress_partition; ++p) {
    if (!next[p].empty()) queue(p, std::move(next[p]), std::nullopt);
  }
  if (transactional()) queue(progress_partition, {}, progress);
  return Delivery::pending;
}

Error SimProducer::failed(Code code, const Request& r) {
  clean_ = false;
  if (code == Code::refused) {
    const std::size_t index = static_cast<std::size_t>(&r - outgoing_.data());
    for (const Message* m : messages_[index]) {
      if (names_poison_ && trait_of(*m) != Trait::refused) continue;
      refused_.push_back(
          {static_cast<std::size_t>(m - first_), m->seq, "refused", "the broker refused it"});
    }
    return {Fault::message, "Kafka: a record batch was refused"};
  }
  if (code == Code::fenced) return {Fault::fenced, "Kafka: a newer producer has fenced this one"};
  return {Fault::kafka, "Kafka: the transaction's state is not what it should be", {}, true};
}

Result<Delivery> SimProducer::failure() const {
  if (!refused_.empty()) return Delivery::refused;
  return *failure_;
}

Result<Delivery> SimProducer::reported() {
  if (failure_) return failure();
  while (answered_ < outgoing_.size()) {
    schedule_.point();
    const Request& r = outgoing_[answered_];
    bool is_lost = false;
    const Code code = exchange(r, is_lost);
    if (is_lost) {
      clean_ = false;
      failure_ = lost(true);
      return failure();
    }
    if (code != Code::ok) failure_ = failed(code, r);
    if (failure_) return failure();
    ++answered_;
    if (schedule_.maybe(2)) return Delivery::pending;
  }
  return Delivery::complete;
}

Result<Offsets> SimProducer::commit() {
  schedule_.point();
  if (!transactional()) {
    queue(progress_partition, {}, progress_);
    bool unheard = false;
    exchange(outgoing_.back(), unheard);
    answered_ = outgoing_.size();
    if (!all_answered_ || unheard) clean_ = false;
    return Offsets{};
  }
  bool is_lost = false;
  const Code code = exchange(
      {Request::Kind::end_transaction, producer_, epoch_, 0, 0, {}, false, std::nullopt}, is_lost);
  if (!all_answered_ || is_lost || code != Code::ok) clean_ = false;
  if (is_lost) return lost(true);
  if (code == Code::fenced)
    return Error{Fault::fenced, "Kafka: a newer producer has fenced this one"};
  if (code != Code::ok)
    return Error{Fault::kafka, "Kafka: the transaction's state is not what it should be", {}, true};
  schedule_.point();
  return Offsets{};
}

Result<void> SimProducer::probe() {
  schedule_.point();
  if (schedule_.fate() == RequestFate::lost) return lost(false);
  return {};
}

}  // namespace relay::sim
