// SPDX-License-Identifier: Apache-2.0
// How the reader finds its rows: by transaction id where they are few, along the primary key where
// they are many, and never by walking what it need not, whatever the planner assumes about the
// table.
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <tuple>

#include "relay/postgres/page_query.h"
#include "tests/support/differences.h"

namespace relay {
namespace {

using test::TestOutbox;
using Json = nlohmann::json;
using postgres::count_fresh_sql;
using postgres::fresh_from_sql;
using postgres::page_sql;
using postgres::PageQuery;
using Names = std::set<std::string>;

// One transaction with this many rows.
std::string rows(std::int64_t n, const std::string& size = "1") {
  return "insert into outbox.message (topic, key, payload) select 't', 'k', convert_to(repeat('x', "
         "(" +
         size + ")::integer), 'UTF8') from generate_series(1, " + std::to_string(n) + ") g";
}

class ReaderAccess : public test::ReaderTest {
 protected:
  std::vector<Page> pages() {
    std::vector<Page> out;
    while (auto p = page()) out.push_back(std::move(*p));
    return out;
  }
  // Everything so far is delivered.
  Snapshot go_on_from_here() {
    const Snapshot here = *Snapshot::parse(db.value("select pg_current_snapshot()"));
    reader.reset(Cursor{.base = here});
    return here;
  }
};

TEST_F(ReaderAccess, FewFreshRowsAreFoundByTransactionIdAndManyAlongThePrimaryKey) {
  options.batch_messages_max = 100;
  db.sql(rows(100));
  auto few = pages();
  ASSERT_EQ(few.size(), 1u);
  EXPECT_FALSE(few[0].bounds.fresh_from);
  db.sql(rows(101));
  auto many = pages();
  ASSERT_EQ(many.size(), 2u);
  for (const Page& p : many) EXPECT_EQ(p.bounds.fresh_from, 100);
  db.sql(rows(3));
  few = pages();
  ASSERT_EQ(few.size(), 1u);
  EXPECT_FALSE(few[0].bounds.fresh_from);
}

// Late rows beside many fresh ones, with and without a bound that cuts pages by their bytes.
class ReaderMerge : public ReaderAccess,
                    public ::testing::WithParamInterface<std::pair<std::int64_t, std::int64_t>> {
 protected:
  ReaderMerge() { std::tie(options.batch_messages_max, options.batch_bytes_max) = GetParam(); }

  // Two late transactions, 20 fresh ones and one that stays open write by turns, so that their rows
  // interleave in seq.
  void write_by_turns(pqxx::work& late1, pqxx::work& late2, pqxx::work& open) {
    std::mt19937 random(7);
    for (int i = 0; i < 20; ++i) {
      open.exec(rows(3));
      db.sql(rows(1 + random() % 40, "random() * 900"));
      late1.exec(rows(1 + random() % 9, "random() * 900"));
      if (i == 10) late2.exec(rows(100, "random() * 900"));
    }
    late1.commit();
    late2.commit();
    db.sql(rows(200, "random() * 900"));
  }
  // Parks the first row of the page, the last and one between, as rows of the batch; returns what
  // is left.
  std::vector<std::int64_t> park_three(const Page& page, std::int64_t number) {
    std::vector<std::int64_t> kept = test::seqs_of(page);
    for (const auto seq : std::set{kept.front(), kept[kept.size() / 2], kept.back()}) {
      db.sql(
          "insert into outbox.parked (parked_for, seq, txid, id, topic, created_at, error_class, "
          "error_text) select " +
          std::to_string(number) +
          ", seq, txid, id, topic, created_at, 'refused', '' from outbox.message where seq = " +
          std::to_string(seq));
      std::erase(kept, seq);
    }
    return kept;
  }
};

TEST_P(ReaderMerge, IsInOrderAcrossPagesAndReReadsAgreeAlsoWhenRowsAreParked) {
  pqxx::connection c1(db.dsn());
  pqxx::connection c2(db.dsn());
  pqxx::connection c3(db.dsn());
  pqxx::work late1(c1);
  pqxx::work late2(c2);
  pqxx::work open(c3);
  for (auto* tx : {&late1, &late2}) tx->exec(rows(9, "random() * 900"));
  db.sql(rows(1));
  const Snapshot base = go_on_from_here();
  write_by_turns(late1, late2, open);
  const auto all = pages();
  ASSERT_GT(all.size(), 10u);
  ASSERT_EQ(Difference::between(base, all[0].bounds.upto).late.size(), 2u);
  std::vector<std::int64_t> found;
  for (const Page& p : all) {
    EXPECT_TRUE(p.bounds.fresh_from);
    for (const auto seq : test::seqs_of(p)) found.push_back(seq);
  }
  EXPECT_EQ(found, test::Differences::defined(db.dsn(), base, all[0].bounds.upto));

  std::int64_t number = 1;
  for (const Page& p : all) {
    for (const bool parked : {false, true}) {
      const auto kept = parked ? park_three(p, number) : test::seqs_of(p);
      const auto again = reader.reread(test::batch_of(p, number));
      ASSERT_TRUE(again) << again.error().text();
      EXPECT_EQ(test::seqs_of(*again), kept);
      EXPECT_EQ(again->bounds.upto_seq, p.bounds.upto_seq);
      EXPECT_EQ(again->bounds.exhausted, p.bounds.exhausted);
    }
    ++number;
  }
}

INSTANTIATE_TEST_SUITE_P(PagesCut, ReaderMerge,
                         ::testing::Values(std::pair{37, 8'000'000}, std::pair{500, 20'000}),
                         [](const auto& cut) {
                           return std::string(cut.param.first < 100 ? "by_rows" : "by_bytes");
                         });

// --- Plans -------------------------------------------------------------------------------------

struct Plan {
  Names indexes;      // of outbox.message
  Names other_scans;  // of outbox.message: sequential, bitmap …
  Names nodes;
  std::int64_t buffers = 0;
};

void collect(const Json& node, Plan& plan) {
  const std::string type = node.at("Node Type");
  plan.nodes.insert(type);
  const bool index = type == "Index Scan" || type == "Index Only Scan";
  if (index && node.at("Relation Name") == "message") plan.indexes.insert(node.at("Index Name"));
  if (!index && node.contains("Relation Name") && node.at("Relation Name") == "message")
    plan.other_scans.insert(type);
  if (type.starts_with("Bitmap")) plan.other_scans.insert(type);
  if (node.contains("Plans")) {
    for (const Json& child : node.at("Plans")) collect(child, plan);
  }
}

// An outbox with 300,000 delivered rows, of which the statistics know all or nothing.
struct LargeOutbox {
  explicit LargeOutbox(bool analyzed) : db(test::shared_postgres(), nullptr) {
    db.sql("alter table outbox.message set (autovacuum_enabled = false)");
    db.sql("alter table outbox.parked set (autovacuum_enabled = false)");
    for (int i = 0; i < 30; ++i) db.sql(rows(10'000, "100"));
    if (analyzed) db.sql("analyze outbox.message");
    session = std::move(*postgres::StreamSession::connect(db.dsn()));
  }
  TestOutbox db;
  std::unique_ptr<postgres::StreamSession> session;
};

class ReaderPlans : public ::testing::TestWithParam<bool> {
 protected:
  static LargeOutbox& outbox_with(bool statistics) {
    static LargeOutbox without(false);
    static LargeOutbox with(true);
    return statistics ? with : without;
  }

  Snapshot snapshot() { return *Snapshot::parse(db.value("select pg_current_snapshot()")); }
  // What the relay's session does for `sql`, run for real.
  Plan plan(std::string sql) {
    const auto query = [&](const std::string& text) {
      auto result = outbox.session->query(text, Deadline(Millis{60'000}));
      if (!result) throw std::runtime_error(result.error().text());
      return std::move(*result);
    };
    sql.erase(0,
              sql.find("; ") == std::string::npos ? 0 : sql.find("; ") + 2);  // the LOCK before it
    if (sql.starts_with("copy (")) sql = sql.substr(6, sql.rfind(") to stdout") - 6);
    const auto answer = query("explain (analyze, buffers, timing off, format json) " + sql);
    const Json top = Json::parse(PQgetvalue(answer.get(), 0, 0))[0].at("Plan");
    Plan plan;
    collect(top, plan);
    plan.buffers = top.at("Shared Hit Blocks").get<std::int64_t>() +
                   top.at("Shared Read Blocks").get<std::int64_t>();
    return plan;
  }
  static PageQuery query(const Snapshot& base, const Snapshot& upto) {
    return {.bounds = {.base = base, .upto = upto}, .limit = 1000, .message_bytes_max = 1 << 20};
  }

  LargeOutbox& outbox = outbox_with(GetParam());
  TestOutbox& db = outbox.db;
};

TEST_P(ReaderPlans, RowsAreCountedInOneIndexAndNoFurtherThanNeeded) {
  const Snapshot base = snapshot();
  db.sql(rows(1));
  const Plan one = plan(count_fresh_sql(base, snapshot(), 20'000));
  EXPECT_EQ(one.indexes, Names{"message_txid_seq"});
  EXPECT_EQ(one.other_scans, Names{});
  EXPECT_LT(one.buffers, 15);
  db.sql(rows(30'000));
  EXPECT_LT(plan(count_fresh_sql(base, snapshot(), 1'000)).buffers, 100);
}

TEST_P(ReaderPlans, AnOpenTransactionWithManyRowsCostsNothing) {
  const Snapshot base = snapshot();
  pqxx::connection c(db.dsn());
  pqxx::work open(c);
  open.exec(rows(300'000));
  db.sql(rows(1));
  const Snapshot upto = snapshot();
  ASSERT_FALSE(upto.running().empty());
  EXPECT_LT(plan(count_fresh_sql(base, upto, 20'000)).buffers, 30);
  EXPECT_LT(plan(fresh_from_sql(base, upto)).buffers, 30);
  EXPECT_LT(plan(page_sql(query(base, upto))).buffers, 30);
}

TEST_P(ReaderPlans, FewRowsAreFoundByTransactionId) {
  const Snapshot base = snapshot();
  db.sql(rows(10));
  PageQuery q = query(base, snapshot());
  for (const std::int64_t limit : {1'000, 20'000}) {
    q.limit = limit;
    for (const bool metered : {false, true}) {
      q.bytes_max = metered ? std::optional<std::int64_t>(1 << 20) : std::nullopt;
      const Plan few = plan(page_sql(q));
      EXPECT_EQ(few.indexes, Names{"message_txid_seq"});
      EXPECT_EQ(few.other_scans, Names{});
      EXPECT_LT(few.buffers, 30);
    }
  }
}

TEST_P(ReaderPlans, LateRowsAreFoundByTransactionIdAndSeq) {
  pqxx::connection c(db.dsn());
  pqxx::work late(c);
  late.exec(rows(50'000));
  db.sql(rows(1));
  const Snapshot base = snapshot();
  late.commit();
  PageQuery q = query(base, snapshot());
  ASSERT_FALSE(Difference::between(q.bounds.base, q.bounds.upto).late.empty());
  const Plan first = plan(page_sql(q));
  EXPECT_EQ(first.indexes, Names{"message_txid_seq"});
  EXPECT_EQ(first.other_scans, Names{});
  EXPECT_LT(first.buffers, 200);
  // A page near the end, and the re-read of its first two rows, cost no more than the first.
  q.bounds.after_seq = std::stoll(db.value("select max(seq) - 1000 from outbox.message"));
  EXPECT_LT(plan(page_sql(q)).buffers, 200);
  q.ends = true;
  q.bounds.upto_seq = q.bounds.after_seq + 2;
  q.limit = 2;
  q.without_parked_for = 7;
  const Plan again = plan(page_sql(q));
  EXPECT_EQ(again.indexes, Names{"message_txid_seq"});
  EXPECT_LT(again.buffers, 30);
}

TEST_P(ReaderPlans, ManyRowsAreReadAlongThePrimaryKeyFromWhereTheyBegin) {
  pqxx::connection c(db.dsn());
  pqxx::work late(c);
  late.exec(rows(10));
  db.sql(rows(1));
  const Snapshot base = snapshot();
  db.sql(rows(40'000));
  late.commit();
  PageQuery q = query(base, snapshot());
  const Plan seek = plan(fresh_from_sql(q.bounds.base, q.bounds.upto));
  EXPECT_EQ(seek.indexes, Names{"message_txid_seq"});
  EXPECT_EQ(seek.other_scans, Names{});
  EXPECT_TRUE(seek.nodes.contains("Index Only Scan"));

  q.bounds.fresh_from = std::stoll(
      db.value("select min(seq) - 1 from outbox.message where txid >= pg_snapshot_xmax('" +
               base.text() + "')"));
  for (const std::int64_t into : {0, 30'000}) {
    q.bounds.after_seq = into == 0 ? 0 : *q.bounds.fresh_from + into;
    for (const bool metered : {false, true}) {
      q.bytes_max = metered ? std::optional<std::int64_t>(1 << 20) : std::nullopt;
      const Plan many = plan(page_sql(q));
      EXPECT_EQ(many.indexes,
                (Names{"message_pkey", "message_txid_seq"}));  // the latter for the late rows
      EXPECT_EQ(many.other_scans, Names{});
      EXPECT_LT(many.buffers, 200);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(WithStatistics, ReaderPlans, ::testing::Bool(), [](const auto& analyzed) {
  return std::string(analyzed.param ? "analyzed" : "never_analyzed");
});

}  // namespace
}  // namespace relay
