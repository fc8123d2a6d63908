// SPDX-License-Identifier: Apache-2.0
#include "relay/postgres/maintenance.h"

#include <algorithm>

#include "relay/base/log.h"
#include "relay/postgres/connection.h"

namespace relay::postgres {
namespace {

constexpr std::int64_t due_rows = 2'000;
constexpr Millis due_interval{250};
constexpr Millis retry_interval{10'000};

}  // namespace

void PgMaintenance::start(std::int64_t epoch) {
  stop();
  stopping_ = false;
  found_releasable_ = false;
  thread_ = std::thread([this, epoch] { work(epoch); });
}

void PgMaintenance::stop() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

bool PgMaintenance::stopped_within(Millis wait) {
  std::unique_lock lock(mutex_);
  return wake_.wait_for(lock, wait, [this] { return stopping_; });
}

void PgMaintenance::work(std::int64_t epoch) {
  std::unique_ptr<PqxxSession> control;
  std::string last_error;
  Millis wait{0};
  while (!stopped_within(wait)) {
    auto done = connect_or_round(control, epoch);
    if (done) {
      wait = *done;
      last_error.clear();
      continue;
    }
    if (done.error().fault == Fault::fenced)
      return;  // the loop will notice, and start it again if the lease is ours again
    if (done.error().what != last_error)
      log::event(log::Level::warn, "maintenance_failed", {{"reason", done.error().text()}});
    last_error = done.error().what;
    control.reset();
    wait = retry_interval;
  }
}

Result<Millis> PgMaintenance::connect_or_round(std::unique_ptr<PqxxSession>& control,
                                               std::int64_t epoch) {
  if (control) return round(*control, epoch);
  auto connection = connection_string(options_.dsn, options_.password,
                                      "outbox-relay " + options_.relay + " maintenance");
  if (!connection) return connection.error();
  auto connected = PqxxSession::connect(*connection, options_.statement_limit(), options_.pooler);
  if (!connected) return with_password_source(connected.error(), options_.dsn, options_.password);
  control = std::move(*connected);
  scheduler_.start();
  retention_.start();
  parked_releases_.start();
  return Millis{0};
}

// A page of each; returns how long to wait.
Result<Millis> PgMaintenance::round(PqxxSession& control, std::int64_t epoch) {
  auto moved = scheduler_.move(control, epoch, due_rows);
  if (!moved) return moved.error();
  auto releasable = parked_releases_.look_for_decisions(control);
  if (!releasable) return releasable.error();
  if (*releasable) found_releasable_ = true;
  if (scheduler_.more()) return Millis{0};
  const auto stopping = [this] { return stopped_within(Millis{0}); };
  if (auto r = parked_releases_.release_by_rule(control, epoch, stopping); !r) return r.error();
  if (!retention_.due()) return due_interval;
  auto pause = retention_.run(control, epoch);
  if (!pause) return pause;
  return std::min(due_interval, *pause);
}

}  // namespace relay::postgres
