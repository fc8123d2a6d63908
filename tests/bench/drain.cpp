// SPDX-License-Identifier: Apache-2.0
// How fast the relay delivers a backlog, beside a bare librdkafka producer on the same broker in
// the same minutes.
//
//   drain [--messages 3000000] [--pairs 5] [--mode exactly-once] [--kept 0] [--open-transaction]
//   [--beside bare|retention|clean|nothing] drain --pooler --beside clean      through pgbouncer,
//   beside a direct connection
//
// Starts its own servers. Each round drains the same rows again: the journal is emptied and the
// relay gets a new name. A drain is timed from the relay's state `streaming` to the journal's last
// delivery; PostgreSQL's time is that of all its processes.
#include <signal.h>

#include <iostream>

#include "tests/support/bench_main.h"
#include "tests/support/checker.h"
#include "tests/support/usage.h"

namespace {

using namespace relay;
using namespace relay::test;

struct Options {
  std::int64_t messages = 3'000'000;
  int bytes = 200;
  int rows_per_transaction = 10;
  int partitions = 6;
  int pairs = 5;
  std::string mode = "exactly-once";
  std::int64_t kept = 0;          // delivered rows that are already there
  bool open_transaction = false;  // one that has written, open for the whole run
  std::string beside = "bare";    // what each drain is compared with
  std::int64_t poison_every = 0;  // each so many-th message cannot be sent; 0: none
  std::string poison =
      "unwritable";     // unwritable: its topic is not allowed; refused: the broker refuses it
  bool pooler = false;  // pgbouncer in transaction mode stands between
  std::vector<std::string> pgbouncer;        // its settings
  std::map<std::string, std::string> relay;  // further options of the relay, as environment
};

struct Figures {
  double per_second;
  double relay_us;
  double postgres_us;
  double peak_mb;
};

// Committed by an application in small transactions, as fast as one connection can.
void load(TestOutbox& db, const std::string& topic, std::int64_t messages, const Options& o,
          bool small_transactions) {
  const std::string poisoned =
      o.poison_every > 0 ? "g % " + std::to_string(o.poison_every) + " = 0" : "false";
  const std::string insert = "insert into outbox.message (topic, key, payload) select case when " +
                             poisoned + " then '" + topic +
                             (o.poison == "unwritable" ? ".unwritable" : "") + "' else '" + topic +
                             "' end, case when not (" + poisoned +
                             ") then convert_to('k' || (g % 1000), 'UTF8') end, "
                             "convert_to(rpad(g::text, " +
                             std::to_string(o.bytes) + ", 'x'), 'UTF8') from generate_series(";
  pqxx::connection connection(db.dsn());
  pqxx::nontransaction tx(connection);
  tx.exec("set synchronous_commit = off");
  if (!small_transactions) {
    tx.exec(insert + "1, " + std::to_string(messages) + ") g");
    return;
  }
  const std::string rows = std::to_string(o.rows_per_transaction);
  tx.exec("do $$ begin for i in 0 .. " + std::to_string(messages / o.rows_per_transaction - 1) +
          " loop " + insert + "i::bigint * " + rows + ", i::bigint * " + rows + " + " +
          std::to_string(o.rows_per_transaction - 1) + ") g; commit; end loop; end $$");
}

void settle_server(TestOutbox& db) {
  db.sql("vacuum (analyze) outbox.message");
  db.sql("checkpoint");
}

// A relay that has never run: the backlog is everything above `kept_base`. If the rows below it
// were delivered long ago, retention deletes them; if just now, it leaves them.
void forget_deliveries(TestOutbox& db, const std::string& kept_base, bool long_ago) {
  static int round = 0;
  db.sql("truncate outbox.batch");
  db.sql("truncate outbox.parked");
  db.sql("update outbox.lease set relay = null, holder = null, expires_at = '-infinity'");
  if (!kept_base.empty()) {
    db.sql(
        "insert into outbox.batch (number, epoch, token, kind, mode, base, upto, after_seq, "
        "upto_seq, exhausted, messages, bytes, opened_at, "
        "delivered_at) values (1, 0, gen_random_uuid(), 'stream', 'exactly-once', '3:3:', '" +
        kept_base + "', 0, 0, true, 0, 0, now() - interval '" + (long_ago ? "2 days" : "0") +
        "', now())");
  }
  db.environment["OUTBOX_RELAY_RELAY_NAME"] = db.name() + "-" + std::to_string(++round);
  if (db.command({"init", "--kafka"}).code != 0) throw std::runtime_error("init failed");
}

Figures drain(TestOutbox& db, pid_t postgres, std::int64_t messages, const Options& o) {
  auto relay = db.relay(o.relay);
  relay.says("to=streaming");
  const auto began = Clock::now();
  const double relay_before = cpu_seconds(relay.pid());
  const double postgres_before = cpu_seconds_with_children(postgres);
  pqxx::connection connection(db.dsn());
  pqxx::nontransaction tx(connection);
  eventually(
      "the backlog is delivered",
      [&] {
        usleep(20'000);  // the look itself must not cost the server much
        return tx
            .exec("select coalesce(sum(messages), 0) >= " + std::to_string(messages) +
                  " and count(*) = count(delivered_at) from outbox.batch")[0][0]
            .as<bool>();
      },
      Millis{600'000});
  const double seconds = std::chrono::duration<double>(Clock::now() - began).count();
  const double n = static_cast<double>(messages);
  const Figures f{n / seconds, (cpu_seconds(relay.pid()) - relay_before) * 1e6 / n,
                  (cpu_seconds_with_children(postgres) - postgres_before) * 1e6 / n,
                  static_cast<double>(peak_memory_kb(relay.pid())) / 1024};
  relay.signal(SIGTERM);
  if (relay.wait() != 0) throw std::runtime_error(relay.output());
  return f;
}

// Whether pgbouncer stands between the relay and the server.
void connect_through(TestOutbox& db, const ScratchPgbouncer* pooler) {
  db.environment["OUTBOX_RELAY_POSTGRES_DSN"] =
      pooler != nullptr ? pooler->dsn(db.database()) : db.dsn();
  db.environment["OUTBOX_RELAY_POSTGRES_POOLER"] = pooler != nullptr ? "transaction" : "none";
}

double bare_producer(const ScratchKafka& kafka, const std::string& topic, const Options& o) {
  const auto done = run_command({program_path("tests/bare_producer"), kafka.brokers(), topic,
                                 std::to_string(o.messages), "20000", std::to_string(o.bytes)},
                                {}, Millis{300'000});
  if (done.code != 0) throw std::runtime_error(done.output);
  kafka.delete_topic(topic);
  std::cout << "  bare: " << done.output << std::flush;
  return std::stod(done.output);
}

void report(const char* name, const std::vector<Figures>& all, double Figures::*field,
            const char* unit) {
  std::vector<double> values;
  for (const Figures& f : all) values.push_back(f.*field);
  std::printf("%-34s %12.2f %s\n", name, median(values), unit);
}

// Drains one backlog in rounds, and what it is compared with beside it.
class Bench {
 public:
  explicit Bench(const Options& options) : o(options) {
    db.environment["OUTBOX_RELAY_RELAY_MODE"] = o.mode;
    db.environment["OUTBOX_RELAY_LEASE_TTL"] = "5s";
  }

  void run() {
    load_all();
    pqxx::connection other(db.dsn());
    std::unique_ptr<pqxx::work> open;
    if (o.open_transaction) {
      open = std::make_unique<pqxx::work>(other);
      open->exec("insert into outbox.message (topic, payload) values ('" + loaded + "', 'open')");
    }
    if (o.poison_every > 0 && o.poison == "unwritable")
      kafka.create_topic(loaded + ".unwritable", o.partitions);
    if (o.pooler) pooler = std::make_unique<ScratchPgbouncer>(postgres, o.pgbouncer);
    for (int round = 1; round <= o.pairs; ++round) run_round(round);
    if (open) open->abort();
    report_all();
  }

 private:
  void load_all() {
    if (o.kept > 0) {
      std::cout << "loading " << o.kept << " rows that count as delivered\n" << std::flush;
      load(db, "kept", o.kept, o, false);
      kept_base = db.value("select pg_current_snapshot()");
    }
    loaded = db.topic("drained", o.partitions);
    std::cout << "loading " << o.messages << " messages\n" << std::flush;
    load(db, loaded, o.messages, o, true);
    settle_server(db);
  }

  // With `is`, there is the pooler, and the poisoned messages cannot be sent; else they are
  // messages like others.
  void poison(bool is) {
    connect_through(db, is ? pooler.get() : nullptr);
    if (o.poison_every == 0) return;
    const bool refused = o.poison == "refused";
    db.environment["OUTBOX_RELAY_TOPICS_ALLOW"] = is && !refused ? loaded : "*";
    if (refused)
      kafka.alter_topic(loaded, {std::string("cleanup.policy=") + (is ? "compact" : "delete")});
  }

  Figures drain_once(const char* name, bool prunes) {
    forget_deliveries(db, kept_base, prunes);
    const Figures f = drain(db, server, o.messages, o);
    std::printf("  %s: %.0f msg/s, relay %.2f us, PostgreSQL %.2f us, peak %.0f MB\n", name,
                f.per_second, f.relay_us, f.postgres_us, f.peak_mb);
    std::fflush(stdout);
    return f;
  }

  double messages_per_second_beside(int round) {
    if (o.beside == "bare")
      return bare_producer(kafka, db.topic("bare" + std::to_string(round), o.partitions), o);
    return drain_once(retention ? "with retention" : "clean", retention).per_second;
  }

  void run_round(int round) {
    // In turns: servers get faster while they run.
    const bool behind = round % 2 == 0 && o.beside != "nothing";
    if (behind) others.push_back(messages_per_second_beside(round));
    poison(true);
    drains.push_back(drain_once("relay", false));
    poison(false);
    if (o.beside == "nothing") return;
    if (!behind) others.push_back(messages_per_second_beside(round));
    ratios.push_back(retention ? others.back() / drains.back().per_second
                               : drains.back().per_second / others.back());
  }

  void report_all() const {
    report("drain", drains, &Figures::per_second, "msg/s");
    report("relay processor time", drains, &Figures::relay_us, "us/message");
    report("PostgreSQL processor time", drains, &Figures::postgres_us, "us/message");
    report("peak memory of the relay", drains, &Figures::peak_mb, "MB");
    if (o.beside == "nothing") return;
    std::printf(
        "%-34s %12.2f msg/s\n%-34s %12.2f\n", o.beside.c_str(), median(others),
        o.beside == "bare" ? "drain / bare, median of pairs" : "with / without, median of pairs",
        median(ratios));
  }

  const Options& o;
  const bool retention = o.beside == "retention";
  ScratchPostgres postgres;
  ScratchKafka kafka;
  TestOutbox db{postgres, &kafka};
  const pid_t server = postgres.pid();
  std::unique_ptr<ScratchPgbouncer> pooler;
  std::string kept_base;
  std::string loaded;
  std::vector<Figures> drains;
  std::vector<double> others;
  std::vector<double> ratios;
};

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return relay::test::bench_main(
      argc, argv, "drain", "Drains a backlog, beside a bare producer.",
      {{"--messages", &o.messages},
       {"--bytes", &o.bytes, "Payload"},
       {"--rows-per-transaction", &o.rows_per_transaction},
       {"--partitions", &o.partitions},
       {"--pairs", &o.pairs},
       {"--mode", &o.mode},
       {"--kept", &o.kept, "Delivered rows that are kept besides"},
       {"--open-transaction", &o.open_transaction,
        "With a transaction open that has written, for the whole run"},
       {"--beside",
        &o.beside,
        "Compare with a bare producer, with a drain while retention deletes --kept rows, or with "
        "one without poison and pooler",
        {"bare", "retention", "clean", "nothing"}},
       {"--poison-every", &o.poison_every,
        "Each so many-th message cannot be sent: compare --beside clean"},
       {"--poison",
        &o.poison,
        "Why not: its topic is not allowed, or the broker refuses it",
        {"unwritable", "refused"}},
       {"--pooler", &o.pooler, "Through pgbouncer in transaction mode: compare --beside clean"},
       {"--pgbouncer", &o.pgbouncer, "Its settings, name=value"},
       {"--relay", &o.relay, "Further options of the relay, as OUTBOX_RELAY_… VALUE"}},
      [&] { Bench(o).run(); });
}
