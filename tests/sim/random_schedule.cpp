// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/random_schedule.h"

#include "tests/sim/simulation.h"

namespace relay::sim {
namespace {

// A generator whose sequence is the same on every machine (SplitMix64, public domain constants).
class Chance {
 public:
  explicit Chance(std::uint64_t seed) : state_(seed) {}
  std::uint32_t below(std::uint32_t n) {
    state_ += 0x9e3779b97f4a7c15u;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return static_cast<std::uint32_t>(((z ^ (z >> 31)) >> 32) * n >> 32);
  }
  bool one_in(std::uint32_t n) { return below(n) == 0; }

 private:
  std::uint64_t state_;
};

SimulationOptions options_of(Chance& chance) {
  SimulationOptions o;
  o.order = chance.one_in(4) ? KeyOrder::message : KeyOrder::key;
  const auto mode = [&] { return chance.one_in(6) ? Mode::at_least_once : Mode::exactly_once; };
  o.modes[0] = mode();
  o.modes[1] = chance.one_in(3) ? mode() : o.modes[0];
  o.names_poison = !chance.one_in(3);
  o.page_rows = 1 + chance.below(4);
  o.seed = chance.below(1u << 31);
  return o;
}

class RandomSchedule : public Simulation {
 public:
  explicit RandomSchedule(Chance chance, const SimulationOptions& options)
      : Simulation(options),
        chance_(chance),
        relays_(1 + chance_.below(2)),
        transactions_(2 + chance_.below(7)),
        faults_(chance_.below(4)),
        bad_ways_(chance_.below(4)),
        poison_(chance_.one_in(3)),
        standby_(!poison_ && chance_.one_in(4)) {}

 private:
  void between(Process& process) override;
  RequestFate fate(Process&) override;
  bool maybe(unsigned one_in) override { return chance_.one_in(one_in); }
  bool may_start(std::size_t index) override { return index < relays_ && chance_.one_in(3); }
  bool calm() const override { return transactions_ == 0 && faults_ == 0 && bad_ways_ == 0; }
  void application();
  void servers();
  void fault(Process& process);

  Chance chance_;
  const std::size_t relays_;
  std::uint32_t transactions_;  // yet to begin
  std::uint32_t faults_;        // yet to happen
  std::uint32_t bad_ways_;      // requests that have yet to go wrong
  const bool poison_;
  const bool standby_;  // a server that lags, and is promoted in place of a crash; not with poison:
                        // it can lose what was parked
};

void RandomSchedule::between(Process& process) {
  switch (chance_.below(16)) {
    case 0:
    case 1:
    case 2:
    case 3: application(); break;
    case 4:
    case 5: servers(); break;
    case 6:
      if (faults_ > 0 && chance_.one_in(4)) {
        --faults_;
        fault(process);
      }
      break;
    case 7: process.pause_for({}); break;
    default: break;
  }
}

void RandomSchedule::application() {
  const auto open = static_cast<std::uint32_t>(app_open());
  if (transactions_ > 0 && (open == 0 || chance_.one_in(3))) {
    --transactions_;
    app_begin(chance_.one_in(5) ? no_key : static_cast<int>(chance_.below(keys)));
  } else if (open > 0) {
    const std::uint32_t which = chance_.below(open);
    switch (chance_.below(8)) {
      case 0: app_end(which, PostgresModel::Outcome::aborted, false); break;
      case 1: app_end(which, PostgresModel::Outcome::prepared, true); break;
      case 2:
      case 3:
      case 4: app_end(which, PostgresModel::Outcome::committed, chance_.one_in(2)); break;
      default:
        app_insert(which, !poison_ || !chance_.one_in(4) ? Trait::good
                          : chance_.one_in(2)            ? Trait::too_large
                                                         : Trait::refused);
    }
  }
}

void RandomSchedule::servers() {
  switch (chance_.below(6)) {
    case 0: database_.flush(); break;
    case 1: database_.prune(); break;
    case 2:
      if (!broker_.late.empty())
        broker_.arrive(chance_.below(static_cast<std::uint32_t>(broker_.late.size())));
      break;
    case 3:
      if (!database_.late.empty())
        database_.arrive(chance_.below(static_cast<std::uint32_t>(database_.late.size())));
      break;
    case 4: database_.replicate(); break;
    default:
      if (const auto parked = static_cast<std::uint32_t>(database_.now.parked.size()); parked > 0) {
        operator_decides(chance_.below(parked), chance_.one_in(3), !chance_.one_in(4));
      }
  }
}

void RandomSchedule::fault(Process& process) {
  Process& other = this->process(1 - process.index());
  switch (chance_.below(8)) {
    case 0:
    case 1: process.die();
    case 2:
      if (other.alive()) other.kill();
      break;
    case 3:
    case 4: standby_ ? database_fails_over() : database_crashes(); break;
    case 5: process.pause_for(Millis{chance_.below(1'500)}); break;
    case 6: broker_.time_out(); break;
    default: process.ask_to_stop();
  }
}

RequestFate RandomSchedule::fate(Process&) {
  if (bad_ways_ == 0 || !chance_.one_in(12)) return RequestFate::arrives;
  --bad_ways_;
  return static_cast<RequestFate>(1 + chance_.below(3));
}

}  // namespace

ScheduleResult run_random_schedule(std::uint64_t seed) {
  Chance chance(seed);
  const SimulationOptions options = options_of(chance);
  RandomSchedule schedule(chance, options);
  ScheduleResult result;
  result.violation = schedule.run();
  result.points = schedule.points();
  return result;
}

}  // namespace relay::sim
