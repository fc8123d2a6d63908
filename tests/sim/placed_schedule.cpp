// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/placed_schedule.h"

#include <algorithm>

#include "tests/sim/simulation.h"

namespace relay::sim {
namespace {

constexpr std::int64_t late_commit_at = 40;  // of a transaction that was open from the beginning
constexpr std::int64_t second_commit_at = 25;
constexpr Millis pause{1'200};  // longer than two leases

class PlacedSchedule : public Simulation {
 public:
  explicit PlacedSchedule(const Place& place) : Simulation({}), place_(place) {
    app_begin(0);  // ends late
    app_insert(0, Trait::good);
    app_begin(1);
    for (int i = 0; i < 4; ++i) app_insert(1, Trait::good);
    app_end(1, PostgresModel::Outcome::committed, false);  // visible, not durable
    app_begin(1);
    app_insert(1, Trait::good);
    app_insert(1, Trait::good);
  }
  const PlacedResult& result() const { return result_; }

 private:
  void between(Process& process) override;
  RequestFate fate(Process& process) override;
  bool maybe(unsigned) override { return false; }
  bool may_start(std::size_t index) override { return index == 0 || standby_; }
  bool calm() const override {
    return (place_.blow == Blow::none || blown_) && (!sent_ || arrived_) && app_done_ == 2;
  }
  void strike(Process& process);

  const Place place_;
  PlacedResult result_;
  bool standby_ = false;
  bool blown_ = false;
  bool sent_ = false;
  bool arrived_ = false;
  int app_done_ = 0;
};

void PlacedSchedule::between(Process& process) {
  const std::int64_t at = points() - 1;
  if (app_done_ == 0 && at >= second_commit_at) {
    ++app_done_;
    if (app_open() == 2) app_end(1, PostgresModel::Outcome::committed, true);
  }
  if (app_done_ == 1 && at >= late_commit_at) {
    ++app_done_;
    app_end(0, PostgresModel::Outcome::committed, false);
  }
  if (sent_ && !arrived_ && at >= place_.arrives_at) {
    arrived_ = true;
    result_.was_late = !broker_.late.empty() || !database_.late.empty();
    if (!broker_.late.empty()) broker_.arrive(0);
    if (!database_.late.empty()) database_.arrive(0);
  }
  if (place_.blow != Blow::none && !blown_ && at >= place_.blow_at) {
    blown_ = true;
    strike(process);
  }
}

void PlacedSchedule::strike(Process& process) {
  switch (place_.blow) {
    case Blow::none: break;
    case Blow::relay_killed: process.die();
    case Blow::database_crashes: database_crashes(); break;
    case Blow::relay_paused:
      standby_ = true;
      process.pause_for(pause);
      break;
    case Blow::transaction_times_out: broker_.time_out(); break;
  }
}

RequestFate PlacedSchedule::fate(Process&) {
  if (result_.requests++ != place_.request) return RequestFate::arrives;
  sent_ = true;
  arrived_ = place_.fate != RequestFate::late;
  result_.sent_at = points();
  return place_.fate;
}

}  // namespace

std::string Place::text() const {
  static constexpr const char* blows[] = {"nothing", "the relay is killed", "the database crashes",
                                          "the relay is paused", "the transaction times out"};
  static constexpr const char* ways[] = {"arrives", "is not answered", "is late", "is lost"};
  return std::string(blows[static_cast<int>(blow)]) + " at point " + std::to_string(blow_at) +
         "; request " + std::to_string(request) + " " + ways[static_cast<int>(fate)] +
         (fate == RequestFate::late ? " until point " + std::to_string(arrives_at) : "");
}

PlacedResult run_placed_schedule(const Place& place) {
  PlacedSchedule schedule(place);
  std::string violation = schedule.run();
  PlacedResult result = schedule.result();
  result.points = schedule.points();
  if (!violation.empty()) result.violation = place.text() + ": " + violation;
  return result;
}

Enumeration run_all_placed_schedules(std::int64_t request_from, std::int64_t request_to) {
  Enumeration all;
  const auto run = [&](const Place& place) {
    ++all.schedules;
    const PlacedResult r = run_placed_schedule(place);
    if (!r.violation.empty()) all.violation = r.violation;
    return r;
  };
  const PlacedResult quiet = run({});
  for (std::int64_t request = request_from; request < std::min(request_to, quiet.requests);
       ++request) {
    for (int blow = 0; blow <= static_cast<int>(last_blow); ++blow) {
      for (std::int64_t at = 0; at <= (blow == 0 ? 0 : quiet.points); ++at) {
        Place place{static_cast<Blow>(blow), at, request, RequestFate::answer_lost, 0};
        run(place);
        place.fate = RequestFate::lost;
        std::int64_t arrives_at = run(place).sent_at;
        place.fate = RequestFate::late;
        // Until the run is over before it arrives, or a crash has swallowed it.
        for (PlacedResult r{{}, arrives_at + 1, 0, 0, true};
             arrives_at < r.points && all.violation.empty(); ++arrives_at) {
          place.arrives_at = arrives_at;
          r = run(place);
          if (!r.was_late) break;
        }
        if (!all.violation.empty()) return all;
      }
    }
  }
  return all;
}

}  // namespace relay::sim
