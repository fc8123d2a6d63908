// SPDX-License-Identifier: Apache-2.0
// Runs schedules of the protocol on modelled servers.
//
//   simulate [--schedules N] [--from SEED]     random ones
//   simulate --place-all                       each step with one crash and one late request
//
// Exit code 1: a guarantee was broken; the seed, or the place, that shows it is printed.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <limits>

#include "relay/base/clock.h"
#include "relay/base/log.h"
#include "tests/sim/placed_schedule.h"
#include "tests/sim/random_schedule.h"

namespace {

std::uint64_t current = 0;

void on_abort(int) {
  std::fprintf(stderr, "in the schedule with seed %llu\n",
               static_cast<unsigned long long>(current));
}

int run_placed() {
  const auto began = relay::Clock::now();
  const auto all =
      relay::sim::run_all_placed_schedules(0, std::numeric_limits<std::int64_t>::max());
  const std::chrono::duration<double> seconds = relay::Clock::now() - began;
  fmt::print("{} schedules, {:.0f} a second: {}\n", all.schedules,
             static_cast<double>(all.schedules) / seconds.count(),
             all.violation.empty() ? "every guarantee kept" : all.violation);
  return all.violation.empty() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  std::uint64_t schedules = 1'000'000;
  std::uint64_t from = 0;
  CLI::App app("Runs random schedules of the protocol on modelled servers.");
  app.add_option("--schedules", schedules, "how many")->capture_default_str();
  app.add_option("--from", from, "seed of the first")->capture_default_str();
  bool place_all = false;
  app.add_flag("--place-all", place_all,
               "every place of one crash and one late request, in place of random ones");
  CLI11_PARSE(app, argc, argv);
  std::signal(SIGABRT, on_abort);
  if (schedules > 1) relay::log::set_level(relay::log::Level::error);
  if (place_all) return run_placed();
  const auto began = relay::Clock::now();
  std::int64_t points = 0;
  for (current = from; current < from + schedules; ++current) {
    const auto result = relay::sim::run_random_schedule(current);
    points += result.points;
    if (result.violation.empty()) continue;
    fmt::print("seed {}: {}\n", current, result.violation);
    return 1;
  }
  const std::chrono::duration<double> seconds = relay::Clock::now() - began;
  fmt::print("{} schedules, {:.0f} a second, {:.1f} points each: every guarantee kept\n", schedules,
             static_cast<double>(schedules) / seconds.count(),
             static_cast<double>(points) / static_cast<double>(schedules));
}
