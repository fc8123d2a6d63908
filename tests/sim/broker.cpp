// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/broker.h"

#include <algorithm>

namespace relay::sim {

void Broker::end(bool commit, int marker_epoch) {
  for (std::size_t p = 0; p < partitions; ++p) {
    if (!added_[p]) continue;
    for (Record& r : log[p]) {
      if (r.state == Record::State::open)
        r.state = commit ? Record::State::committed : Record::State::aborted;
    }
    Producing& of = producing_[p][transactional_producer];
    if (marker_epoch > of.epoch) of = {marker_epoch, 0, {}};
  }
  added_ = {};
  state_ = commit ? State::committed : State::aborted;
}

void Broker::time_out() {
  if (state_ != State::ongoing) return;
  ++epoch_;
  end(false, epoch_);
}

Code Broker::handle(const Request& r) {
  switch (r.kind) {
    case Request::Kind::init:
      time_out();
      ++epoch_;
      state_ = State::empty;
      return Code::ok;
    case Request::Kind::add_partition:
      if (r.epoch != epoch_) return Code::fenced;
      state_ = State::ongoing;
      added_[r.partition] = true;
      return Code::ok;
    case Request::Kind::produce: return produce(r);
    case Request::Kind::end_transaction: break;
  }
  // The relay only ever commits: what it gives up, the next incarnation's init aborts.
  if (r.epoch != epoch_) return Code::fenced;
  if (state_ == State::committed)
    return Code::ok;  // taken for a repeat of the request that ended it
  if (state_ != State::ongoing) return Code::invalid_transaction;
  end(true, epoch_);
  return Code::ok;
}

Code Broker::produce(const Request& r) {
  const bool transactional = r.producer == transactional_producer;
  auto& producing = producing_[r.partition];
  const auto known = producing.find(r.producer);
  if (transactional) {
    if (r.epoch != epoch_ || (known != producing.end() && r.epoch < known->second.epoch))
      return Code::fenced;
    if (state_ != State::ongoing || !added_[r.partition]) return Code::invalid_transaction;
  }
  const bool fresh = known == producing.end();
  Producing& of = fresh ? producing[r.producer] : known->second;
  if (fresh) of = {r.epoch, r.sequence, {}};  // whatever the first one is
  if (r.epoch > of.epoch) of = {r.epoch, 0, {}};
  if (std::find(of.taken.begin(), of.taken.end(), r.sequence) != of.taken.end())
    return Code::ok;  // a repeat
  if (r.sequence != of.next) return Code::out_of_order;
  if (r.has_refused) {
    if (fresh) producing.erase(r.producer);
    return Code::refused;
  }
  of.taken.push_back(r.sequence);
  of.next += static_cast<int>(r.ids.size()) + (r.progress ? 1 : 0);
  const auto state = transactional ? Record::State::open : Record::State::committed;
  for (const int id : r.ids) log[r.partition].push_back({id, std::nullopt, r.producer, state});
  if (r.progress) log[r.partition].push_back({0, r.progress, r.producer, state});
  return Code::ok;
}

void Broker::arrive(std::size_t index) {
  const Request request = std::move(late[index]);
  late.erase(late.begin() + static_cast<std::ptrdiff_t>(index));
  static_cast<void>(handle(request));
}

bool Broker::is_open(const std::vector<Record>& records) {
  return std::any_of(records.begin(), records.end(),
                     [](const Record& r) { return r.state == Record::State::open; });
}

bool Broker::has_open_records() const {
  return std::any_of(log.begin(), log.end(), &Broker::is_open);
}

std::optional<Progress> Broker::newest_progress() const {
  std::optional<Progress> newest;
  for (const Record& r : log[progress_partition]) {
    if (r.state == Record::State::open) break;
    if (r.state == Record::State::committed) newest = r.progress;
  }
  return newest;
}

}  // namespace relay::sim
