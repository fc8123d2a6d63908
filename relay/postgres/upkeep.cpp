// SPDX-License-Identifier: Apache-2.0
#include "relay/postgres/upkeep.h"

#include <algorithm>

#include "relay/base/log.h"
#include "relay/base/sabotage.h"

namespace outbox::postgres {
namespace {

constexpr std::int64_t page_rows = 2'000;
constexpr std::int64_t due_rows = 10'000;
constexpr Millis due_interval{250};
constexpr Millis prune_interval{10'000};  // between two looks when there is nothing to prune
constexpr Millis retry_interval{10'000};
constexpr Millis decisions_interval_max{10'000};
constexpr Millis topics_patience_min{1'000};
constexpr Millis topics_patience_max{60'000};
constexpr std::int64_t topics_max = 100;  // in one question

const std::string guard =
    "guard as materialized (select from outbox.lease l where l.epoch = $1 and l.holder = $2 for share)";

}  // namespace

std::string horizon_sql(const std::string& keep) {
  // The oldest young stream batch, or if none is young, the newest; then back to the first one of its difference, because
  // the messages of a difference are kept together. It is bisected: there can be millions of old ones. Whatever the clock did, what is
  // found is a stream batch.
  return "with recursive old as materialized (select clock_timestamp() - " + keep + R"(::interval as until),
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
  return "b.number < " + horizon + " and b.delivered_at is not null and b.number < (select min(k.number) from (select s.number "
         "from outbox.batch s where s.kind = 'stream' order by s.number desc limit 2) k) "
         "and not exists (select from outbox.parked p where p.parked_for = b.number) "
         "and not exists (select from outbox.parked p where p.released_in = b.number)";
}

Result<Pruned> prune_page(Control& control, const Options& options, std::chrono::milliseconds keep, std::int64_t epoch,
                          std::int64_t rows) {
  auto deleted = control.run("pruning messages", "with " + guard + ", horizon as materialized (" + horizon_sql("$3") + R"(),
    old as materialized (
      select m.seq from guard cross join horizon h cross join lateral (
        select m.seq from outbox.message m
        where m.txid < pg_snapshot_xmax(h.base) and pg_visible_in_snapshot(m.txid, h.base))" +
                             (SABOTAGED(retention_deletes_undelivered) ? " or m.seq = (select max(k.seq) from outbox.message k)" : "") + R"(
        order by m.txid, m.seq limit $4) m),
    gone as (
      delete from outbox.message m using old o where m.seq = o.seq returning 1)
    select (select count(*) from gone), (select count(*) from guard), (select h.number from horizon h))",
                             epoch, options.holder, std::to_string(keep.count()) + " ms", rows);
  if (!deleted) return deleted.error();
  const auto row = (*deleted)[0];
  if (row[1].as<int>() == 0) return Error{Fault::fenced, "another relay holds the lease; nothing was pruned"};
  Pruned pruned{row[0].as<std::int64_t>(), 0, false};
  pruned.more = pruned.messages == rows;
  if (pruned.more || row[2].is_null()) return pruned;
  const auto horizon = row[2].as<std::int64_t>();

  // No kept message is visible in the base of the horizon, so none is of a batch before it. The number is that of the statement
  // above: found anew, the horizon could lie later than the messages that were deleted.
  auto released = control.run("pruning released messages", "with " + guard + R"(,
    old as materialized (
      select p.parked_for, p.seq from guard cross join lateral (
        select p.parked_for, p.seq from outbox.parked p where p.released_in < $3 and not exists (
          select from outbox.batch b where b.number = p.released_in and b.opened_at > clock_timestamp() - $4::interval)
        order by p.released_in limit $5) p)
    delete from outbox.parked p using old o where p.parked_for = o.parked_for and p.seq = o.seq)",
                              epoch, options.holder, horizon, std::to_string(keep.count()) + " ms", rows);
  if (!released) return released.error();
  auto journal = control.run("pruning the journal", "with " + guard + R"(,
    old as materialized (
      select b.number from guard cross join lateral (select b.number from outbox.batch b where )" + unneeded_batches_sql("$3") + R"(
        order by b.number limit $4) b)
    delete from outbox.batch b using old o where b.number = o.number)",
                             epoch, options.holder, horizon, rows);
  if (!journal) return journal.error();
  pruned.batches = static_cast<std::int64_t>(journal->affected_rows());
  pruned.more = pruned.batches == rows || static_cast<std::int64_t>(released->affected_rows()) == rows;
  return pruned;
}

Result<std::int64_t> move_due(Control& control, const Options& options, std::int64_t epoch, std::int64_t rows) {
  // Looked at first, because the row lock of the guard costs a transaction id. The time in a subquery can be looked for in the index;
  // by itself it would be compared with all that lies in the future.
  auto due = control.run("looking for scheduled messages",
                         "select has_any_column_privilege('outbox.scheduled', 'update') from outbox.scheduled d "
                         "where d.deliver_at <= (select clock_timestamp()) order by d.deliver_at limit 1");
  if (!due) return due.error();
  if (due->empty()) return std::int64_t{0};
  // Whoever cancels a message may keep its transaction open. The guard's lock must not wait for that: it holds up the lease. Schemas
  // before version 3 do not give the right to lock a row.
  const char* const locked_by_nobody = (*due)[0][0].as<bool>() ? " for update of d skip locked" : "";
  auto moved = control.run("moving scheduled messages", "with " + guard + R"(,
    due as (
      delete from outbox.scheduled s using guard where s.ctid = any (array(
        select d.ctid from outbox.scheduled d where d.deliver_at <= (select clock_timestamp())
        order by d.deliver_at, d.seq limit $3)" + locked_by_nobody + R"())
      returning s.id, s.deliver_at, s.seq, s.topic, s.key, s.payload, s.headers, s.dedup_key, s.created_at)
    insert into outbox.message (id, topic, key, payload, headers, dedup_key, created_at)
    select d.id, d.topic, d.key, d.payload, d.headers, d.dedup_key, d.created_at from due d order by d.deliver_at, d.seq)",
                           epoch, options.holder, rows);
  if (!moved) return moved.error();
  return static_cast<std::int64_t>(moved->affected_rows());
}

void PgUpkeep::start(std::int64_t epoch) {
  stop();
  stopping_ = false;
  found_releasable_ = false;
  prune_at_ = Clock::now();
  topics_at_ = Clock::now();
  decisions_at_ = Clock::now();
  thread_ = std::thread([this, epoch] { work(epoch); });
}

void PgUpkeep::stop() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

bool PgUpkeep::stopped_within(Millis wait) {
  std::unique_lock lock(mutex_);
  return wake_.wait_for(lock, wait, [this] { return stopping_; });
}

void PgUpkeep::work(std::int64_t epoch) {
  std::unique_ptr<Control> control;
  std::string last_error;
  Millis wait{0};
  while (!stopped_within(wait)) {
    Result<Millis> done = Millis{0};
    if (!control) {
      auto connection = connection_string(options_.dsn, options_.password, "outbox-relay " + options_.relay + " upkeep");
      auto connected = connection ? Control::connect(*connection, options_.statement_limit(), options_.pooler)
                                  : Result<std::unique_ptr<Control>>(connection.error());
      if (connected) control = std::move(*connected);
      else done = connected.error();
    } else {
      done = round(*control, epoch);
    }
    if (done) {
      wait = *done;
      last_error.clear();
      continue;
    }
    if (done.error().fault == Fault::fenced) return;  // the loop will notice, and start anew if it is ours again
    if (done.error().what != last_error) log::event(log::Level::warn, "upkeep_failed", {{"reason", done.error().text()}});
    last_error = done.error().what;
    control.reset();
    wait = retry_interval;
  }
}

// A page of each; returns how long to wait.
Result<Millis> PgUpkeep::round(Control& control, std::int64_t epoch) {
  auto moved = move_due(control, options_, epoch, due_rows);
  if (!moved) return moved.error();
  if (auto r = look_for_decisions(control); !r) return r.error();
  if (*moved == due_rows) return Millis{0};
  if (Clock::now() >= topics_at_) {
    if (auto r = look_for_topics(control, epoch); !r) return r.error();
  }
  return Clock::now() < prune_at_ ? due_interval : prune(control, epoch);
}

// Decisions that wait for other ones are looked at each time: what takes long is done less often, a tenth of the time at most.
Result<void> PgUpkeep::look_for_decisions(Control& control) {
  const auto began = Clock::now();
  if (began < decisions_at_) return {};
  const auto releasable = any_releasable(control, options_);
  if (!releasable) return releasable.error();
  if (*releasable) found_releasable_ = true;
  decisions_at_ = began + std::clamp<Clock::duration>(10 * (Clock::now() - began), due_interval, decisions_interval_max);
  return {};
}

// One question to the cluster about all topics that are missing, ever more seldom while none of them appears.
Result<void> PgUpkeep::look_for_topics(Control& control, std::int64_t epoch) {
  topics_patience_ = std::clamp(topics_patience_ * 2, topics_patience_min, topics_patience_max);
  auto missing = missing_topics(control, topics_max);
  if (!missing) return missing.error();
  std::vector<std::string> found;
  if (missing->empty()) {
    topics_patience_ = topics_patience_min;
  } else if (auto exist = topics_that_exist_(*missing)) {
    found = std::move(*exist);
  }  // else the cluster is away, and the loop says so
  for (const std::string& topic : found) {
    std::int64_t messages = 0;
    for (std::int64_t decided = page_rows; decided == page_rows && !stopped_within(Millis{0});) {
      auto r = release_found_topic(control, options_, epoch, topic, page_rows);
      if (!r) return r.error();
      decided = *r;
      messages += decided;
    }
    if (messages == 0) continue;  // somebody else holds them
    log::event(log::Level::info, "topic_found", {{"topic", topic}, {"messages", messages}});
    topics_patience_ = topics_patience_min;
  }
  topics_at_ = Clock::now() + topics_patience_;
  return {};
}

// Keeps its pace.
Result<Millis> PgUpkeep::prune(Control& control, std::int64_t epoch) {
  const auto began = Clock::now();
  auto pruned = prune_page(control, options_, retention_.keep, epoch, page_rows);
  if (!pruned) return pruned.error();
  if (!pruned->more) {
    prune_at_ = began + prune_interval;
    return due_interval;
  }
  prune_at_ = began + Millis{1000 * page_rows / retention_.rows_per_second};
  return std::min(due_interval, std::chrono::duration_cast<Millis>(std::max(prune_at_ - Clock::now(), Clock::duration::zero())));
}

}  // namespace outbox::postgres
