// SPDX-License-Identifier: Apache-2.0
#include "relay/postgres/retention.h"

#include <algorithm>

#include "relay/base/mutants.h"
#include "relay/postgres/statements.h"

namespace relay::postgres {
namespace {

constexpr std::int64_t page_rows = 2'000;
constexpr Millis prune_interval{10'000};  // between two looks when there is nothing to prune

std::string seq_array(const pqxx::result& rows) {
  std::string out = "{";
  for (const auto& row : rows) out += (out.size() > 1 ? "," : "") + std::string(row[1].c_str());
  return out + "}";
}

// None, as long as there is no batch.
Result<void> find_horizon(PqxxSession& control, std::chrono::milliseconds keep,
                          PrunePosition& position) {
  auto rows = control.run("looking for the horizon of retention", sql::find_horizon,
                          interval_text(keep), position.batch);
  if (!rows) return rows.error();
  if (rows->empty()) return {};
  const auto row = (*rows)[0];
  position.horizon = {row[0].as<std::int64_t>(), row[1].as<std::int64_t>(), row[2].c_str()};
  if (position.deleted.empty()) position.deleted = row[3].c_str();
  position.txid = "0";
  position.seq = 0;
  return {};
}

// Messages of the horizon. Without any, the statement still says whether the lease is ours.
Result<std::int64_t> prune_messages(PqxxSession& control, const Options& options,
                                    std::int64_t epoch, std::int64_t rows,
                                    PrunePosition& position) {
  pqxx::result found;
  if (position.horizon) {
    auto page = control.run("looking for messages to prune", sql::find_prunable, position.deleted,
                            position.horizon->base, position.txid, position.seq, rows);
    if (!page) return page.error();
    found = *page;
  }
  std::string statement = sql::prune_messages;
  if (MUTANT(retention_deletes_undelivered)) {
    const std::string visible = "m.seq = any ($3::bigint[]) and";
    statement.replace(statement.find(visible), visible.size(),
                      "m.seq = (select max(k.seq) from outbox.message k) or " + visible);
  }
  auto deleted = control.run("pruning messages", statement, epoch, options.holder, seq_array(found),
                             position.horizon ? position.horizon->batch : 0);
  if (!deleted) return deleted.error();
  if ((*deleted)[0][1].as<int>() == 0)
    return Error{Fault::fenced, "another relay holds the lease; nothing was pruned"};
  const auto count = static_cast<std::int64_t>(found.size());
  if (count > 0) {
    position.txid = found[found.size() - 1][0].c_str();
    position.seq = found[found.size() - 1][1].as<std::int64_t>();
  }
  return count;
}

// Releases and batches before `horizon`, a page of each.
Result<void> prune_journal(PqxxSession& control, const Options& options,
                           std::chrono::milliseconds keep, std::int64_t epoch, std::int64_t rows,
                           std::int64_t horizon, PrunePosition& position, Pruned& pruned) {
  auto released =
      control.run("pruning released messages", sql::prune_released, epoch, options.holder, horizon,
                  interval_text(keep), rows, position.released);
  if (!released) return released.error();
  position.released = (*released)[0][1].as<std::int64_t>();
  auto batches = control.run("pruning the journal", sql::prune_batches, epoch, options.holder,
                             horizon, rows, position.batch);
  if (!batches) return batches.error();
  pruned.batches = (*batches)[0][0].as<std::int64_t>();
  position.batch = (*batches)[0][1].as<std::int64_t>();
  pruned.more = pruned.batches == rows || (*released)[0][0].as<std::int64_t>() == rows;
  return {};
}

}  // namespace

Result<Pruned> prune_page(PqxxSession& control, const Options& options,
                          std::chrono::milliseconds keep, std::int64_t epoch, std::int64_t rows,
                          PrunePosition& position) {
  if (!position.horizon) {
    if (auto r = find_horizon(control, keep, position); !r) return r.error();
  }
  auto messages = prune_messages(control, options, epoch, rows, position);
  if (!messages) return messages.error();
  Pruned pruned{*messages, 0, *messages == rows};
  if (pruned.more || !position.horizon) return pruned;
  const auto horizon = *position.horizon;
  position.deleted = horizon.base;
  position.horizon.reset();
  if (auto r = prune_journal(control, options, keep, epoch, rows, horizon.number, position, pruned);
      !r)
    return r.error();
  return pruned;
}

void Retention::start() {
  prune_at_ = Clock::now();
  position_ = {};
  whole_journal_ = false;
  journal_pace_.reset();
}

// Keeps its pace. Now and then the whole journal is looked through: parked messages may have
// been released that kept batches in it.
Result<Millis> Retention::run(PqxxSession& control, std::int64_t epoch) {
  const auto began = Clock::now();
  if (!position_.horizon && journal_pace_.due()) {
    whole_journal_ = true;
    position_.released = position_.batch = 0;
  }
  auto pruned = prune_page(control, options_, retention_.keep, epoch, page_rows, position_);
  if (!pruned) return pruned.error();
  if (whole_journal_ && !position_.horizon) {
    whole_journal_ = false;
    journal_pace_.done(began);
  }
  if (!pruned->more) {
    prune_at_ = began + prune_interval;
    return prune_interval;
  }
  prune_at_ = began + Millis{1000 * page_rows / retention_.rows_per_second};
  return std::chrono::duration_cast<Millis>(
      std::max(prune_at_ - Clock::now(), Clock::duration::zero()));
}

}  // namespace relay::postgres
