// SPDX-License-Identifier: Apache-2.0
// How fast a consumer works through the inbox, and what it holds in memory meanwhile.
//
//   consume [--messages 1000000] [--batch 500] [--rounds 3]
//   consume --pairs 10                one message a transaction, with the inbox and without, in
//   turns; no Kafka
//
// Starts its own servers. A drain is timed from the first message to the last; what joining the
// group takes is left out.
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <iostream>

#include "outbox/inbox.h"
#include "tests/support/bench_main.h"
#include "tests/support/consuming.h"
#include "tests/support/process.h"
#include "tests/support/test_inbox.h"
#include "tests/support/usage.h"

namespace {

using namespace relay;
using namespace relay::test;

struct Options {
  int messages = 1'000'000;
  std::size_t bytes = 200;
  int batch = 500;
  int partitions = 6;
  int rounds = 3;
  int pairs = 0;
  int transactions = 2'000;  // for each half of a pair
};

void busy_now() {
  std::ifstream load("/proc/loadavg");
  std::string minute;
  load >> minute;
  std::cout << "load average " << minute << '\n';
}

// The handlers that are compared: nothing, and one row for each message, in one statement.
void nothing(pqxx::dbtransaction&, std::span<const outbox::Record>) {}
void one_row(pqxx::dbtransaction& tx, std::span<const outbox::Record> records) {
  std::string rows;
  for (const outbox::Record& r : records)
    rows += (rows.empty() ? "(" : ",(") + tx.quote(std::string(*r.key)) + "," +
            tx.quote(std::string(*r.payload)) + ")";
  tx.exec("insert into effect (key, payload) values " + rows);
}

void drain(TestInbox& db, const ScratchKafka& kafka, const std::string& topic, const Options& o,
           const char* name, outbox::Consumer::BatchHandler handler, int round) {
  db.sql("truncate effect");
  db.sql("checkpoint");
  outbox::ConsumerOptions options{.brokers = kafka.brokers(),
                                  .group = std::string(name) + std::to_string(round),
                                  .topics = {topic},
                                  .dsn = db.dsn()};
  options.batch_messages_max = o.batch;
  RunningConsumer consumer(options, std::move(handler));
  eventually("it begins", [&] { return consumer.stats().new_messages > 0; });
  const auto began = Clock::now();
  const auto first = consumer.stats();
  const double cpu = cpu_seconds(getpid());
  const double server = cpu_seconds_with_children(db.postgres().pid());
  eventually(
      "all are handled",
      [&] {
        usleep(10'000);
        return consumer.stats().new_messages >= o.messages;
      },
      Millis{600'000});
  const double seconds = std::chrono::duration<double>(Clock::now() - began).count();
  const double n = static_cast<double>(o.messages) - static_cast<double>(first.new_messages);
  std::printf(
      "  %-10s %8.0f msg/s, consumer %.2f us, PostgreSQL %.2f us, %.0f messages a transaction, "
      "peak %.1f MiB\n",
      name, n / seconds, (cpu_seconds(getpid()) - cpu) * 1e6 / n,
      (cpu_seconds_with_children(db.postgres().pid()) - server) * 1e6 / n,
      n / static_cast<double>(consumer.stats().batches - first.batches),
      static_cast<double>(peak_memory_kb(getpid())) / 1024);
  std::fflush(stdout);
  consumer.stop();
}

// In a process of its own: the peak of this one would be that of the producer.
void drains(const Options& o) {
  ScratchPostgres postgres;
  ScratchKafka kafka;
  TestInbox db(postgres);
  db.sql("create table effect (id bigint generated always as identity, key text, payload text)");
  kafka.create_topic("lag", o.partitions);
  const auto produced = fork();
  if (produced == 0) {
    produce_numbers(kafka.brokers(), "lag", 0, o.messages, 1'000, o.bytes);
    _exit(0);
  }
  int status = 0;
  if (waitpid(produced, &status, 0) != produced || status != 0)
    throw std::runtime_error("the records were not produced");
  busy_now();
  for (int round = 1; round <= o.rounds; ++round) {
    drain(db, kafka, "lag", o, "nothing", &nothing, round);
    drain(db, kafka, "lag", o, "one row", &one_row, round);
  }
  busy_now();
}

double one_by_one(pqxx::connection& connection, const Options& o, bool with_inbox) {
  static int number = 0;
  const std::string payload(o.bytes, 'x');
  const auto now = std::chrono::system_clock::now();
  const auto began = Clock::now();
  for (int i = 0; i < o.transactions; ++i) {
    pqxx::work tx(connection);
    if (with_inbox) outbox::inbox::accept(tx, "one", "t", "key-" + std::to_string(++number), now);
    tx.exec_params("insert into effect (key, payload) values ($1, $2)", std::to_string(i), payload);
    tx.commit();
  }
  return o.transactions / std::chrono::duration<double>(Clock::now() - began).count();
}

void pairs(const Options& o) {
  ScratchPostgres postgres;
  TestInbox db(postgres);
  db.sql("create table effect (id bigint generated always as identity, key text, payload text)");
  pqxx::connection connection(db.dsn());
  {
    pqxx::work tx(connection);
    outbox::inbox::register_consumer(tx, "one");
    tx.commit();
  }
  busy_now();
  one_by_one(connection, o, true);
  std::vector<double> ratios;
  for (int pair = 0; pair < o.pairs; ++pair) {
    const bool inbox_first = pair % 2 == 0;
    const double a = one_by_one(connection, o, inbox_first);
    const double b = one_by_one(connection, o, !inbox_first);
    const double with = inbox_first ? a : b;
    const double without = inbox_first ? b : a;
    ratios.push_back(with / without);
    std::printf("  with %.0f, without %.0f transactions/s: %.2f\n", with, without, ratios.back());
  }
  std::printf("with / without, median of pairs %.2f\n", median(ratios));
  busy_now();
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return relay::test::bench_main(
      argc, argv, "consume", "Drains a lag through the inbox.",
      {{"--messages", &o.messages},
       {"--bytes", &o.bytes, "Payload"},
       {"--batch", &o.batch, "batch_messages_max"},
       {"--partitions", &o.partitions},
       {"--rounds", &o.rounds},
       {"--pairs", &o.pairs, "Compare single transactions instead, so many times"},
       {"--transactions", &o.transactions, "For each half of a pair"}},
      [&] {
        if (o.pairs > 0) pairs(o);
        else drains(o);
      });
}
