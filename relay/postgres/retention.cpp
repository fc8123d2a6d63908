// SPDX-License-Identifier: Apache-2.0
#include "relay/postgres/retention.h"

#include <algorithm>

#include "relay/base/sabotage.h"
#include "relay/postgres/fence.h"

namespace outbox::postgres {
namespace {

constexpr std::int64_t page_rows = 2'000;
constexpr Millis prune_interval{10'000};  // between two looks when there is nothing to prune

}  // namespace

std::string horizon_sql(const std::string& keep) {
  // The oldest young stream batch, or if none is young, the newest; then back to the first one of
  // its difference, because the messages of a difference are kept together. It is bisected: there
  // can be millions of old ones. Whatever the clock did, what is found is a stream batch.
  return "with recursive old as materialized (select clock_timestamp() - " + keep +
         R"(::interval as until),
      search(lo, hi) as (
        select (select b.number from outbox.batch b where b.kind = 'stream' order by b.number limit 1),
               (select b.number + 1 from outbox.batch b where b.kind = 'stream' order by b.number desc limit 1)
        union all
        select case when x.opened_at <= (select o.until from old o) then x.number + 1 else s.lo end,
               case when x.opened_at <= (select o.until from old o) then s.hi else (s.lo + s.hi) / 2 end
        from search s left join lateral (
          select b.number, b.opened_at from outbox.batch b where b.number >= (s.lo + s.hi) / 2 and b.number < s.hi and b.kind = 'stream'
          order by b.number limit 1) x on true
        where s.lo < s.hi)
    select coalesce((select p.number + 1 from outbox.batch p where p.number < h.number and p.base::text <> h.base::text
                     order by p.number desc limit 1), 0) as number, h.base
    from outbox.batch h where h.number = coalesce(
      (select b.number from outbox.batch b where b.kind = 'stream' and b.number >= (select max(s.lo) from search s) order by b.number limit 1),
      (select b.number from outbox.batch b where b.kind = 'stream' order by b.number desc limit 1)))";
}

std::string unneeded_batches_sql(const std::string& horizon) {
  return "b.number < " + horizon +
         " and b.delivered_at is not null and b.number < (select min(k.number) from (select "
         "s.number "
         "from outbox.batch s where s.kind = 'stream' order by s.number desc limit 2) k) "
         "and not exists (select from outbox.parked p where p.parked_for = b.number) "
         "and not exists (select from outbox.parked p where p.released_in = b.number)";
}

Result<Pruned> prune_page(PqxxSession& control, const Options& options,
                          std::chrono::milliseconds keep, std::int64_t epoch, std::int64_t rows) {
  auto deleted =
      control.run("pruning messages",
                  fence_sql("$1", "$2") + ", horizon as materialized (" + horizon_sql("$3") + R"(),
    old as materialized (
      select m.seq from fence cross join horizon h cross join lateral (
        select m.seq from outbox.message m
        where m.txid < pg_snapshot_xmax(h.base) and pg_visible_in_snapshot(m.txid, h.base))" +
                      (SABOTAGED(retention_deletes_undelivered)
                           ? " or m.seq = (select max(k.seq) from outbox.message k)"
                           : "") +
                      R"(
        order by m.txid, m.seq limit $4) m),
    gone as (
      delete from outbox.message m using old o where m.seq = o.seq returning 1)
    select (select count(*) from gone), (select count(*) from fence), (select h.number from horizon h))",
                  epoch, options.holder, std::to_string(keep.count()) + " ms", rows);
  if (!deleted) return deleted.error();
  const auto row = (*deleted)[0];
  if (row[1].as<int>() == 0)
    return Error{Fault::fenced, "another relay holds the lease; nothing was pruned"};
  Pruned pruned{row[0].as<std::int64_t>(), 0, false};
  pruned.more = pruned.messages == rows;
  if (pruned.more || row[2].is_null()) return pruned;
  const auto horizon = row[2].as<std::int64_t>();

  // No kept message is visible in the base of the horizon, so none is of a batch before it. The
  // number is that of the statement above: found anew, the horizon could lie later than the
  // messages that were deleted.
  auto released =
      control.run("pruning released messages", fence_sql("$1", "$2") + R"(,
    old as materialized (
      select p.parked_for, p.seq from fence cross join lateral (
        select p.parked_for, p.seq from outbox.parked p where p.released_in < $3 and not exists (
          select from outbox.batch b where b.number = p.released_in and b.opened_at > clock_timestamp() - $4::interval)
        order by p.released_in limit $5) p)
    delete from outbox.parked p using old o where p.parked_for = o.parked_for and p.seq = o.seq)",
                  epoch, options.holder, horizon, std::to_string(keep.count()) + " ms", rows);
  if (!released) return released.error();
  auto journal = control.run("pruning the journal",
                             fence_sql("$1", "$2") + R"(,
    old as materialized (
      select b.number from fence cross join lateral (select b.number from outbox.batch b where )" +
                                 unneeded_batches_sql("$3") + R"(
        order by b.number limit $4) b)
    delete from outbox.batch b using old o where b.number = o.number)",
                             epoch, options.holder, horizon, rows);
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

}  // namespace outbox::postgres
