// SPDX-License-Identifier: Apache-2.0
// The relay's side of the modelled PostgreSQL: its session, and the ports that use it.
#pragma once

#include "tests/sim/database.h"
#include "tests/sim/fault_schedule.h"

namespace relay::sim {

struct SimOptions {
  int holder = 0;  // names the process in the lease
  KeyOrder order = KeyOrder::key;
  std::size_t page_rows = 3;
  std::size_t release_rows = 2;
  Clock::duration lease_ttl = Millis{500};
};

// What a relay process has of the database: one session. It dies with the server's life in which it
// was opened, or when its connection breaks.
struct SimDatabase : public Database {
  SimDatabase(PostgresModel& model, FaultSchedule& around, const SimOptions& settings)
      : database(model), schedule(around), options(settings) {}
  Result<Identity> connect() override;

  PostgresModel& database;
  FaultSchedule& schedule;
  const SimOptions options;
  int life = 0;  // 0: there is none

  bool alive() const { return life == database.life(); }
  Error broken(bool in_doubt) {
    life = 0;
    return Error{Fault::postgres, "PostgreSQL: connection lost", {}, in_doubt, true};
  }
  // A statement that changes nothing.
  Result<void> reads() {
    schedule.point();
    if (!alive() || schedule.fate() == RequestFate::lost) return broken(false);
    return {};
  }
  // A transaction of one statement, committed durably. `statement` must hold copies of what it
  // needs.
  template <class Statement>
  auto writes(Statement statement) -> decltype(statement());
};

class SimReader : public Reader {
 public:
  explicit SimReader(SimDatabase& session) : session_(session) {}
  void reset(const Cursor& cursor) override;
  Result<void> want() override;
  Result<bool> advance() override;
  std::optional<Page> take() override;
  Result<Page> reread(const Batch& batch) override;

 private:
  enum class Step { idle, polling, copying, done };
  void nothing_found(const Snapshot& upto);

  SimDatabase& session_;
  std::optional<Cursor> cursor_;
  Step step_ = Step::idle;
  std::optional<Page> page_;
};

class SimJournal : public Journal {
 public:
  explicit SimJournal(SimDatabase& session) : session_(session) {}
  Result<std::optional<Batch>> newest() override;
  Result<std::optional<Predecessor>> before(std::int64_t number) override;
  Result<bool> knows(const Uuid& token) override;
  Result<void> open(Batch& next, std::span<const Rejection> parked,
                    const std::optional<Confirmed>& confirmed, bool renew_lease) override;
  Result<bool> open_release(Batch& next, const std::optional<Confirmed>& confirmed) override;
  Result<void> mark_delivered(std::int64_t epoch, const Confirmed& confirmed) override;
  Result<void> park(std::int64_t epoch, const Batch& batch,
                    std::span<const Rejection> parked) override;
  Result<std::vector<std::string>> topics_with_blocked_keys(std::size_t count_max) override;
  Result<std::vector<std::size_t>> blocked(std::int64_t number,
                                           std::span<const Message* const> messages) override;

 private:
  SimDatabase& session_;
};

class SimLease : public Lease {
 public:
  explicit SimLease(SimDatabase& session) : session_(session) {}
  Result<bool> available() override;
  Result<std::optional<Taken>> take() override;
  Result<void> renew() override;
  Result<void> resign() override;
  bool held() const override {
    return epoch_ != 0 && session_.schedule.now() < sign_of_life_ + session_.options.lease_ttl;
  }
  bool due() const override {
    return session_.schedule.now() >= sign_of_life_ + session_.options.lease_ttl / 3;
  }
  void extended(Clock::time_point sent) override { sign_of_life_ = sent; }

 private:
  SimDatabase& session_;
  std::int64_t epoch_ = 0;
  Clock::time_point sign_of_life_{};
  LeaseRow seen_{-1, 0, {}};
  Clock::time_point unchanged_since_{};
};

// Without a thread of its own: what retention deletes is one of the things that happen in between.
class SimMaintenance : public Maintenance {
 public:
  explicit SimMaintenance(SimDatabase& session) : session_(session) {}
  void start(std::int64_t) override { started_ = true; }
  void stop() override { started_ = false; }
  bool found_releasable() override;

 private:
  SimDatabase& session_;
  bool started_ = false;
};

// Which message is this, and what will Kafka say to it?
int id_of(const Message& m);
Trait trait_of(const Message& m);

template <class Statement>
auto SimDatabase::writes(Statement statement) -> decltype(statement()) {
  schedule.point();
  if (!alive()) return broken(false);
  switch (schedule.fate()) {
    case RequestFate::arrives: break;
    case RequestFate::answer_lost: static_cast<void>(statement()); return broken(true);
    case RequestFate::late:
      database.late.emplace_back([statement]() mutable { static_cast<void>(statement()); });
      return broken(true);
    case RequestFate::lost: return broken(true);
  }
  auto result = statement();
  schedule.point();
  return result;
}

}  // namespace relay::sim
