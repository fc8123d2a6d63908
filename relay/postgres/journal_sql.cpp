// SPDX-License-Identifier: Apache-2.0
#include "relay/postgres/journal_sql.h"

#include "relay/base/sabotage.h"
#include "relay/postgres/fence.h"
#include "relay/postgres/page_query.h"

namespace outbox::postgres {

const char* const batch_columns =
    "b.number, b.epoch, b.token::text, b.kind, b.mode, b.base::text, b.upto::text, b.fresh_from, "
    "b.after_seq, b.upto_seq, "
    "b.exhausted, b.messages, b.bytes, (extract(epoch from b.opened_at) * 1000000)::bigint, "
    "b.delivered_at is not null";

namespace {

// Parks rows $seqs, $classes, $texts of the relation `rows` for batch $number, if `source` has a
// row.
std::string park_cte(const char* source, const char* number, const char* seqs, const char* classes,
                     const char* texts, const std::string& rows = "outbox.message") {
  return std::string(
             "insert into outbox.parked (parked_for, seq, txid, id, topic, key, payload, headers, "
             "dedup_key, "
             "created_at, error_class, error_text) select ") +
         number +
         "::bigint, m.seq, m.txid, m.id, m.topic, m.key, m.payload, m.headers, m.dedup_key, "
         "m.created_at, r.c, r.t from " +
         source + " cross join unnest(" + seqs + "::bigint[], " + classes + "::text[], " + texts +
         "::text[]) as r(s, c, t) join " + rows + " m on m.seq = r.s returning 1";
}

}  // namespace

// $1 number $2 epoch $3 token $4 kind $5 mode $6 base $7 upto $8 fresh_from $9 after_seq $10
// upto_seq $11 exhausted $12 messages $13 bytes $14 holder $15 session $16 confirmed number $17
// offsets; if it parks $18 seqs $19 classes $20 texts; if it renews, the ttl comes last.
std::string open_sql(bool parks, bool renews) {
  std::string synchronous = "current_setting('synchronous_commit') in ('on', 'remote_apply')";
  if (SABOTAGED(synchronous_commit_off))
    synchronous = "set_config('synchronous_commit', 'off', true) = 'off'";
  std::string sql = fence_sql("$2", "$14",
                              !renews ? nullptr
                              : parks ? "$21"
                                      : "$18") +
                    ", durable as materialized (select g.epoch from fence g where " + synchronous +
                    " and current_setting('outbox_relay.session', true) = $15::text)"
                    ", marked as (update outbox.batch p set delivered_at = "
                    "pg_catalog.clock_timestamp(), offsets = $17::jsonb"
                    " where p.number = $16::bigint and p.delivered_at is null and exists (select "
                    "from durable) returning 1)";
  if (parks) sql += ", parked as (" + park_cte("durable", "$1", "$18", "$19", "$20") + ")";
  sql +=
      " insert into outbox.batch (number, epoch, token, kind, mode, base, upto, fresh_from, "
      "after_seq, upto_seq, exhausted, "
      "messages, bytes) select $1::bigint, s.epoch, $3::uuid, $4::text, $5::text, $6::pg_snapshot, "
      "$7::pg_snapshot, $8::bigint, "
      "$9::bigint, $10::bigint, $11::boolean, $12::integer, $13::bigint from durable s "
      "returning (extract(epoch from opened_at) * 1000000)::bigint, (select count(*) from marked)";
  return sql + (parks ? ", (select count(*) from parked)" : ", 0");
}

// $1 number $2 epoch $3 token $4 mode $5 holder $6 by key $7 messages at most $8 bytes $9 confirmed
// number $10 offsets. The position is that of the batch before. What waited for a message that is
// released now is released without a decision of its own. Rows that an operator is changing are not
// waited for, which could be a deadlock: then there is nothing to release for the moment.
std::string open_release_sql() {
  const std::string follows =
      "coalesce(p.decided_by, 'outbox-relay'), decided_at = coalesce(p.decided_at, "
      "clock_timestamp()), "
      "decided_why = case when p.resolution is null then 'what it waited for was decided' else "
      "p.decided_why end";
  return fence_sql("$2", "$5") + R"(,
    durable as materialized (select g.epoch from fence g where current_setting('synchronous_commit') in ('on', 'remote_apply')),
    chosen as materialized (select r.* from durable s cross join lateral outbox.releasable($6::boolean, $7::integer, $8::bigint) r),
    locked as materialized (
      select p.seq from chosen c join outbox.parked p on p.parked_for = c.parked_for and p.seq = c.seq for update of p skip locked),
    unlocked as materialized (select s.epoch from durable s where (select count(*) from locked) = (select count(*) from chosen)),
    followers as (
      update outbox.parked p set resolution = coalesce(p.resolution, 'release'), decided_by = )" +
         follows + R"( from unlocked cross join chosen c
      where c.next_leader and p.parked_for = c.parked_for and p.seq = c.seq),
    released as (
      update outbox.parked p set released_in = $1::bigint, resolution = coalesce(p.resolution, 'release'), decided_by = )" +
         follows + R"( from unlocked cross join chosen c
      where not c.next_leader and p.parked_for = c.parked_for and p.seq = c.seq
      returning case when p.resolution <> 'discard' then c.bytes end as bytes),
    marked as (
      update outbox.batch b set delivered_at = clock_timestamp(), offsets = nullif($10, '')::jsonb
      where b.number = $9::bigint and b.delivered_at is null and exists (select from released) returning 1)
    insert into outbox.batch as b (number, epoch, token, kind, mode, base, upto, fresh_from, after_seq, upto_seq, exhausted, messages, bytes)
    select $1::bigint, s.epoch, $3::uuid, 'release', $4, n.base, n.upto, n.fresh_from, n.after_seq, n.upto_seq, n.exhausted,
           (select count(t.bytes) from released t), (select coalesce(sum(t.bytes), 0) from released t)
    from durable s cross join (select x.* from outbox.batch x order by x.number desc limit 1) n where exists (select from released)
    returning (select count(*) from marked), )" +
         batch_columns;
}

std::string mark_delivered_sql() {
  return fence_sql("$1", "$2") +
         " update outbox.batch b set delivered_at = pg_catalog.clock_timestamp(), offsets = "
         "nullif($4, '')::jsonb"
         " where b.number = $3 and b.delivered_at is null and exists (select from fence) returning "
         "1";
}

std::string park_sql(const Batch& batch) {
  const std::string source =
      batch.release ? "(" + released_rows_sql(batch.number) + ")" : "outbox.message";
  return fence_sql("$1", "$2") + ", p as (" + park_cte("fence", "$3", "$4", "$5", "$6", source) +
         ") select (select count(*) from fence), (select count(*) from p)";
}

std::string array_text(std::span<const Rejection> parked, const std::string Rejection::*field) {
  std::string out = "{";
  for (const Rejection& r : parked) {
    if (out.size() > 1) out += ',';
    out += '"';
    for (const char c : r.*field) {
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
    out += '"';
  }
  return out + "}";
}

std::string seq_array(std::span<const Rejection> parked) {
  std::string out = "{";
  for (const Rejection& r : parked) out += (out.size() > 1 ? "," : "") + std::to_string(r.seq);
  return out + "}";
}

}  // namespace outbox::postgres
