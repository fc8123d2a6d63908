// SPDX-License-Identifier: Apache-2.0
#include "relay/postgres/scheduler.h"

#include "relay/postgres/statements.h"

namespace relay::postgres {
namespace {

constexpr std::int64_t page_bytes = 8 << 20;
constexpr const char* near = "5 s";

}  // namespace

void Scheduler::start() {
  last_ = {};
  more_ = false;
  near_.reset();
  whole_.reset();
}

Result<std::int64_t> Scheduler::move(PqxxSession& control, std::int64_t epoch, std::int64_t rows) {
  const auto began = Clock::now();
  Pace* const pace = more_ ? nullptr : whole_.due() ? &whole_ : near_.due() ? &near_ : nullptr;
  Place from = last_;
  if (pace == &whole_) from = {};
  if (pace == &near_) from = {last_.deliver_at, near, 0};
  auto moved = move_behind(from, control, epoch, rows);
  if (pace != nullptr) pace->done(began);
  return moved;
}

Result<std::int64_t> Scheduler::move_behind(const Place& place, PqxxSession& control,
                                            std::int64_t epoch, std::int64_t rows) {
  more_ = false;
  auto due = control.run("looking for scheduled messages", sql::find_due, place.deliver_at,
                         place.less, place.seq);
  if (!due) return due.error();
  if (due->empty()) return std::int64_t{0};
  std::string statement = sql::move_due;
  // Without the right to lock a row, it is moved nevertheless.
  const std::string lock = "for update of d skip locked";
  if (!(*due)[0][0].as<bool>()) statement.erase(statement.find(lock), lock.size());
  auto rows_moved = control.run("moving scheduled messages", statement, epoch, options_.holder,
                                rows, page_bytes, place.deliver_at, place.less, place.seq);
  if (!rows_moved) return rows_moved.error();
  const auto row = (*rows_moved)[0];
  const auto moved = row[0].as<std::int64_t>();
  if (moved == 0) return moved;
  last_ = {.deliver_at = row[2].c_str(), .seq = row[3].as<std::int64_t>()};
  more_ = row[1].as<bool>();
  return moved;
}

}  // namespace relay::postgres
