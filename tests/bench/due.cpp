// SPDX-License-Identifier: Apache-2.0
// How fast scheduled messages are delivered that fall due at once, and what waiting ones cost.
//
//   due [--messages 1000000] [--waiting 1000000] [--rounds 3]
//
// Starts its own servers. Each round schedules the messages for a moment that has passed, starts
// the relay, and times from its state `streaming` until none is scheduled any more, and until all
// are delivered. Besides, --waiting messages are due next year.
#include <signal.h>

#include "tests/support/bench_main.h"
#include "tests/support/test_outbox.h"
#include "tests/support/usage.h"

namespace {

using namespace relay;
using namespace relay::test;

struct Options {
  std::int64_t messages = 1'000'000;
  std::int64_t waiting = 1'000'000;
  int rounds = 3;
};

void schedule(TestOutbox& db, const std::string& topic, std::int64_t messages,
              const std::string& when) {
  db.sql("insert into outbox.scheduled (deliver_at, topic, key, payload) select " + when +
         " + g * interval '1 microsecond', '" + topic +
         "', convert_to('k' || (g % 1000), 'UTF8'), convert_to(rpad(g::text, 200, 'x'), 'UTF8') "
         "from generate_series(1, " +
         std::to_string(messages) + ") g");
}

double seconds_until(TestOutbox& db, const std::string& what, const std::string& condition,
                     Clock::time_point since) {
  pqxx::connection connection(db.dsn());
  pqxx::nontransaction tx(connection);
  eventually(
      what,
      [&] {
        usleep(20'000);  // the look itself must not cost the server much
        return tx.exec("select " + condition)[0][0].as<bool>();
      },
      Millis{600'000});
  return std::chrono::duration<double>(Clock::now() - since).count();
}

void bench(const Options& o) {
  ScratchPostgres postgres;
  ScratchKafka kafka;
  TestOutbox db(postgres, &kafka);
  db.environment["OUTBOX_RELAY_LEASE_TTL"] = "5s";
  const std::string topic = db.topic("due", 6);
  if (o.waiting > 0) schedule(db, topic, o.waiting, "now() + interval '1 year'");
  std::vector<double> moved;
  std::vector<double> delivered;
  for (int round = 1; round <= o.rounds; ++round) {
    schedule(db, topic, o.messages, "now() - interval '1 hour'");
    db.sql("vacuum (analyze) outbox.scheduled");
    db.sql("checkpoint");
    auto relay = db.relay();
    relay.says("to=streaming");
    const auto began = Clock::now();
    const double n = static_cast<double>(o.messages);
    moved.push_back(
        n /
        seconds_until(
            db, "none is due any more",
            "not exists (select from outbox.scheduled s where s.deliver_at < clock_timestamp())",
            began));
    delivered.push_back(
        n / seconds_until(db, "all are delivered",
                          "coalesce(sum(b.messages), 0) >= " + std::to_string(round * o.messages) +
                              " and count(*) = count(b.delivered_at) from outbox.batch b",
                          began));
    std::printf("  moved %.0f/s, delivered %.0f/s\n", moved.back(), delivered.back());
    std::fflush(stdout);
    relay.signal(SIGTERM);
    if (relay.wait() != 0) throw std::runtime_error(relay.output());
  }
  std::printf("medians: moved %.0f/s, delivered %.0f/s\n", median(moved), median(delivered));
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return relay::test::bench_main(argc, argv, "due",
                                 "Delivers scheduled messages that fall due at once.",
                                 {{"--messages", &o.messages},
                                  {"--waiting", &o.waiting, "Messages that are not due"},
                                  {"--rounds", &o.rounds}},
                                 [&] { bench(o); });
}
