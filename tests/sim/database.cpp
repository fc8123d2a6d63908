// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/database.h"

#include <algorithm>
#include <limits>

namespace relay::sim {
namespace {

bool same_key(const ParkedRow& a, const ParkedRow& b) {
  return a.row.key != no_key && a.row.key == b.row.key;
}

}  // namespace

PostgresModel::Outcome PostgresModel::outcome(Xid xid) const {
  const auto index = static_cast<std::size_t>(xid - first_xid);
  return index < now.transactions.size() ? now.transactions[index] : Outcome::running;
}

// As PostgreSQL does it: xmax follows the latest transaction that has ended, not the latest that
// was begun.
Snapshot PostgresModel::snapshot() const {
  const Xid xmax = now.latest_completed + 1;
  std::string running;
  Xid xmin = xmax;
  for (Xid xid = first_xid; xid < xmax; ++xid) {
    const Outcome o = outcome(xid);
    if (o != Outcome::running && o != Outcome::prepared) continue;
    xmin = std::min(xmin, xid);
    running += (running.empty() ? "" : ",") + std::to_string(xid);
  }
  return *Snapshot::parse(std::to_string(xmin) + ":" + std::to_string(xmax) + ":" + running);
}

Xid PostgresModel::begin() {
  now.transactions.push_back(Outcome::running);
  return first_xid + now.transactions.size() - 1;
}

void PostgresModel::end(Xid xid, Outcome outcome) {
  now.transactions[static_cast<std::size_t>(xid - first_xid)] = outcome;
  if (outcome != Outcome::prepared) now.latest_completed = std::max(now.latest_completed, xid);
}

void PostgresModel::insert(Row row) {
  row.seq = now.next_seq++;
  now.messages.push_back(row);
}

void PostgresModel::crash() {
  now = durable;
  for (Outcome& o : now.transactions) {
    if (o == Outcome::running) o = Outcome::aborted;
  }
  now.latest_completed = first_xid + now.transactions.size() - 1;
  durable = now;
  late.clear();
  ++life_;
}

void PostgresModel::fail_over() {
  durable = replica_;
  crash();
  ++identity_.timeline;
}

void PostgresModel::prune() {
  const auto stream = std::find_if(now.journal.rbegin(), now.journal.rend(),
                                   [](const Opened& o) { return !o.batch->release; });
  if (stream == now.journal.rend()) return;
  const Snapshot& base = stream->batch->bounds.base;
  const auto old = [&](const Row& r) { return base.finished(r.xid); };
  for (const Row& r : now.messages) {
    if (old(r) && committed(r.xid)) now.pruned.push_back(r);
  }
  std::erase_if(now.messages, old);
}

void PostgresModel::arrive(std::size_t index) {
  const auto statement = std::move(late[index]);
  late.erase(late.begin() + static_cast<std::ptrdiff_t>(index));
  statement();
}

PostgresModel::Releasable PostgresModel::releasable(bool by_key, std::size_t most) const {
  const auto& parked = now.parked;
  // Where the first message of the same key lies that nobody has decided about.
  const auto stop = [&](const ParkedRow& p) {
    std::int64_t seq = std::numeric_limits<std::int64_t>::max();
    if (!by_key) return seq;
    for (const ParkedRow& u : parked) {
      if (same_key(u, p) && u.undecided() && !u.follows) seq = std::min(seq, u.row.seq);
    }
    return seq;
  };
  const auto by_seq = [&](std::size_t a, std::size_t b) {
    return parked[a].row.seq < parked[b].row.seq;
  };
  std::vector<std::size_t> all;
  for (std::size_t i = 0; i < parked.size(); ++i) {
    const ParkedRow& p = parked[i];
    if (p.released_in == 0 && p.decision != ParkedRow::Decision::none && p.row.seq < stop(p))
      all.push_back(i);
  }
  std::sort(all.begin(), all.end(), by_seq);
  all.resize(std::min(all.size(), most));
  const std::size_t decided = all.size();
  for (std::size_t i = 0; i < parked.size() && by_key; ++i) {
    const ParkedRow& f = parked[i];
    if (!f.undecided() || !f.follows || f.row.seq >= stop(f)) continue;
    const auto leads = [&](std::size_t d) { return same_key(parked[d], f); };
    if (std::any_of(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(decided), leads))
      all.push_back(i);
  }
  std::sort(all.begin(), all.end(), by_seq);
  Releasable r;
  for (const std::size_t i : all) {
    if (r.taken.size() < most) {
      r.taken.push_back(i);
    } else if (std::none_of(r.next_leaders.begin(), r.next_leaders.end(),
                            [&](std::size_t b) { return same_key(parked[b], parked[i]); })) {
      r.next_leaders.push_back(i);
    }
  }
  return r;
}

}  // namespace relay::sim
