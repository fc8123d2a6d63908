// SPDX-License-Identifier: Apache-2.0
// One outbox in one thread: an application that commits messages, an operator who decides about
// parked ones, up to two relays, and the modelled servers. What happens when, and what goes wrong,
// is decided by the class that derives from it.
#pragma once

#include <random>

#include "relay/core/loop.h"
#include "tests/sim/broker.h"
#include "tests/sim/database_ports.h"
#include "tests/sim/fiber.h"
#include "tests/sim/sim_producer.h"

namespace relay::sim {

constexpr int keys = 2;

struct SimulationOptions {
  KeyOrder order = KeyOrder::key;
  std::array<Mode, 2> modes{Mode::exactly_once, Mode::exactly_once};  // of each relay
  bool names_poison = true;
  std::size_t page_rows = 3;
  std::uint32_t seed = 0;
};

class Simulation {
 public:
  explicit Simulation(const SimulationOptions& options);
  virtual ~Simulation();
  Simulation(const Simulation&) = delete;
  Simulation& operator=(const Simulation&) = delete;

  // Runs until everything that was committed is settled; returns what was wrong, or nothing.
  // REQUIRES: called once.
  std::string run();
  std::int64_t points() const { return points_; }

 protected:
  // A relay process: dead, or in the middle of something.
  class Process : public FaultSchedule, public Poller {
   public:
    Process(Simulation& simulation, std::size_t index) : simulation_(simulation), index_(index) {}
    void start();
    bool alive() const { return !fiber_.ended(); }
    void resume() { fiber_.resume(); }
    // It dies where it is. Not to be called by itself.
    void kill();
    // It dies now. To be called by itself.
    [[noreturn]] void die() { throw Killed{}; }
    // It does nothing until then.
    void pause_for(Clock::duration time);
    void ask_to_stop() { stop_ = true; }
    std::size_t index() const { return index_; }
    Clock::time_point wakes_at() const { return wakes_at_; }

    void point() override;
    RequestFate fate() override { return simulation_.fate(*this); }
    bool maybe(unsigned one_in) override { return simulation_.maybe(one_in); }
    Clock::time_point now() const override { return simulation_.now_; }
    void wait(std::chrono::microseconds at_most) override { pause_for(at_most); }
    bool stop_requested() const override { return stop_; }
    bool restart_requested() const override { return false; }

   private:
    void life();
    Simulation& simulation_;
    const std::size_t index_;
    Fiber fiber_;
    Clock::time_point wakes_at_{};
    bool stop_ = false;
    bool killed_ = false;
  };

  // What happens at a point of this process.
  virtual void between(Process& process) = 0;
  virtual RequestFate fate(Process& process) = 0;
  virtual bool maybe(unsigned one_in) = 0;
  // Whether a process that is dead may be started now.
  virtual bool may_start(std::size_t index) = 0;
  // Whether nothing new will happen: no more messages, and nothing more goes wrong.
  virtual bool calm() const = 0;

  // The application's steps; each does nothing if it cannot be done.
  void app_begin(int key);
  void app_insert(std::size_t which, Trait trait);
  void app_end(std::size_t which, PostgresModel::Outcome outcome, bool durably);
  void operator_decides(std::size_t which, bool discard, bool fix);
  void database_crashes();
  void database_fails_over();
  std::size_t app_open() const { return open_.size(); }
  Process& process(std::size_t index) { return *processes_[index]; }
  std::size_t process_count() const { return processes_.size(); }

  PostgresModel database_;
  Broker broker_;
  Clock::time_point now_{std::chrono::hours(1)};

 private:
  struct OpenTransaction {
    Xid xid;
    int key;
    int messages;
    bool prepared;
  };
  bool settled() const;
  void start_dead();
  bool is_next(const Process& process);
  void step();
  std::string run_until_settled();

  const SimulationOptions options_;
  std::vector<OpenTransaction> open_;
  std::vector<std::unique_ptr<Process>> processes_;
  int last_id_ = 0;
  int last_holder_ = 0;
  std::int64_t points_ = 0;
  std::string stopped_;  // why a relay refused to go on
  bool failed_over_ = false;
  Clock::time_point nothing_open_at_{};
};

struct Expectations {
  KeyOrder order = KeyOrder::key;
  bool may_repeat = false;  // a message may arrive more than once
  bool went_back = false;  // the database lost commits that Kafka knows: what is committed now must
                           // have arrived, in order, no more
};

// What is wrong with what Kafka holds, compared with what was committed; empty: nothing.
std::string check_delivery(const PostgresModel& database, const Broker& broker,
                           const Expectations& expectations);

// What both hold, for the developer who looks for the reason.
std::string describe(const PostgresModel& database, const Broker& broker);

}  // namespace relay::sim
