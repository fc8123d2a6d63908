// SPDX-License-Identifier: Apache-2.0
#include "relay/postgres/page_query.h"

#include <algorithm>
#include <limits>

#include "relay/base/mutants.h"
#include "relay/postgres/copy_rows.h"

namespace relay::postgres {
namespace {

// COPY takes its snapshot before it waits for a lock of its own, and rows rewritten meanwhile are
// invisible to it.
const std::string lock = "lock table outbox.message in access share mode; ";
const std::string all_columns = "m.seq, m.id, m.topic, m.key, m.payload, m.headers, m.dedup_key";

std::string xid_array(const std::vector<Xid>& xids) {
  std::string out = "'{";
  for (const Xid x : xids) out += (out.size() > 2 ? "," : "") + std::to_string(x);
  return out + "}'::xid8[]";
}

// `unnest` of the ranges as r(lo, hi).
std::string ranges(const std::vector<XidRange>& fresh) {
  std::vector<Xid> lo;
  std::vector<Xid> hi;
  for (const XidRange r : fresh) {
    lo.push_back(r.from);
    hi.push_back(r.to);
  }
  return "unnest(" + xid_array(lo) + ", " + xid_array(hi) + ") as r(lo, hi)";
}

std::string seq_bounds(const std::string& seq, const PageQuery& q, std::int64_t above) {
  std::string out = seq + " > " + std::to_string(above);
  if (q.ends) out += " and " + seq + " <= " + std::to_string(q.bounds.upto_seq);
  return out;
}

// Rows of each late transaction. Comparing pairs leaves the planner no index but (txid, seq).
std::string late_rows(const PageQuery& q, const Difference& d) {
  const auto last = q.ends ? q.bounds.upto_seq : std::numeric_limits<std::int64_t>::max();
  return "select m.* from unnest(" + xid_array(d.late) + ") as l(x) cross join lateral (select " +
         all_columns + " from outbox.message m where (m.txid, m.seq) > (l.x, " +
         std::to_string(q.bounds.after_seq) + ") and (m.txid, m.seq) <= (l.x, " +
         std::to_string(last) + ") order by m.txid, m.seq limit " + std::to_string(q.limit) + ") m";
}

// Few fresh rows: by transaction id. seq + 0 hides the primary key from the planner, offset 0 the
// order that is wanted above: it would walk the primary key from its beginning, for the sake of a
// sort of a few rows.
std::string few_fresh_rows(const PageQuery& q, const Difference& d) {
  return "select m.* from " + ranges(d.fresh) + " cross join lateral (select " + all_columns +
         " from outbox.message m where m.txid >= r.lo and m.txid < r.hi and " +
         seq_bounds("m.seq + 0", q, q.bounds.after_seq) + " offset 0) m";
}

// Many fresh rows: along the primary key. coalesce() hides txid from the planner, which must not
// choose the other index.
std::string many_fresh_rows(const PageQuery& q) {
  const std::string txid = "coalesce(m.txid, '0'::xid8)";
  std::string sql = "select " + all_columns + " from outbox.message m where " +
                    seq_bounds("m.seq", q, std::max(q.bounds.after_seq, *q.bounds.fresh_from)) +
                    " and " + txid + " >= '" + std::to_string(q.bounds.base.xmax()) +
                    "'::xid8 and " + txid + " < '" + std::to_string(q.bounds.upto.xmax()) +
                    "'::xid8";
  if (!q.bounds.upto.running().empty())
    sql += " and " + txid + " <> all (" + xid_array(q.bounds.upto.running()) + ")";
  return sql + " order by m.seq limit " + std::to_string(q.limit);
}

}  // namespace

std::string count_fresh_sql(const Snapshot& base, const Snapshot& upto, std::int64_t limit) {
  const Difference d = Difference::between(base, upto);
  return lock + "select count(*) from (select from " + ranges(d.fresh) +
         " cross join lateral (select from outbox.message m where m.txid >= r.lo and m.txid < "
         "r.hi) m limit " +
         std::to_string(limit + 1) + ") f";
}

std::string fresh_from_sql(const Snapshot& base, const Snapshot& upto) {
  const Difference d = Difference::between(base, upto);
  // seq + 0: the primary key must not be walked for its smallest entry.
  return "select min(m.seq + 0) - 1 from " + ranges(d.fresh) +
         " cross join lateral (select m.seq from outbox.message m where m.txid >= r.lo and m.txid "
         "< r.hi offset 0) m";
}

std::string rows_sql(const PageQuery& q) {
  Difference d = Difference::between(q.bounds.base, q.bounds.upto);
  if (MUTANT(position_is_highest_seq)) d.late.clear();
  std::string rows;
  if (!d.late.empty()) rows = "(" + late_rows(q, d) + ")";
  if (!d.fresh.empty()) {
    if (!rows.empty()) rows += " union all ";
    rows += "(" + (q.bounds.fresh_from ? many_fresh_rows(q) : few_fresh_rows(q, d)) + ")";
  }
  if (rows.empty()) rows = "select " + all_columns + " from outbox.message m where false";
  std::string sql = "select " + all_columns + " from (" + rows + ") m";
  if (q.without_parked_for) {
    sql += " where not exists (select from outbox.parked p where p.parked_for = " +
           std::to_string(*q.without_parked_for) + " and p.seq = m.seq)";
  }
  return sql + " order by m.seq limit " + std::to_string(q.limit);
}

std::string page_sql(const PageQuery& q) {
  std::string sql = rows_sql(q);
  const std::string order =
      MUTANT(order_by_txid) ? "(select x.txid from outbox.message x where x.seq = m.seq)" : "m.seq";
  if (q.bytes_max) {
    // As PgReader counts. Were it more, a page that is cut here would look exhausted; were it less,
    // the relay would read what it discards.
    const std::string size =
        "octet_length(m.topic) + coalesce(octet_length(m.key), 0) + "
        "coalesce(octet_length(m.payload), 0) + "
        "coalesce(octet_length(m.dedup_key), 0) + " +
        std::string(q.headers_counted ? "coalesce(octet_length(m.headers::text) + 1, 0) + " : "") +
        std::to_string(copied_row_overhead);
    sql =
        "select m.* from (select m.*, sum(m.size) over (order by m.seq rows unbounded preceding) - "
        "m.size as before "
        "from (select m.*, " +
        size + " as size from (" + sql + ") m) m) m where m.before < " +
        std::to_string(*q.bytes_max);
  }
  return lock + "copy (select " + copied_columns(q.message_bytes_max) + " from (" + sql +
         ") m order by " + order + ") to stdout (format binary)";
}

std::string released_rows_sql(std::int64_t batch) {
  const auto edited = [](const std::string& column) {
    return "case when p.resolution = 'edit' then p.edited_" + column + " else p." + column +
           " end as " + column;
  };
  const std::string number = std::to_string(batch);
  return "select p.seq, p.txid, p.id, " + edited("topic") + ", " + edited("key") + ", " +
         edited("payload") + ", " + edited("headers") +
         ", p.dedup_key, p.created_at from outbox.parked p where p.released_in = " + number +
         " and p.resolution <> 'discard' "
         "and not exists (select from outbox.parked r where r.parked_for = " +
         number + " and r.seq = p.seq)";
}

std::string release_sql(std::int64_t batch, std::int64_t message_bytes_max) {
  return "lock table outbox.parked in access share mode; copy (select " +
         copied_columns(message_bytes_max) + " from (" + released_rows_sql(batch) +
         ") m order by m.seq) to stdout (format binary)";
}

}  // namespace relay::postgres
