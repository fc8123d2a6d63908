// SPDX-License-Identifier: Apache-2.0
#include "relay/postgres/journal_sql.h"

#include "common/pqxx_statement.h"
#include "relay/base/mutants.h"
#include "relay/postgres/fence.h"
#include "relay/postgres/page_query.h"
#include "relay/postgres/statements.h"

namespace relay::postgres {

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

// $1 epoch $2 holder $3 token $4 kind $5 mode $6 base $7 upto $8 fresh_from $9 after_seq
// $10 upto_seq $11 exhausted $12 messages $13 bytes $14 number $15 session $16 confirmed number
// $17 offsets; if it parks $18 seqs $19 classes $20 texts; if it renews, the ttl comes last.
std::string open_sql(bool parks, bool renews) {
  std::string is_durable = "current_setting('synchronous_commit') in ('on', 'remote_apply')";
  if (MUTANT(synchronous_commit_off)) {
    is_durable = "set_config('synchronous_commit', 'off', true) = 'off'";
  }
  std::string sql = "with " + (renews ? renewing_fence(parks ? "$21" : "$18") : fenced(sql::fence));
  sql += ", durable as materialized (select f.epoch from fence f where " + is_durable +
         " and current_setting('outbox_relay.session', true) = $15::text)"
         ", marked as (update outbox.batch p set delivered_at = pg_catalog.clock_timestamp(), "
         "offsets = $17::jsonb where p.number = $16::bigint and p.delivered_at is null "
         "and exists (select from durable) returning 1)";
  if (parks) sql += ", parked as (" + park_cte("durable", "$14", "$18", "$19", "$20") + ")";
  sql +=
      " insert into outbox.batch (number, epoch, token, kind, mode, base, upto, fresh_from, "
      "after_seq, upto_seq, exhausted, messages, bytes) "
      "select $14::bigint, d.epoch, $3::uuid, $4::text, $5::text, $6::pg_snapshot, "
      "$7::pg_snapshot, $8::bigint, $9::bigint, $10::bigint, $11::boolean, $12::integer, "
      "$13::bigint from durable d "
      "returning (extract(epoch from opened_at) * 1000000)::bigint, (select count(*) from marked)";
  return sql + (parks ? ", (select count(*) from parked)" : ", 0");
}

std::string open_release_sql() { return fenced(sql::open_release); }

std::string mark_delivered_sql() { return fenced(sql::mark_delivered); }

std::string park_sql(const Batch& batch) {
  const std::string source =
      batch.release ? "(" + released_rows_sql(batch.number) + ")" : "outbox.message";
  return "with " + fenced(sql::fence) + ", p as (" +
         park_cte("fence", "$3", "$4", "$5", "$6", source) +
         ") select (select count(*) from fence), (select count(*) from p)";
}

std::string array_text(std::span<const Rejection> parked, const std::string Rejection::*field) {
  outbox::common::ArrayText out;
  for (const Rejection& r : parked) out.add(r.*field);
  return out.text();
}

std::string seq_array(std::span<const Rejection> parked) {
  std::string out = "{";
  for (const Rejection& r : parked) out += (out.size() > 1 ? "," : "") + std::to_string(r.seq);
  return out + "}";
}

}  // namespace relay::postgres
