// SPDX-License-Identifier: Apache-2.0
#include "relay/postgres/scheduler.h"

#include "relay/postgres/statements.h"

namespace relay::postgres {

Result<std::int64_t> move_due(PqxxSession& control, const Options& options, std::int64_t epoch,
                              std::int64_t rows) {
  auto due = control.run("looking for scheduled messages", sql::find_due);
  if (!due) return due.error();
  if (due->empty()) return std::int64_t{0};
  std::string move = sql::move_due;
  // Without the right to lock a row, it is moved nevertheless.
  const std::string lock = " for update of d skip locked";
  if (!(*due)[0][0].as<bool>()) move.erase(move.find(lock), lock.size());
  auto moved = control.run("moving scheduled messages", move, epoch, options.holder, rows);
  if (!moved) return moved.error();
  return static_cast<std::int64_t>(moved->affected_rows());
}

}  // namespace relay::postgres
