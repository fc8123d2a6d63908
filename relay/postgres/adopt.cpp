// SPDX-License-Identifier: Apache-2.0
#include "relay/postgres/adopt.h"

#include <algorithm>

#include "common/check.h"
#include "relay/postgres/journal.h"
#include "relay/postgres/page_query.h"
#include "relay/postgres/startup_checks.h"
#include "relay/postgres/statements.h"

namespace relay::postgres {
namespace {

// What restores a dump makes the table, brings the rows in, and then makes this constraint.
// pg_upgrade makes both around rows that are older, and where files were copied, both are as old as
// the outbox. Ages are those of transaction ids.
constexpr const char* made_first =
    "(select age(a.xmin) from pg_attribute a where a.attrelid = 'outbox.batch'::regclass and "
    "a.attname = 'ctid')";
constexpr const char* made_last =
    "(select age(c.xmin) from pg_constraint c where c.conrelid = 'outbox.message'::regclass and "
    "c.conname = 'own_txid')";

// Whether the journal, which nobody writes between the copy and its adoption, was not restored.
std::string ids_are_kept() {
  return std::string("exists (select from outbox.batch b where age(b.xmin) > ") + made_first +
         " or age(b.xmin) < " + made_last + ")";
}

// The transaction that wrote the row is the one that it names. One that restored it is so by chance
// only, and then most often restored others as well; one that wrote it within a savepoint is not.
constexpr const char* has_own_id =
    "m.xmin::text::bigint = (m.txid::text::numeric % 4294967296)::bigint";
constexpr const char* shares_its_writer =
    "m.xmin::text in (select o.xmin::text from outbox.message o group by o.xmin::text having "
    "min(o.txid::text) <> max(o.txid::text))";

std::string quoted(const Snapshot& s) { return "'" + s.text() + "'::pg_snapshot"; }

// Whether batch `b` or an earlier one holds message m, by the foreign ids that both still have.
std::string covered_by(const Batch& b) {
  return "outbox.batch_covers((select x from outbox.batch x where x.number = " +
         std::to_string(b.number) + "), m.txid, m.seq)";
}

// Whether batch `b` itself, which is in doubt, would send message m.
std::string sent_by(const Batch& b) {
  if (b.release) return "false";
  return "(not pg_visible_in_snapshot(m.txid, " + quoted(b.bounds.base) +
         ") and pg_visible_in_snapshot(m.txid, " + quoted(b.bounds.upto) + ") and m.seq > " +
         std::to_string(b.bounds.after_seq) + " and m.seq <= " + std::to_string(b.bounds.upto_seq) +
         " and not exists (select from outbox.parked p where p.parked_for = " +
         std::to_string(b.number) + " and p.seq = m.seq))";
}

// Whether message m was written by the application after a logical copy was made; also where the
// constraint came back late.
std::string since_copy(const Copy& copy) {
  if (copy.kind == CopyKind::physical) return "false";
  return std::string("(age(m.xmin) < ") + made_last + " or (" + has_own_id + " and not " +
         shares_its_writer + "))";
}

std::string is_pending(const Copy& copy) {
  return "(" + since_copy(copy) +
         (copy.newest ? " or not " + covered_by(*copy.newest) : " or true") + ")";
}

Result<void> look_at_journal(PqxxSession& control, Copy& copy) {
  auto rows =
      control.run("reading the journal", std::string("select ") + sql::batch_columns +
                                             " from outbox.batch b order by b.number desc limit 2");
  if (!rows) return rows.error();
  if (rows->empty()) return {};
  auto newest = batch_of((*rows)[0]);
  if (!newest) return newest.error();
  copy.newest = std::move(*newest);
  if (rows->size() > 1) copy.token_before = Uuid::parse((*rows)[1][2].c_str());
  return {};
}

Result<void> count_messages(PqxxSession& control, Copy& copy) {
  auto rows = control.run(
      "counting messages",
      "select count(*) filter (where not " + is_pending(copy) + "), count(*) filter (where " +
          is_pending(copy) + "), count(*) filter (where " + since_copy(copy) + "), " +
          (copy.in_doubt() != nullptr ? "count(*) filter (where " + sent_by(*copy.newest) + ")"
                                      : "0") +
          " from outbox.message m");
  if (!rows) return rows.error();
  copy.delivered = (*rows)[0][0].as<std::int64_t>();
  copy.pending = (*rows)[0][1].as<std::int64_t>();
  copy.since_copy = (*rows)[0][2].as<std::int64_t>();
  copy.in_doubt_messages = (*rows)[0][3].as<std::int64_t>();
  if (copy.in_doubt() == nullptr || !copy.newest->release) return {};
  rows = control.run("counting released messages",
                     "select count(*) from (" + released_rows_sql(copy.newest->number) + ") r");
  if (!rows) return rows.error();
  copy.in_doubt_messages = (*rows)[0][0].as<std::int64_t>();
  return {};
}

std::string plain(std::int64_t n) { return std::to_string(n); }

// The messages that are to be sent are inserted once more, with ids and sequence numbers of this
// server; everything else goes.
void insert_again(std::vector<std::string>& script, const Copy& copy,
                  std::optional<OperatorDecision> decision) {
  const std::string columns = "id, topic, key, payload, headers, dedup_key, created_at";
  const bool resend = copy.in_doubt() != nullptr && decision == OperatorDecision::resend;
  if (resend && copy.newest->release) {  // its messages are older than any that is pending
    const std::string number = plain(copy.newest->number);
    script.push_back("insert into outbox.message (" + columns + ") select " + columns + " from (" +
                     released_rows_sql(copy.newest->number) + ") r order by r.seq");
    script.push_back("delete from outbox.parked p where p.released_in = " + number +
                     " and p.resolution <> 'discard'");
  }
  const std::string wanted = is_pending(copy) + (resend ? " or " + sent_by(*copy.newest) : "");
  script.push_back(
      "with gone as materialized (delete from outbox.message m where m.txid <> "
      "pg_current_xact_id() or not (" +
      std::string(has_own_id) + ") returning m.seq, " + since_copy(copy) + " as late, (" + wanted +
      ") as wanted, m.id, m.topic, m.key, m.payload, m.headers, m.dedup_key, m.created_at) insert "
      "into outbox.message (" +
      columns + ") select " + columns + " from gone where wanted order by late, seq");
  if (resend)
    script.push_back("delete from outbox.batch b where b.number = " + plain(copy.newest->number));
  // What is kept of the journal covers nothing of what is sent from now on.
  script.emplace_back(
      "update outbox.batch b set base = n.base, upto = n.base, fresh_from = null, after_seq = 0, "
      "upto_seq = 0, exhausted = true "
      "from (select current_setting('outbox_relay.base')::pg_snapshot as base) n");
}

// Appends a batch without messages: logical, one with the position of this server; physical, one
// that repeats the position.
std::string append_batch(const Copy& copy, const Options& options, std::int64_t number,
                         std::int64_t epoch) {
  std::string position =
      quoted(Snapshot::nothing()) + ", " + quoted(Snapshot::nothing()) + ", null, 0, 0, true";
  if (copy.kind == CopyKind::logical) {
    position =
        "current_setting('outbox_relay.base')::pg_snapshot, "
        "current_setting('outbox_relay.base')::pg_snapshot, null, 0, 0, true";
  } else if (copy.newest) {
    const Batch& b = *copy.newest;
    position = quoted(b.bounds.base) + ", " + quoted(b.bounds.upto) + ", " +
               (b.bounds.fresh_from ? plain(*b.bounds.fresh_from) : "null") + ", " +
               plain(b.bounds.after_seq) + ", " + plain(b.bounds.upto_seq) + ", " +
               (b.bounds.exhausted ? "true" : "false");
  }
  // A stream batch where it begins a position, a release where it repeats one.
  const char* const kind = copy.kind == CopyKind::physical && copy.newest ? "release" : "stream";
  return "insert into outbox.batch (number, epoch, token, kind, mode, base, upto, fresh_from, "
         "after_seq, upto_seq, exhausted, messages, bytes, "
         "delivered_at) select " +
         plain(number) + ", " + plain(epoch) + ", '" + Uuid::random().text() + "', '" + kind +
         "', '" + to_string(options.mode) + "', " + position + ", 0, 0, clock_timestamp()";
}

// Fails, and with it the transaction, unless the outbox is as it was found; holds off every relay
// until the end.
std::string still_as_found(const Copy& copy) {
  return "do $$ begin perform from outbox.lease l where l.epoch = " + plain(copy.epoch) +
         " and l.expires_at <= clock_timestamp() and coalesce((select max(b.number) from "
         "outbox.batch b), 0) = " +
         plain(copy.newest ? copy.newest->number : 0) +
         " for update; if not found then raise exception 'a relay was active meanwhile; nothing "
         "was changed' using errcode = "
         "'object_in_use'; end if; end $$";
}

}  // namespace

Result<Copy> inspect_copy(PqxxSession& control, const Options& options) {
  auto installed = installed_schema(control, Schema::outbox);
  if (!installed) return installed.error();
  if (!*installed)
    return Error{Fault::refused, "this database has no outbox schema",
                 "there is nothing to adopt: run `outbox-relay init`"};
  auto identity = identify(control, options);
  if (!identity) return identity.error();
  Copy copy;
  copy.here = *identity;
  auto rows = control.run("looking at the outbox", std::string(R"(
    select l.cluster, l.relay, l.epoch, l.expires_at > clock_timestamp(), coalesce(l.holder, ''),
           exists (select from outbox.message m
                   where m.txid >= pg_snapshot_xmax(pg_current_snapshot()))
             or exists (select from outbox.batch b
                        where pg_snapshot_xmax(b.upto) > pg_snapshot_xmax(pg_current_snapshot())
                           or pg_snapshot_xmax(b.base) > pg_snapshot_xmax(pg_current_snapshot())),
           )") + ids_are_kept() + R"(,
           greatest((select max(m.seq) from outbox.message m),
                    (select max(p.seq) from outbox.parked p), 0),
           (select case when q.is_called then q.last_value else q.last_value - 1 end
            from outbox.message_seq_seq q),
           )" + made_last + R"( is not null
    from outbox.lease l)");
  if (!rows) return rows.error();
  if (rows->empty())
    return Error{Fault::refused, "outbox.lease has no row",
                 "run `outbox-relay init` in this database"};
  const auto row = (*rows)[0];
  if (row[3].as<bool>()) {
    return Error{
        Fault::refused, std::string("a relay holds the lease of this outbox: ") + row[4].c_str(),
        "stop it; a lease that was copied with its database runs out by itself within seconds"};
  }
  if (!row[0].is_null()) copy.cluster = row[0].as<std::int64_t>();
  if (!row[1].is_null()) copy.relay = row[1].c_str();
  copy.epoch = row[2].as<std::int64_t>();
  const bool another_cluster =
      copy.cluster && copy.here.cluster != 0 && *copy.cluster != copy.here.cluster;
  const bool from_the_future = row[5].as<bool>();
  if ((another_cluster || from_the_future) && !row[9].as<bool>()) {
    return Error{Fault::refused,
                 "the constraint own_txid is missing on outbox.message: it shows what was written "
                 "after the copy was made",
                 "while no application writes: alter table outbox.message add constraint own_txid "
                 "check (txid = pg_current_xact_id()) not valid"};
  }
  if ((another_cluster && !row[6].as<bool>()) || from_the_future) copy.kind = CopyKind::logical;
  copy.newest_seq = row[7].as<std::int64_t>();
  copy.sequence_behind = copy.newest_seq > row[8].as<std::int64_t>();
  copy.adopted = !another_cluster && !from_the_future && !copy.sequence_behind &&
                 copy.relay.value_or(options.relay) == options.relay;
  if (auto r = look_at_journal(control, copy); !r) return r.error();
  if (auto r = count_messages(control, copy); !r) return r.error();
  return copy;
}

Result<void> adopt_copy(PqxxSession& control, const Options& options, const Copy& copy,
                        std::optional<OperatorDecision> decision, HighWater high_water) {
  CHECK(copy.in_doubt() == nullptr || decision);
  auto owner = control.run("looking for the owner",
                           "select quote_ident(pg_get_userbyid(c.relowner)) from pg_class c where "
                           "c.oid = 'outbox.message'::regclass");
  if (!owner) return owner.error();
  const std::int64_t number =
      std::max(copy.newest ? copy.newest->number : 0, high_water.number) + 1;
  const std::int64_t epoch = std::max(copy.epoch, high_water.epoch) + 1;
  const bool logical = copy.kind == CopyKind::logical;

  std::vector<std::string> script;
  // Before the transaction has an id: its own messages are then not in this snapshot, but in every
  // later one.
  script.emplace_back("select set_config('outbox_relay.base', pg_current_snapshot()::text, true)");
  script.push_back(std::string("set local role ") + (*owner)[0][0].c_str());
  if (logical) script.emplace_back("lock table outbox.message in access exclusive mode");
  if (!logical && copy.sequence_behind)
    script.emplace_back("lock table outbox.message in share row exclusive mode");
  script.push_back(still_as_found(copy));
  if (logical || copy.sequence_behind) {
    script.push_back(
        "select setval('outbox.message_seq_seq', greatest(q.last_value, " + plain(copy.newest_seq) +
        ", (select max(m.seq) from outbox.message m), 1)) from outbox.message_seq_seq q");
  }
  if (copy.in_doubt() != nullptr && decision == OperatorDecision::delivered) {
    script.push_back(
        "update outbox.batch b set delivered_at = clock_timestamp() where b.number = " +
        plain(copy.newest->number));
  }
  if (logical) insert_again(script, copy, decision);
  // Physical, to be sent again: the batch in doubt stays the newest, and recovery sends it.
  if (logical || copy.in_doubt() == nullptr || decision == OperatorDecision::delivered)
    script.push_back(append_batch(copy, options, number, epoch));
  script.push_back("update outbox.lease l set relay = '" + options.relay +
                   "', holder = null, expires_at = '-infinity', epoch = " + plain(epoch) +
                   ", cluster = nullif(" + plain(copy.here.cluster) + ", 0)");
  return control.script("adopting the copy", script);
}

}  // namespace relay::postgres
