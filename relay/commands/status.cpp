// SPDX-License-Identifier: Apache-2.0
// status: the progress of the relay, as the database shows it.
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <memory>

#include "relay/commands/commands.h"
#include "relay/commands/context.h"
#include "relay/commands/output.h"

namespace relay {
namespace {

constexpr Millis answer_within{20'000};

struct StatusOptions {
  std::int64_t max_age = 0;  // in seconds; 0: any
  bool json = false;
  bool watch = false;  // every second, until SIGINT or SIGTERM
};

// One statement, so that all figures belong to one moment. Pending is everything that is not
// delivered: the open batch, and everything visible that the newest batch does not cover, which are
// rows of transactions that were running in its position, and rows of later ones, both along the
// index (txid, seq).
std::string status_sql() {
  return R"(
  with newest as materialized (
    select b.base, b.upto, b.upto_seq, b.exhausted
    from outbox.batch b order by b.number desc limit 1),
  place as materialized (
    select case when n.exhausted then n.upto else n.base end as base,
           case when not n.exhausted then n.upto end as upto, n.upto_seq
    from newest n
    union all select '3:3:'::pg_snapshot, null, 0 where not exists (select from newest)),
  pending as materialized (
    select count(*) as messages, min(u.seq) as first_seq
    from place p cross join lateral (
      select m.seq + 0 as seq, m.txid
      from pg_snapshot_xip(p.base) as x(id) join outbox.message m on m.txid = x.id
      union all
      select m.seq + 0, m.txid from outbox.message m where m.txid >= pg_snapshot_xmax(p.base)) u
    where p.upto is null or not pg_visible_in_snapshot(u.txid, p.upto) or u.seq > p.upto_seq),
  open_batch as materialized (
    select b.number, b.epoch, b.opened_at, b.messages,
           b.messages - (select count(*) from outbox.parked k where k.parked_for = b.number)
             as unparked,
           case b.kind when 'release' then (
             select min(k.created_at) from outbox.parked k
             where k.released_in = b.number and k.resolution <> 'discard')
           else (
             select m.created_at from outbox.message m
             where m.seq > b.after_seq and m.seq <= b.upto_seq
               and pg_visible_in_snapshot(m.txid, b.upto)
               and not pg_visible_in_snapshot(m.txid, b.base)
               and not exists (select from outbox.parked k
                               where k.parked_for = b.number and k.seq = m.seq)
             order by m.seq limit 1) end as oldest_at
    from outbox.batch b
    where b.delivered_at is null
    order by b.number desc limit 1),
  holder as materialized (
    select l.relay, l.holder, l.epoch,
           l.holder is not null and l.expires_at > clock_timestamp() as held,
           case when isfinite(l.expires_at)
                then extract(epoch from l.expires_at - clock_timestamp()) end as expires_in
    from outbox.lease l)
  select h.relay, h.holder, h.epoch, h.held, h.expires_in,
         p.messages + coalesce(o.unparked, 0),
         extract(epoch from clock_timestamp() - least(o.oldest_at, (
           select m.created_at from outbox.message m where m.seq = p.first_seq))),
         o.number, )" +
         utc("o.opened_at") + R"(, o.messages, h.held and h.epoch = o.epoch,
         (select )" +
         utc("b.delivered_at") + R"( from outbox.batch b where b.delivered_at is not null
          order by b.number desc limit 1),
         (select jsonb_object_agg(k.error_class, k.messages)::text from (
            select q.error_class, count(*) as messages from outbox.parked q
            where q.released_in is null
            group by q.error_class) k),
         (select count(s.id) from outbox.scheduled s)
  from holder h cross join pending p left join open_batch o on true)";
}

Result<Json> look(postgres::PqxxSession& control) {
  auto rows = control.run("looking at the outbox", status_sql());
  if (!rows) return for_operator(rows.error(), "outbox_observer");
  if (rows->empty())
    return Error{Fault::refused, "outbox.lease has no row",
                 "run `outbox-relay init` in this database"};
  const auto row = (*rows)[0];
  const bool held = row[3].as<bool>();
  const auto pending = row[5].as<std::int64_t>();
  const Json batch = row[7].is_null() ? Json()
                                      : Json::object({{"number", row[7].as<std::int64_t>()},
                                                      {"opened_at", row[8].c_str()},
                                                      {"messages", row[9].as<std::int64_t>()}});
  const bool sending = !batch.is_null() && row[10].as<bool>();
  const Json parked =
      row[12].is_null() ? Json::object() : Json::parse(row[12].c_str()).value_or(Json::object());
  std::int64_t parked_total = 0;
  for (const auto& [error_class, messages] : parked.members()) parked_total += messages.integer();

  Json j = json_answer();
  j["relay"] = text_or_null(row[0]);
  j["state"] = !held ? "no relay" : pending > 0 ? "streaming" : "idle";
  j["pending"] = pending;
  j["oldest_pending_seconds"] = number_or_null(row[6]);
  j["batch_sending"] = sending ? batch : Json();
  j["batch_in_doubt"] = sending ? Json() : batch;
  j["last_delivered_at"] = text_or_null(row[11]);
  j["lease_holder"] = held ? text_or_null(row[1]) : Json();
  j["epoch"] = row[2].as<std::int64_t>();
  j["lease_expires_in_seconds"] = number_or_null(row[4]);
  j["parked"] = parked;
  j["parked_total"] = parked_total;
  j["scheduled"] = row[13].as<std::int64_t>();
  return j;
}

std::string batch_line(const Json& batch) {
  if (batch.is_null()) return "none";
  return "batch " + shown(batch["number"]) + ", " + shown(batch["messages"]) +
         " messages, opened " + shown(batch["opened_at"]);
}

void print_lines(const Json& s) {
  const auto line = [](const char* name, const std::string& value) {
    std::printf("%-14s%s\n", name, value.c_str());
  };
  line("relay", shown(s["relay"]));
  line("state", shown(s["state"]));
  line("pending", s["pending"].dump() +
                      (s["oldest_pending_seconds"].is_null()
                           ? ""
                           : ", oldest " + shown_seconds(s["oldest_pending_seconds"].number())));
  line("sending", batch_line(s["batch_sending"]));
  line("in doubt", batch_line(s["batch_in_doubt"]));
  line("last delivery", shown(s["last_delivered_at"]));
  std::string lease = "free";
  if (!s["lease_holder"].is_null()) {
    lease = shown(s["lease_holder"]) + ", expires in " +
            shown_seconds(s["lease_expires_in_seconds"].number());
  }
  line("lease", lease + ", epoch " + s["epoch"].dump());
  std::string parked = s["parked_total"].dump();
  for (const auto& [error_class, messages] : s["parked"].members()) {
    parked +=
        (parked.find('(') == std::string::npos ? " (" : ", ") + messages.dump() + " " + error_class;
  }
  line("parked", parked + (s["parked"].empty() ? "" : ")"));
  line("scheduled", s["scheduled"].dump());
  std::fflush(stdout);
}

void print_status(const Json& status, const StatusOptions& options) {
  if (options.json) return print_json(status, options.watch);
  if (options.watch && isatty(STDOUT_FILENO) != 0) std::fputs("\x1b[H\x1b[2J", stdout);
  print_lines(status);
  if (options.watch && isatty(STDOUT_FILENO) == 0) std::puts("");
}

// Continues during outages, so that the operator sees them end.
int watch(const Config& config, const StatusOptions& options) {
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGINT);
  sigaddset(&stop, SIGTERM);
  sigprocmask(SIG_BLOCK, &stop, nullptr);
  std::unique_ptr<postgres::PqxxSession> control;
  const timespec second{1, 0};
  do {
    if (!control) {
      auto opened = open_control(config, answer_within);
      if (opened) control = std::move(*opened);
      else if (opened.error().fault == Fault::usage) return report(opened.error());
      else report(opened.error());
    }
    if (!control) continue;
    auto status = look(*control);
    if (status) {
      print_status(*status, options);
    } else {
      report(status.error());
      control.reset();
    }
  } while (sigtimedwait(&stop, nullptr, &second) < 0);
  return 0;
}

// Whether nobody delivers, or a message waits for longer than `max_age` seconds.
bool is_alarming(const Json& status, std::int64_t max_age) {
  const Json& oldest = status["oldest_pending_seconds"];
  return status["lease_holder"].is_null() ||
         (!oldest.is_null() && oldest.number() > static_cast<double>(max_age));
}

int status(const Config& config, const StatusOptions& options) {
  if (options.watch) return watch(config, options);
  auto control = open_control(config, answer_within);
  if (!control) return report(control.error());
  auto status = look(**control);
  if (!status) return report(status.error());
  print_status(*status, options);
  return options.max_age > 0 && is_alarming(*status, options.max_age) ? exit_code(Fault::absent)
                                                                      : 0;
}

constexpr std::string_view status_reference = R"(
JSON: `relay`; `state` (`no relay`, `idle`, `streaming`); `pending` and `oldest_pending_seconds` of
the messages that are not delivered, those of the batch below included; `batch_sending` and
`batch_in_doubt`, each with `number`, `opened_at` and `messages`; `last_delivered_at`;
`lease_holder`, `epoch`, `lease_expires_in_seconds`; `parked` (by error class) and `parked_total`,
of the messages that are not released; `scheduled`.
)";

}  // namespace

Command status_command() {
  const auto options = std::make_shared<StatusOptions>();
  return {
      .name = "status",
      .summary =
          "Shows the progress of the relay: pending messages, the oldest of them, the batch in "
          "doubt, the lease, parked and "
          "scheduled messages.",
      .details = "It reads the database only, and needs the role outbox_observer.",
      .options = {{.name = "--json",
                   .value = &options->json,
                   .text = "Print JSON; with --watch, one line each time."},
                  {.name = "--watch",
                   .value = &options->watch,
                   .text = "Print the status every second, until SIGINT."},
                  {.name = "--max-age",
                   .value = &options->max_age,
                   .placeholder = "SECONDS",
                   .text = "Exit with 1 if no relay holds the lease, or if a message has not been "
                           "delivered for longer.",
                   .check = ValueCheck::positive,
                   .excludes = {"--watch"}}},
      .exit_codes = {done_code,
                     {1, "with --max-age: no relay, or a message is older"},
                     usage_code,
                     postgres_code,
                     right_missing_code},
      .reference = status_reference,
      .examples = {{"status", "Prints the status once."},
                   {"status --watch --json", "Prints a JSON line every second."},
                   {"status --max-age 60", "Exits with 1 if delivery is more than a minute late."}},
      .run = with_database([options](const Config& config) { return status(config, *options); }),
  };
}

}  // namespace relay
