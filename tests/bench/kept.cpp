// SPDX-License-Identifier: Apache-2.0
// What a large outbox costs: status_of beside many rows and batches, and deleting them by
// retention, vacuum included.
//
//   kept [--rows 10000000] [--batches 20000] [--prune 1000000]
#include <iostream>

#include "relay/postgres/lease.h"
#include "relay/postgres/retention.h"
#include "tests/support/bench_main.h"
#include "tests/support/test_outbox.h"
#include "tests/support/usage.h"

namespace {

using namespace relay;
using namespace relay::test;

struct Options {
  std::int64_t rows = 10'000'000;
  int batches = 20'000;
  std::int64_t prune = 1'000'000;
};

void load(TestOutbox& db, const Options& o) {
  pqxx::connection connection(db.dsn());
  pqxx::nontransaction tx(connection);
  tx.exec("set synchronous_commit = off");
  // One transaction and one batch for each run of rows, opened two days ago.
  const std::string rows = std::to_string(o.rows / o.batches);
  tx.exec("do $$ declare base pg_snapshot := '3:3:'; upto pg_snapshot; begin for i in 1 .. " +
          std::to_string(o.batches) +
          " loop "
          "insert into outbox.message (topic, key, payload) "
          "select 't', convert_to('k' || g % 1000, 'UTF8'), convert_to(rpad(g::text, 200, 'x'), "
          "'UTF8') "
          "from generate_series(1, " +
          rows +
          ") g; commit; upto := pg_current_snapshot(); "
          "insert into outbox.batch (number, epoch, token, kind, mode, base, upto, after_seq, "
          "upto_seq, exhausted, messages, bytes, "
          "opened_at, delivered_at) "
          "values (i, 0, gen_random_uuid(), 'stream', 'exactly-once', base, upto, 0, i::bigint * " +
          rows + ", true, " + rows +
          ", 0, now() - interval '2 days', now() - interval '2 days'); commit; base := upto; end "
          "loop; end $$");
  tx.exec("vacuum (analyze) outbox.message");
  tx.exec("vacuum (analyze) outbox.batch");
  tx.exec("checkpoint");
}

void time_status(TestOutbox& db, const Options& o) {
  pqxx::connection connection(db.dsn());
  pqxx::nontransaction tx(connection);
  std::vector<double> ms;
  for (int i = 0; i < 200; ++i) {
    const auto seq = std::to_string(1 + (o.rows - 1) * i / 199);
    const auto id =
        tx.exec("select id::text from outbox.message where seq = " + seq)[0][0].as<std::string>();
    const auto began = Clock::now();
    if (tx.exec("select state from outbox.status_of('" + id + "')")[0][0].as<std::string>() !=
        "delivered")
      throw std::runtime_error("not delivered");
    ms.push_back(std::chrono::duration<double, std::milli>(Clock::now() - began).count());
  }
  std::printf("status_of beside %lld rows and %d batches: median %.2f ms, longest %.2f ms\n",
              static_cast<long long>(o.rows), o.batches, median(ms), quantile(ms, 1));
  std::fflush(stdout);
}

void time_pruning(TestOutbox& db, pid_t server, const Options& o) {
  postgres::Options options;
  options.dsn = Secret(db.dsn());
  options.relay = db.name();
  options.holder = "bench";
  postgres::PgDatabase database(options);
  if (auto r = database.connect(); !r) throw std::runtime_error(r.error().text());
  postgres::PgLease lease(options, database);
  if (auto r = lease.available(); !r || !*r) throw std::runtime_error("the lease is not free");
  const auto taken = lease.take();
  if (!taken || !*taken) throw std::runtime_error("cannot take the lease");
  const double before = cpu_seconds_with_children(server);
  const auto began = Clock::now();
  std::int64_t pruned = 0;
  postgres::PrunePosition position;
  while (pruned < o.prune) {
    auto page = postgres::prune_page(database.control(), options, std::chrono::hours(24),
                                     (*taken)->epoch, 2'000, position);
    if (!page) throw std::runtime_error(page.error().text());
    if (page->messages == 0) break;
    pruned += page->messages;
  }
  const double deleting = cpu_seconds_with_children(server) - before;
  const double seconds = std::chrono::duration<double>(Clock::now() - began).count();
  db.sql("vacuum outbox.message");
  const double all = cpu_seconds_with_children(server) - before;
  std::printf(
      "retention: %lld rows in %.1f s; %.2f us of processor time per row, %.2f with vacuum\n",
      static_cast<long long>(pruned), seconds, deleting * 1e6 / static_cast<double>(pruned),
      all * 1e6 / static_cast<double>(pruned));
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return relay::test::bench_main(
      argc, argv, "kept", "Times status_of and retention in a large outbox.",
      {{"--rows", &o.rows}, {"--batches", &o.batches}, {"--prune", &o.prune, "Rows to delete"}},
      [&] {
        ScratchPostgres postgres({"autovacuum=off"});
        TestOutbox db(postgres, nullptr);
        std::cout << "loading " << o.rows << " rows\n" << std::flush;
        load(db, o);
        time_status(db, o);
        time_pruning(db, postgres.pid(), o);
      });
}
