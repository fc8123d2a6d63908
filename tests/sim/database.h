// SPDX-License-Identifier: Apache-2.0
// A model of PostgreSQL, as far as the relay depends on it: transaction ids and snapshots, commits
// that become visible before they are durable, a crash that forgets them and uses their ids again,
// and the tables of the outbox.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "relay/core/ports.h"

namespace relay::sim {

// What Kafka will make of a message.
enum class Trait : std::uint8_t { good, too_large, refused };

constexpr int no_key = -1;

struct Row {
  std::int64_t seq = 0;
  Xid xid = 0;
  int id = 0;  // never used twice in a schedule, from 1
  int key = no_key;
  int nth = 0;  // of its key, counted under the key's lock
  Trait trait = Trait::good;
};

struct ParkedRow {
  enum class Decision : std::uint8_t { none, release, discard };
  Row row;
  std::int64_t parked_for = 0;
  std::int64_t released_in = 0;  // 0: not yet
  Decision decision = Decision::none;
  bool follows = false;  // parked because of an earlier message of its key
  bool undecided() const { return released_in == 0 && decision == Decision::none; }
};

struct Opened {
  std::shared_ptr<const Batch> batch;
  bool delivered = false;
};

struct LeaseRow {
  std::int64_t epoch = 0;
  int holder = 0;  // 0: nobody
  Clock::time_point expires_at{};
};

class PostgresModel {
 public:
  static constexpr Xid first_xid = 3;
  enum class Outcome : std::uint8_t { running, prepared, committed, aborted };

  // Everything that is stored. Copied as a whole when it is flushed.
  struct State {
    std::vector<Outcome> transactions;  // from first_xid on
    Xid latest_completed = first_xid - 1;
    std::int64_t next_seq = 1;
    std::vector<Row> messages;
    std::vector<Row> pruned;  // what retention has deleted
    std::vector<Opened> journal;
    std::vector<ParkedRow> parked;
    LeaseRow lease;
    std::vector<int> counters;  // messages committed per key
  };

  explicit PostgresModel(int keys) {
    now.counters.resize(static_cast<std::size_t>(keys));
    durable = now;
    replica_ = now;
  }

  State now;
  State durable;
  std::vector<std::function<void()>>
      late;  // statements of broken connections that the server has yet to execute

  // Sessions that were opened in another life of the server are gone.
  int life() const { return life_; }
  const Identity& identity() const { return identity_; }

  Snapshot snapshot() const;
  bool committed(Xid xid) const { return outcome(xid) == Outcome::committed; }
  Outcome outcome(Xid xid) const;
  Xid begin();
  void end(Xid xid, Outcome outcome);
  void insert(Row row);  // draws its seq

  // Everything that is visible, and what lies before it in the WAL, is on disk from now on.
  void flush() { durable = now; }
  // Forgets what was not flushed; prepared transactions stay.
  void crash();
  // The standby, which has what was replicated so far, takes the place of this server, on a new
  // timeline.
  void replicate() { replica_ = durable; }
  void fail_over();
  // Retention: deletes what is visible in the base of the newest stream batch.
  void prune();
  // Executes one of the late statements.
  void arrive(std::size_t index);

  // Parked messages that a release may take now, at most `most`, as outbox.releasable() chooses
  // them. Indexes into now.parked; `next_leaders` are not released but lead the next release.
  struct Releasable {
    std::vector<std::size_t> taken;
    std::vector<std::size_t> next_leaders;
  };
  Releasable releasable(bool by_key, std::size_t most) const;

 private:
  State replica_;
  int life_ = 1;
  Identity identity_{1, 1, 1};
};

}  // namespace relay::sim
