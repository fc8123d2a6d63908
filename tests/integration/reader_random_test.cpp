// SPDX-License-Identifier: Apache-2.0
// Writers of every kind at once, read while they write. Each difference is compared with its
// definition, each page with a second reading of it, and the rows of a key, whose lock is held to
// commit, with the order in which they were enqueued.
#include <atomic>
#include <functional>
#include <map>
#include <random>
#include <thread>

#include "tests/support/differences.h"

namespace relay {
namespace {

// How pages are cut.
struct Cut {
  const char* name;
  std::int64_t messages_max;
  std::int64_t bytes_max;
};

class ReaderAmongWriters : public test::ReaderTest, public ::testing::WithParamInterface<Cut> {
 protected:
  ReaderAmongWriters() {
    options.batch_messages_max = GetParam().messages_max;
    options.batch_bytes_max = GetParam().bytes_max;
    db.sql("create table counter (key text primary key, n bigint not null default 0)");
    db.sql("insert into counter select 'k' || g from generate_series(1, 12) g");
    std::printf("seed %u\n", seed);
  }

  // One transaction: early transaction ids, savepoints, waits, many rows, rollback, two-phase
  // commit, each now and then. Returns how many rows it has committed.
  std::size_t transaction(pqxx::connection& c, std::mt19937& random, const std::string& gid) {
    pqxx::nontransaction tx(c);
    tx.exec("begin");
    if (random() % 4 == 0) tx.exec("select pg_current_xact_id()");
    if (random() % 2 == 0) tx.exec("select pg_sleep(0.01)");
    const std::string key = "k" + std::to_string(1 + random() % 12);
    const std::size_t rows = random() % 40 == 0 ? 40 + random() % 80 : 1 + random() % 4;
    tx.exec("select from counter where key = '" + key + "' for update");
    tx.exec("with c as (update counter set n = n + " + std::to_string(rows) + " where key = '" +
            key +
            "' returning key, n) "
            "insert into outbox.message (topic, key, payload) select 't', convert_to(c.key, "
            "'UTF8'), convert_to((c.n - " +
            std::to_string(rows) +
            " + g) || repeat(' ', (random() * 500)::integer), 'UTF8') from c, generate_series(1, " +
            std::to_string(rows) + ") g order by g");
    if (random() % 4 == 0) {
      tx.exec("savepoint s");
      tx.exec(insert("undone", key));
      tx.exec("rollback to savepoint s");
    }
    if (random() % 10 == 0) tx.exec("select pg_sleep(0.01)");
    const auto end = random() % 20;
    if (end == 0) {
      tx.exec("rollback");
      return 0;
    } else if (end == 1) {
      tx.exec("prepare transaction '" + gid + "'");
      if (random() % 2 == 0) tx.exec("select pg_sleep(0.01)");
      tx.exec("commit prepared '" + gid + "'");
    } else {
      tx.exec("commit");
    }
    return rows;
  }

  // Reads until there is nothing new, or `enough`.
  void read(test::Differences& differences, const std::function<bool()>& enough) {
    while (auto p = page()) {
      differences.page(*p);
      rows_read = differences.rows();
      for (const Message& m : p->messages) {
        const auto n = std::stoll(std::string(*m.payload));
        auto& before = newest_[std::string(*m.key)];
        EXPECT_EQ(n, before + 1) << "of key " << *m.key;
        before = n;
      }
      const auto again = reader.reread(test::batch_of(*p, 1));
      ASSERT_TRUE(again) << again.error().text();
      EXPECT_EQ(test::seqs_of(*again), test::seqs_of(*p));
      if (enough()) return;
    }
    differences.nothing();
    rows_read = differences.rows();
  }

  const unsigned seed = std::random_device{}();
  std::atomic<std::size_t> rows_read = 0;

 private:
  std::map<std::string, std::int64_t> newest_;
};

TEST_P(ReaderAmongWriters, GivesEachDifferenceAsItIsDefined) {
  // Writers that are far ahead wait for the reader: the check of a difference costs as much as
  // there are rows, and would never keep up on a slow machine. How far decides how a difference is
  // read.
  std::atomic<std::size_t> ahead_max = 500;
  std::atomic<std::size_t> written = 0;
  std::vector<std::jthread> writers;
  for (unsigned w = 0; w < 8; ++w) {
    writers.emplace_back([&, w](const std::stop_token& stop) {
      std::mt19937 random(seed + w);
      pqxx::connection c(db.dsn());
      while (!stop.stop_requested()) {
        if (written > rows_read + ahead_max) pqxx::nontransaction(c).exec("select pg_sleep(0.01)");
        else written += transaction(c, random, db.name() + "-" + std::to_string(w));
      }
    });
  }
  test::Differences d(db.dsn());
  const auto every_way_was_used = [&] {
    ahead_max = d.pages_by_txid() < d.pages_along_seq() ? 20 : 500;
    return HasFailure() || (d.count() >= 60 && d.with_late_rows() >= 30 &&
                            d.pages_by_txid() >= 30 && d.pages_along_seq() >= 30);
  };
  test::eventually(
      "every way of reading has been used",
      [&] {
        read(d, every_way_was_used);
        return every_way_was_used();
      },
      Millis{60'000});
  writers.clear();
  // The last answer that there is nothing may be older than the last commit.
  const auto committed = std::stoull(db.value("select count(*) from outbox.message"));
  test::eventually("every row has been read", [&] {
    read(d, [] { return false; });
    return d.rows() >= committed;
  });
  EXPECT_EQ(d.rows(), committed);
  std::printf("%zu rows in %d differences, %d with late rows; %d pages by txid, %d along seq\n",
              d.rows(), d.count(), d.with_late_rows(), d.pages_by_txid(), d.pages_along_seq());
}

INSTANTIATE_TEST_SUITE_P(PagesCut, ReaderAmongWriters,
                         ::testing::Values(Cut{"ByRows", 37, 8 << 20}, Cut{"ByBytes", 200, 12'000},
                                           Cut{"ByBoth", 41, 10'000}),
                         [](const auto& cut) { return std::string(cut.param.name); });

}  // namespace
}  // namespace relay
