// SPDX-License-Identifier: Apache-2.0
// What an old open snapshot costs: everything that an hour deletes or settles stays in tables and
// indexes as long as somebody has a transaction open that began before it. The same work is done
// with such a transaction and without, in turns, and the processor time of PostgreSQL is compared.
//
//   old_snapshot [--messages 1000000] [--effects 100000] [--pairs 1]
//
// Starts its own servers. The relay runs with lease.ttl = 1s, and loses the lease at no time.
#include <signal.h>

#include <iostream>
#include <map>

#include "tests/support/bench_main.h"
#include "tests/support/load.h"
#include "tests/support/test_outbox.h"
#include "tests/support/usage.h"

namespace {

using namespace relay;
using namespace relay::test;

struct Options {
  std::int64_t messages = 1'000'000;
  std::int64_t effects = 100'000;
  int pairs = 1;
};

constexpr std::int64_t page = 500;

// One setting: servers, an outbox, an inbox, a ledger.
class Bench {
 public:
  explicit Bench(const Options& o)
      : o_(o), db_(postgres_, &kafka_, "outbox,inbox,effect"), topic_(db_.topic("t", 6)) {
    db_.environment["OUTBOX_RELAY_LEASE_TTL"] = "1s";
    db_.environment["OUTBOX_RELAY_RETENTION_KEEP"] = "1m";
    db_.sql("select inbox.register('c', interval '10 minutes', 600)");
    db_.sql("select effect.register('p', '{\"in_doubt_policy\": \"hold\"}')");
  }

  // What each takes, in microseconds of the server's processor.
  std::map<std::string, double> run(bool old_snapshot) {
    pqxx::connection c(db_.dsn());
    std::optional<pqxx::transaction<pqxx::isolation_level::repeatable_read>> old;
    if (old_snapshot) old.emplace(c).exec("select count(*) from outbox.lease");
    std::map<std::string, double> cost;
    auto relay = db_.relay();
    until("the relay streams", "(select epoch from outbox.lease) > 0");
    const std::string epoch = db_.value("select epoch from outbox.lease");
    cost["a message delivered and pruned"] = timed(o_.messages, [&] { deliver(); });
    cost["a message scheduled and moved"] = timed(o_.messages, [&] { schedule(); });
    if (db_.value("select epoch from outbox.lease") != epoch)
      throw std::runtime_error("the relay lost its lease: " + relay.output());
    relay.signal(SIGTERM);
    relay.wait();
    cost["a message accepted and pruned"] = timed(o_.messages, [&] { accept(); });
    cost["an effect settled"] = timed(o_.effects, [&] { settle(); });
    return cost;
  }

 private:
  template <class F>
  double timed(std::int64_t n, const F& work) {
    const double before = cpu_seconds_with_children(postgres_.pid());
    work();
    return 1e6 * (cpu_seconds_with_children(postgres_.pid()) - before) / static_cast<double>(n);
  }
  void until(const std::string& what, const std::string& condition) {
    pqxx::connection connection(db_.dsn());
    pqxx::nontransaction tx(connection);
    eventually(
        what,
        [&] {
          usleep(200'000);  // the look itself must not cost the server much
          return tx.exec("select " + condition)[0][0].as<bool>();
        },
        Millis{1'800'000});
  }
  // Each page in a transaction of its own.
  void insert(const std::string& rows) {
    pqxx::connection connection(db_.dsn());
    pqxx::nontransaction tx(connection);
    tx.exec("set synchronous_commit = off");
    for (std::int64_t i = 0; i < o_.messages; i += page)
      tx.exec("insert into " + rows + " from generate_series(1, " + std::to_string(page) + ") g");
  }
  std::string row() const {
    return "'" + topic_ + "', convert_to('k' || g, 'UTF8'), convert_to(rpad(g::text, 200, 'x'), " +
           "'UTF8')";
  }
  // Retention finds each batch old as soon as it is delivered.
  void deliver() {
    Load aging([&] {
      usleep(1'000'000);
      db_.sql(
          "update outbox.batch set opened_at = opened_at - interval '1 hour' "
          "where delivered_at > clock_timestamp() - interval '10 s' "
          "and opened_at > clock_timestamp() - interval '30 minutes'");
    });
    insert("outbox.message (topic, key, payload) select " + row());
    // What the newest base does not show is kept.
    for (int i = 0; i < 3; ++i) {
      db_.wait_until_idle(Millis{600'000});
      db_.sql("insert into outbox.message (topic, key, payload) select " + row() +
              " from generate_series(1, 1) g");
    }
    until("all are pruned", "(select count(*) from (select from outbox.message limit 9) m) < 9");
    aging.end();
  }
  void schedule() {
    insert("outbox.scheduled (deliver_at, topic, key, payload) select clock_timestamp(), " + row());
    until("all are moved", "not exists (select from outbox.scheduled)");
  }
  void accept() {
    pqxx::connection connection(db_.dsn());
    pqxx::nontransaction tx(connection);
    for (std::int64_t i = 0; i < o_.messages; i += page) {
      // One hour of messages.
      const auto at = std::to_string(3600.0 * static_cast<double>(o_.messages - i) /
                                     static_cast<double>(o_.messages));
      tx.exec("select inbox.accept_all('c', array_agg('t'::text), array_agg('k-' || g + " +
              std::to_string(i) + "), array_agg(now() - interval '" + at +
              " s')) from generate_series(1, " + std::to_string(page) + ") g");
      if (i % (20 * page) != 0) continue;
      while (tx.exec("select inbox.prune('c')")[0][0].as<std::int64_t>() >= 10'000) {
      }
    }
  }
  void settle() {
    db_.sql("select effect.plan('p', 'e-' || g, '{}', '') from generate_series(1, " +
            std::to_string(o_.effects) + ") g");
    db_.sql("analyze effect.effect");
    pqxx::connection connection(db_.dsn());
    pqxx::nontransaction tx(connection);
    tx.exec("set synchronous_commit = on");
    while (true) {
      const auto claimed = tx.exec("select c.effect_id, c.epoch from effect.claim('p', 'w', 10) c");
      if (claimed.empty()) break;
      for (const auto& row : claimed)
        tx.exec("select effect.settle(" + std::string(row[0].c_str()) + ", " +
                std::string(row[1].c_str()) + ", 'answered', 'done', 200)");
    }
  }

  const Options& o_;
  ScratchPostgres postgres_;
  ScratchKafka kafka_;
  TestOutbox db_;
  std::string topic_;
};

void bench(const Options& o) {
  std::map<std::string, std::vector<double>> ratios;
  for (int pair = 0; pair < o.pairs; ++pair) {
    const auto without = Bench(o).run(false);
    const auto with = Bench(o).run(true);
    for (const auto& [what, us] : without) {
      ratios[what].push_back(with.at(what) / us);
      std::printf("%-32s %8.1f us, with an old snapshot %8.1f us, %.2f x\n", what.c_str(), us,
                  with.at(what), with.at(what) / us);
    }
    std::fflush(stdout);
  }
  for (const auto& [what, all] : ratios)
    std::printf("%-32s median %.2f x\n", what.c_str(), median(all));
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return relay::test::bench_main(
      argc, argv, "old_snapshot", "Measures what an old open snapshot costs.",
      {{"--messages", &o.messages}, {"--effects", &o.effects}, {"--pairs", &o.pairs}},
      [&] { bench(o); });
}
