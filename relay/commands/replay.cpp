// SPDX-License-Identifier: Apache-2.0
// replay: enqueues delivered messages again, with their deduplication keys, in the order in which
// they were sent.
#include <cstdio>
#include <memory>
#include <thread>

#include "relay/commands/commands.h"
#include "relay/commands/context.h"
#include "relay/commands/output.h"
#include "relay/postgres/journal.h"
#include "relay/postgres/page_query.h"
#include "relay/postgres/statements.h"

namespace relay {
namespace {

struct ReplayOptions {
  std::string since;                   // times as PostgreSQL reads them
  std::string until;                   // empty: now
  std::string topic;                   // empty: all
  std::optional<std::int64_t> resume;  // number of an interrupted replay, instead of the three
  std::string why;
  std::string by;  // empty: the login of the database
  std::int64_t messages_per_second = 20'000;
  bool dry_run = false;
  bool json = false;
};

struct Replay {
  std::int64_t number = 0;
  std::string since;
  std::string until;
  std::string topic;
  std::int64_t upto_batch = 0;
  std::int64_t messages = 0;
};

// The delivered messages of a batch, as rows m. Messages of a replay are not replayed.
std::string delivered_rows(const Batch& b, const std::string& topic_parameter) {
  postgres::PageQuery q{
      .bounds = b.bounds, .ends = true, .without_parked_for = b.number, .limit = b.messages};
  return "(select m.* from (" +
         (b.release ? postgres::released_rows_sql(b.number) : postgres::rows_sql(q)) +
         ") m where (" + topic_parameter + " = '' or m.topic = " + topic_parameter +
         ") and not coalesce(m.headers ? 'outbox-replay', false)) m";
}

// A time as the server writes it, in UTC, by ISO 8601.
std::string iso(std::string time) {
  if (time.size() < 22 || !time.ends_with("+00")) return time;  // infinity
  time[10] = 'T';
  return time.replace(time.size() - 3, 3, "Z");
}

// The times as the server parses them; `until` defaults to now.
Result<Replay> range_of(postgres::PqxxSession& control, const ReplayOptions& o) {
  auto rows = control.run("reading the times",
                          "select $1::timestamptz::text, coalesce(nullif($2, '')::timestamptz, "
                          "clock_timestamp())::text",
                          o.since, o.until);
  if (!rows) {
    Error e = rows.error();
    if (e.connection_lost) return e;
    return Error{Fault::usage, "--since or --until is not a time: " + e.what,
                 "write it like 2026-11-24T12:00:00Z"};
  }
  return Replay{0, (*rows)[0][0].c_str(), (*rows)[0][1].c_str(), o.topic, 0, 0};
}

Result<Replay> interrupted(postgres::PqxxSession& control, std::int64_t number) {
  auto rows = control.run("looking for the replay",
                          "select r.number, r.since::text, r.until::text, coalesce(r.topic, ''), "
                          "coalesce(r.upto_batch, 0), r.messages "
                          "from outbox.replay r where r.number = $1 and r.finished_at is null",
                          number);
  if (!rows) return for_operator(rows.error(), "outbox_operator");
  if (rows->empty())
    return Error{Fault::absent, "no unfinished replay has the number " + std::to_string(number),
                 "see the table outbox.replay"};
  const auto row = (*rows)[0];
  return Replay{row[0].as<std::int64_t>(), row[1].c_str(),           row[2].c_str(), row[3].c_str(),
                row[4].as<std::int64_t>(), row[5].as<std::int64_t>()};
}

Result<void> record(postgres::PqxxSession& control, Replay& r, const ReplayOptions& o) {
  auto rows =
      control.run("recording the replay",
                  "insert into outbox.replay (since, until, topic, asked_by, why) values "
                  "($1::timestamptz, $2::timestamptz, nullif($3, ''), "
                  "coalesce(nullif($4, ''), session_user), nullif($5, '')) returning number",
                  r.since, r.until, r.topic, o.by, o.why);
  if (!rows) return for_operator(rows.error(), "outbox_operator");
  r.number = (*rows)[0][0].as<std::int64_t>();
  return {};
}

Result<std::optional<Batch>> next_batch(postgres::PqxxSession& control, const Replay& r) {
  auto rows = control.run("looking for the next batch",
                          std::string("select ") + postgres::sql::batch_columns +
                              " from outbox.batch b where b.number > $1 and b.opened_at >= "
                              "$2::timestamptz and b.opened_at < $3::timestamptz "
                              "and b.delivered_at is not null order by b.number limit 1",
                          r.upto_batch, r.since, r.until);
  if (!rows) return for_operator(rows.error(), "outbox_operator");
  if (rows->empty()) return std::optional<Batch>{};
  auto batch = postgres::batch_of((*rows)[0]);
  if (!batch) return batch.error();
  return std::optional<Batch>(std::move(*batch));
}

Result<std::int64_t> count(postgres::PqxxSession& control, const Replay& r, const Batch& b) {
  auto rows =
      control.run("counting messages", "select count(*) from " + delivered_rows(b, "$1"), r.topic);
  if (!rows) return for_operator(rows.error(), "outbox_operator");
  return (*rows)[0][0].as<std::int64_t>();
}

// Enqueues one batch and records that it is done, in one commit. Claims the replay first: no other
// process may enqueue the batch as well.
Result<std::int64_t> enqueue_again(postgres::PqxxSession& control, const Replay& r,
                                   const Batch& b) {
  auto rows = control.run("enqueueing messages again",
                          R"(
    with claimed as materialized (
      select r.number from outbox.replay r
      where r.number = $2::bigint and r.finished_at is null and coalesce(r.upto_batch, 0) < $3
      for update),
    again as (
      insert into outbox.message (topic, key, payload, headers, dedup_key)
      select m.topic, m.key, m.payload,
             coalesce(m.headers, '{}') || jsonb_build_object('outbox-replay', $2::text),
             coalesce(m.dedup_key, m.id::text)
      from claimed cross join )" +
                              delivered_rows(b, "$1") + R"( order by m.seq returning 1)
    update outbox.replay r set upto_batch = $3, messages = r.messages + (select count(*) from again)
    from claimed c where r.number = c.number returning (select count(*) from again))",
                          r.topic, std::to_string(r.number), b.number);
  if (!rows) return for_operator(rows.error(), "outbox_operator");
  if (rows->empty())
    return Error{Fault::refused,
                 "replay " + std::to_string(r.number) + " is being resumed by another process",
                 "wait until it has finished"};
  return (*rows)[0][0].as<std::int64_t>();
}

Result<void> enqueue_batches(postgres::PqxxSession& control, Replay& r, const ReplayOptions& o) {
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
    next_at = std::max(next_at, Clock::now() - Millis{1'000}) +
              Millis{1'000 * *messages / o.messages_per_second};
    std::this_thread::sleep_until(next_at);
  }
}

Result<void> finish(postgres::PqxxSession& control, const Replay& r) {
  auto rows = control.run(
      "recording the end",
      "update outbox.replay r set finished_at = clock_timestamp() where r.number = $1", r.number);
  if (!rows) return rows.error();
  return {};
}

int print_result(const Replay& r, const ReplayOptions& options) {
  const int code = r.messages == 0 ? exit_code(Fault::absent) : 0;
  if (options.json) {
    Json j = json_answer();
    j["replay"] = r.number == 0 ? Json() : Json(r.number);
    j["messages"] = r.messages;
    j["since"] = iso(r.since);
    j["until"] = iso(r.until);
    j["dry_run"] = options.dry_run;
    print_json(j);
    return code;
  }
  if (r.messages == 0) {
    return report({Fault::absent,
                   "no batch between " + r.since + " and " + r.until +
                       " has delivered messages that are still stored",
                   "retention.keep sets how long messages are kept"});
  }
  std::printf("%lld messages %s\n", static_cast<long long>(r.messages),
              options.dry_run
                  ? "would be enqueued again"
                  : ("were enqueued again as replay " + std::to_string(r.number)).c_str());
  return code;
}

int replay(const Config& config, const ReplayOptions& options) {
  auto control = open_control(config);
  if (!control) return report(control.error());
  auto r = options.resume ? interrupted(**control, *options.resume) : range_of(**control, options);
  if (!r) return report(r.error());
  if (options.dry_run) r->messages = 0;  // counts only what is still to do
  if (!options.resume && !options.dry_run) {
    if (auto recorded = record(**control, *r, options); !recorded) return report(recorded.error());
  }
  if (auto done = enqueue_batches(**control, *r, options); !done) {
    const int code = report(done.error());
    const auto number = static_cast<long long>(r->number);
    if (number != 0)
      std::fprintf(stderr,
                   "HINT: `outbox-relay replay --resume %lld` continues after the last batch\n",
                   number);
    return code;
  }
  if (!options.dry_run) {
    if (auto finished = finish(**control, *r); !finished) return report(finished.error());
  }
  return print_result(*r, options);
}

std::optional<Error> validate(const ReplayOptions& options) {
  if (options.since.empty() != options.resume.has_value()) {
    return Error{Fault::usage, "replay: give either --since or --resume"};
  }
  return std::nullopt;
}

std::vector<CommandOption> command_options(ReplayOptions& o) {
  return {
      {.name = "--since",
       .value = &o.since,
       .placeholder = "TIME",
       .text = "Replay messages of batches that were opened at this time or later, such as "
               "2026-11-24T12:00:00Z."},
      {.name = "--until",
       .value = &o.until,
       .placeholder = "TIME",
       .text = "And before this time. Defaults to now.",
       .check = ValueCheck::not_empty,
       .excludes = {"--resume"}},
      {.name = "--topic",
       .value = &o.topic,
       .placeholder = "TOPIC",
       .text = "Only messages of this topic. Defaults to all topics.",
       .check = ValueCheck::not_empty,
       .excludes = {"--resume"}},
      {.name = "--resume",
       .value = &o.resume,
       .placeholder = "N",
       .text =
           "Continue the interrupted replay of this number instead, with its times and its topic."},
      {.name = "--rate",
       .value = &o.messages_per_second,
       .placeholder = "N",
       .text = "Enqueue at most N messages per second. Defaults to 20000.",
       .check = ValueCheck::positive},
      {.name = "--dry-run", .value = &o.dry_run, .text = "Only count the messages."},
      why_option(&o.why, false),
      by_option(&o.by),
      json_option(&o.json),
  };
}

constexpr std::string_view replay_reference = R"(
The new messages have their own `id` and `seq`, and the deduplication key of the original:
`coalesce(dedup_key, id::text)`. The table `outbox.replay` records who requested the replay, when
and why. Messages of an earlier replay are not replayed. Messages that retention has deleted cannot
be replayed.

Each batch is enqueued in one transaction, which also records that it is done: an interrupted replay
can be resumed without gaps or duplicates. The keys are not locked: replayed messages of a key keep
their order among themselves, and interleave with new messages of the key.

JSON: `replay` (its number), `messages`, `since`, `until`, `dry_run`.
)";

}  // namespace

Command replay_command() {
  const auto options = std::make_shared<ReplayOptions>();
  return {
      .name = "replay",
      .summary =
          "Enqueues delivered messages again, batch by batch, in the order in which they were "
          "sent.",
      .details =
          "The messages keep their deduplication keys, so a consumer that stores the keys discards "
          "them as duplicates. Use it for a "
          "consumer that lost its results, or for a new one. The messages have the header "
          "outbox-replay with the number of "
          "the replay. Needs the role outbox_operator.",
      .options = command_options(*options),
      .exit_codes =
          {done_code, {1, "nothing to replay"}, usage_code, postgres_code, right_missing_code},
      .reference = replay_reference,
      .examples = {{"replay --since 2026-11-24T12:00:00Z --dry-run",
                    "Counts the messages since this time."},
                   {"replay --resume 3", "Continues replay 3."}},
      .validate = [options] { return validate(*options); },
      .run = with_database([options](const Config& config) { return replay(config, *options); }),
  };
}

}  // namespace relay
