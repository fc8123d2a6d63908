// SPDX-License-Identifier: Apache-2.0
#include "relay/postgres/retention.h"

#include <algorithm>

#include "relay/base/mutants.h"
#include "relay/postgres/statements.h"

namespace relay::postgres {
namespace {

constexpr std::int64_t page_rows = 2'000;
constexpr Millis prune_interval{10'000};  // between two looks when there is nothing to prune

}  // namespace

Result<Pruned> prune_page(PqxxSession& control, const Options& options,
                          std::chrono::milliseconds keep, std::int64_t epoch, std::int64_t rows) {
  const std::string keep_ms = std::to_string(keep.count()) + " ms";
  std::string messages = sql::prune_messages;
  if (MUTANT(retention_deletes_undelivered)) {
    const std::string order = "order by m.txid, m.seq limit";
    messages.insert(messages.find(order), "or m.seq = (select max(k.seq) from outbox.message k) ");
  }
  auto deleted = control.run("pruning messages", messages, epoch, options.holder, keep_ms, rows);
  if (!deleted) return deleted.error();
  const auto row = (*deleted)[0];
  if (row[1].as<int>() == 0)
    return Error{Fault::fenced, "another relay holds the lease; nothing was pruned"};
  Pruned pruned{row[0].as<std::int64_t>(), 0, false};
  pruned.more = pruned.messages == rows;
  if (pruned.more || row[2].is_null()) return pruned;
  const auto horizon = row[2].as<std::int64_t>();

  // The number is that of the statement above: found again, the horizon could lie later than the
  // messages that were deleted.
  auto released = control.run("pruning released messages", sql::prune_released, epoch,
                              options.holder, horizon, keep_ms, rows);
  if (!released) return released.error();
  auto journal =
      control.run("pruning the journal", sql::prune_batches, epoch, options.holder, horizon, rows);
  if (!journal) return journal.error();
  pruned.batches = static_cast<std::int64_t>(journal->affected_rows());
  pruned.more =
      pruned.batches == rows || static_cast<std::int64_t>(released->affected_rows()) == rows;
  return pruned;
}

// Keeps its pace.
Result<Millis> Retention::run(PqxxSession& control, std::int64_t epoch) {
  const auto began = Clock::now();
  auto pruned = prune_page(control, options_, retention_.keep, epoch, page_rows);
  if (!pruned) return pruned.error();
  if (!pruned->more) {
    prune_at_ = began + prune_interval;
    return prune_interval;
  }
  prune_at_ = began + Millis{1000 * page_rows / retention_.rows_per_second};
  return std::chrono::duration_cast<Millis>(
      std::max(prune_at_ - Clock::now(), Clock::duration::zero()));
}

}  // namespace relay::postgres
