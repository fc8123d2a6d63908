// SPDX-License-Identifier: Apache-2.0
// replay: delivered messages are enqueued again, with the deduplication keys of old, in the order in which they were sent.
#include <cstdio>
#include <thread>

#include "relay/commands/commands.h"
#include "relay/commands/context.h"
#include "relay/commands/output.h"
#include "relay/postgres/journal.h"
#include "relay/postgres/page_query.h"
#include "relay/postgres/statements.h"

namespace outbox {
namespace {

struct Replay {
  std::int64_t number = 0;
  std::string since;
  std::string until;
  std::string topic;
  std::int64_t upto_batch = 0;
  std::int64_t messages = 0;
};

// What Kafka has got of a batch, as rows m; a replay is not replayed again.
std::string delivered_rows(const Batch& b, const std::string& topic_parameter) {
  postgres::PageQuery q{.bounds = b.bounds, .ends = true, .without_parked_for = b.number, .limit = b.messages};
  return "(select m.* from (" + (b.release ? postgres::released_rows_sql(b.number) : postgres::rows_sql(q)) + ") m where (" + topic_parameter +
         " = '' or m.topic = " + topic_parameter + ") and not coalesce(m.headers ? 'outbox-replay', false)) m";
}

// A time as the server writes it, in UTC, by ISO 8601.
std::string iso(std::string time) {
  if (time.size() < 22 || !time.ends_with("+00")) return time;  // infinity
  time[10] = 'T';
  return time.replace(time.size() - 3, 3, "Z");
}

// The times as the server understands them, and the end of now.
Result<Replay> range_of(postgres::PqxxSession& control, const ReplayOptions& o) {
  auto rows = control.run("reading the times", "select $1::timestamptz::text, coalesce(nullif($2, '')::timestamptz, clock_timestamp())::text",
                          o.since, o.until);
  if (!rows) {
    Error e = rows.error();
    if (e.connection_lost) return e;
    return Error{Fault::usage, "--since or --until is no time: " + e.what, "write it like 2026-11-24T12:00:00Z"};
  }
  return Replay{0, (*rows)[0][0].c_str(), (*rows)[0][1].c_str(), o.topic, 0, 0};
}

Result<Replay> interrupted(postgres::PqxxSession& control, std::int64_t number) {
  auto rows = control.run("looking for the replay",
                          "select r.number, r.since::text, r.until::text, coalesce(r.topic, ''), coalesce(r.upto_batch, 0), r.messages "
                          "from outbox.replay r where r.number = $1 and r.finished_at is null", number);
  if (!rows) return for_person(rows.error(), "outbox_operator");
  if (rows->empty()) return Error{Fault::absent, "no unfinished replay has the number " + std::to_string(number), "see the table outbox.replay"};
  const auto row = (*rows)[0];
  return Replay{row[0].as<std::int64_t>(), row[1].c_str(), row[2].c_str(), row[3].c_str(), row[4].as<std::int64_t>(), row[5].as<std::int64_t>()};
}

Result<void> record(postgres::PqxxSession& control, Replay& r, const ReplayOptions& o) {
  auto rows = control.run("recording the replay",
                          "insert into outbox.replay (since, until, topic, asked_by, why) values ($1::timestamptz, $2::timestamptz, nullif($3, ''), "
                          "coalesce(nullif($4, ''), session_user), nullif($5, '')) returning number", r.since, r.until, r.topic, o.by, o.why);
  if (!rows) return for_person(rows.error(), "outbox_operator");
  r.number = (*rows)[0][0].as<std::int64_t>();
  return {};
}

Result<std::optional<Batch>> next_batch(postgres::PqxxSession& control, const Replay& r) {
  auto rows = control.run("looking for the next batch", std::string("select ") + postgres::sql::batch_columns +
                          " from outbox.batch b where b.number > $1 and b.opened_at >= $2::timestamptz and b.opened_at < $3::timestamptz "
                          "and b.delivered_at is not null order by b.number limit 1", r.upto_batch, r.since, r.until);
  if (!rows) return for_person(rows.error(), "outbox_operator");
  if (rows->empty()) return std::optional<Batch>{};
  auto batch = postgres::batch_of((*rows)[0]);
  if (!batch) return batch.error();
  return std::optional<Batch>(std::move(*batch));
}

Result<std::int64_t> count(postgres::PqxxSession& control, const Replay& r, const Batch& b) {
  auto rows = control.run("counting messages", "select count(*) from " + delivered_rows(b, "$1"), r.topic);
  if (!rows) return for_person(rows.error(), "outbox_operator");
  return (*rows)[0][0].as<std::int64_t>();
}

// One batch, and that it is done, in one commit. Claimed first: whoever else carries on this replay must not insert it as well.
Result<std::int64_t> enqueue_again(postgres::PqxxSession& control, const Replay& r, const Batch& b) {
  auto rows = control.run("enqueueing messages again", R"(
    with claimed as materialized (
      select r.number from outbox.replay r
      where r.number = $2::bigint and r.finished_at is null and coalesce(r.upto_batch, 0) < $3 for update),
    again as (
      insert into outbox.message (topic, key, payload, headers, dedup_key)
      select m.topic, m.key, m.payload, coalesce(m.headers, '{}') || jsonb_build_object('outbox-replay', $2::text),
             coalesce(m.dedup_key, m.id::text)
      from claimed cross join )" + delivered_rows(b, "$1") + R"( order by m.seq returning 1)
    update outbox.replay r set upto_batch = $3, messages = r.messages + (select count(*) from again)
    from claimed c where r.number = c.number returning (select count(*) from again))",
                          r.topic, std::to_string(r.number), b.number);
  if (!rows) return for_person(rows.error(), "outbox_operator");
  if (rows->empty()) return Error{Fault::refused, "replay " + std::to_string(r.number) + " is carried on by somebody else", "let that one finish"};
  return (*rows)[0][0].as<std::int64_t>();
}

Result<void> carry_out(postgres::PqxxSession& control, Replay& r, const ReplayOptions& o) {
  auto next_at = Clock::now();
  while (true) {
    auto batch = next_batch(control, r);
    if (!batch) return batch.error();
    if (!*batch) return {};
    auto messages = o.dry_run ? count(control, r, **batch) : enqueue_again(control, r, **batch);
    if (!messages) return messages.error();
    r.upto_batch = (*batch)->number;
    r.messages += *messages;
    if (o.dry_run) continue;
    next_at = std::max(next_at, Clock::now() - Millis{1'000}) + Millis{1'000 * *messages / o.rows_per_second};
    std::this_thread::sleep_until(next_at);
  }
}

Result<void> finish(postgres::PqxxSession& control, const Replay& r) {
  auto rows = control.run("recording the end", "update outbox.replay r set finished_at = clock_timestamp() where r.number = $1", r.number);
  if (!rows) return rows.error();
  return {};
}

}  // namespace

int replay(const Config& config, const ReplayOptions& options) {
  auto control = open_control(config);
  if (!control) return report(control.error());
  auto r = options.resume ? interrupted(**control, *options.resume) : range_of(**control, options);
  if (!r) return report(r.error());
  if (options.dry_run) r->messages = 0;  // what an interrupted one has done is not to be done again
  if (!options.resume && !options.dry_run) {
    if (auto recorded = record(**control, *r, options); !recorded) return report(recorded.error());
  }
  if (auto done = carry_out(**control, *r, options); !done) {
    const int code = report(done.error());
    const auto number = static_cast<long long>(r->number);
    if (number != 0) std::fprintf(stderr, "HINT: `outbox-relay replay --resume %lld` goes on behind what was done\n", number);
    return code;
  }
  if (!options.dry_run) {
    if (auto finished = finish(**control, *r); !finished) return report(finished.error());
  }
  if (options.json) {
    Json j = json_answer();
    j["replay"] = r->number == 0 ? Json() : Json(r->number);
    j["messages"] = r->messages;
    j["since"] = iso(r->since);
    j["until"] = iso(r->until);
    j["dry_run"] = options.dry_run;
    print_json(j);
  }
  if (r->messages == 0 && !options.json) {
    return report({Fault::absent, "no batch between " + r->since + " and " + r->until + " has a delivered message that is kept",
                   "retention.keep says how long messages are kept"});
  }
  if (!options.json) {
    std::printf("%lld messages %s\n", static_cast<long long>(r->messages),
                options.dry_run ? "would be enqueued again" : ("were enqueued again as replay " + std::to_string(r->number)).c_str());
  }
  return r->messages == 0 ? exit_code(Fault::absent) : 0;
}

}  // namespace outbox
