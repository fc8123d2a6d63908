// SPDX-License-Identifier: Apache-2.0
// How fast parked messages are released, and what that does to live traffic's latency inside the
// outbox:
//   release [--messages 100000] [--keys 1000] [--rate 1000]
// The topic of the parked messages is not allowed at first; then it is, and one command releases
// them all.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "tests/support/bench_main.h"
#include "tests/support/test_outbox.h"

namespace relay::test {
namespace {

struct Options {
  int messages = 100'000;
  int keys = 1'000;
  int rate = 1'000;
};

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  const auto at = static_cast<std::ptrdiff_t>(q * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + at, values.end());
  return values[static_cast<std::size_t>(at)];
}

// Seconds from the writing of live messages to their batch being known as delivered, of those
// written in [from, to).
std::vector<double> delays(TestOutbox& db, const std::string& topic, const std::string& from,
                           const std::string& to) {
  std::vector<double> out;
  for (const auto& row :
       db.sql("select extract(epoch from b.delivered_at - m.created_at) from outbox.message m join "
              "outbox.batch b "
              "on b.number = outbox.batch_of(m.txid, m.seq) where m.topic = '" +
              topic + "' and m.created_at >= '" + from + "' and m.created_at < '" + to + "'")) {
    out.push_back(row[0].as<double>() * 1'000);
  }
  return out;
}

// One message per commit, open loop.
void write_live(const std::string& dsn, const std::string& topic, int rate,
                const std::atomic<bool>& stop) {
  pqxx::connection connection(dsn);
  auto due = Clock::now();
  while (!stop) {
    std::this_thread::sleep_until(due);
    due += std::chrono::microseconds(1'000'000 / rate);
    pqxx::nontransaction(connection)
        .exec("insert into outbox.message (topic, key, payload) values ('" + topic +
              "', '\\x6c', 'live')");
  }
}

void bench(const Options& o) {
  TestOutbox db;
  const std::string live = db.topic("live", 6);
  const std::string parked = db.topic("parked", 6);
  db.sql("insert into outbox.message (topic, key, payload) select '" + parked +
         "', convert_to('k' || g % " + std::to_string(o.keys) +
         ", 'UTF8'), convert_to(repeat('x', 200), 'UTF8') from generate_series(1, " +
         std::to_string(o.messages) + ") g");
  db.deliver({{"OUTBOX_RELAY_TOPICS_ALLOW", live}});
  db.sql("vacuum analyze");
  auto relay = db.relay();
  relay.says("to=streaming");
  std::atomic<bool> stop = false;
  std::thread writer([&] { write_live(db.dsn(), live, o.rate, stop); });
  sleep(20);
  const std::string began = db.value("select clock_timestamp()");
  if (db.command({"parked", "release", "--topic", parked, "--why", "bench"}).code != 0)
    throw std::runtime_error("parked release failed");
  const std::string decided = db.value("select clock_timestamp()");
  eventually(
      "all are released",
      [&] {
        usleep(20'000);
        return db.value("select coalesce(sum(messages), 0) >= " + std::to_string(o.messages) +
                        " and count(*) = count(delivered_at) from outbox.batch "
                        "where kind = 'release'") == "t";
      },
      Millis{300'000});
  const std::string ended =
      db.value("select max(delivered_at) from outbox.batch where kind = 'release'");
  stop = true;
  writer.join();
  db.wait_until_idle();
  const double seconds = std::stod(
      db.value("select extract(epoch from max(delivered_at) - min(opened_at)) from outbox.batch "
               "where kind = 'release'"));
  const auto quiet =
      delays(db, live, db.value("select '" + began + "'::timestamptz - interval '10 s'"), began);
  const auto busy = delays(db, live, decided, ended);
  std::printf(
      "released %d messages in %s batches in %.2f s: %.0f a second; the first batch %.2f s after "
      "the decision\n",
      o.messages, db.value("select count(*) from outbox.batch where kind = 'release'").c_str(),
      seconds, o.messages / seconds,
      std::stod(db.value("select extract(epoch from min(opened_at) - '" + decided +
                         "') from outbox.batch where kind = 'release'")));
  std::printf(
      "live, written to known as delivered: before p50 %.1f, p99 %.1f ms (%zu); meanwhile p50 "
      "%.1f, p99 %.1f ms (%zu); p99 ratio %.2f\n",
      quantile(quiet, 0.5), quantile(quiet, 0.99), quiet.size(), quantile(busy, 0.5),
      quantile(busy, 0.99), busy.size(), quantile(busy, 0.99) / quantile(quiet, 0.99));
  relay.signal(SIGTERM);
  if (relay.wait() != 0) throw std::runtime_error(relay.output());
}

}  // namespace
}  // namespace relay::test

int main(int argc, char** argv) {
  relay::test::Options o;
  return relay::test::bench_main(argc, argv, "release",
                                 "Measures the release of parked messages beside live traffic.",
                                 {{"--messages", &o.messages},
                                  {"--keys", &o.keys, "Different keys of the parked messages"},
                                  {"--rate", &o.rate, "Live messages a second"}},
                                 [&] { relay::test::bench(o); });
}
