// SPDX-License-Identifier: Apache-2.0
// How long delivery pauses when the active relay dies or is stopped while another one stands by.
//
//   takeover [--rounds 7] [--ttl 5s]
//
// From the signal to the first batch that the other one has delivered, with 200 messages a second
// coming in.
#include <signal.h>

#include <atomic>
#include <thread>

#include "tests/support/bench_main.h"
#include "tests/support/test_outbox.h"
#include "tests/support/usage.h"

namespace {

using namespace relay;
using namespace relay::test;

void keep_writing(const std::string& dsn, const std::string& topic, const std::atomic<bool>& stop) {
  pqxx::connection connection(dsn);
  while (!stop) {
    pqxx::nontransaction tx(connection);
    tx.exec("insert into outbox.message (topic, key, payload) values ('" + topic + "', 'k', 'x')");
    std::this_thread::sleep_for(Millis{5});
  }
}

double pause_after(TestOutbox& db, int signal) {
  auto active = db.relay();
  active.says("to=streaming");
  auto other = db.relay();
  other.says("to=standby");
  const std::string epoch = db.value("select epoch from outbox.lease");
  pqxx::connection connection(db.dsn());
  pqxx::nontransaction tx(connection);
  const auto delivered = [&](const char* than) {
    return tx
        .exec("select exists (select from outbox.batch b where b.epoch " + std::string(than) +
              epoch + " and b.delivered_at is not null)")[0][0]
        .as<bool>();
  };
  eventually("the active relay delivers", [&] { return delivered(" = "); });
  const auto began = Clock::now();
  active.signal(signal);
  eventually("the other relay delivers", [&] { return delivered(" > "); });
  const double seconds = std::chrono::duration<double>(Clock::now() - began).count();
  active.wait();
  other.signal(SIGTERM);
  other.wait();
  return seconds;
}

}  // namespace

int main(int argc, char** argv) {
  int rounds = 7;
  std::string ttl = "5s";
  return relay::test::bench_main(
      argc, argv, "takeover", "Times a take-over.",
      {{"--rounds", &rounds}, {"--ttl", &ttl, "lease.ttl"}}, [&] {
        TestOutbox db;
        db.environment["OUTBOX_RELAY_LEASE_TTL"] = ttl;
        const std::string topic = db.topic("t");
        std::atomic<bool> stop{false};
        std::jthread writer([&] { keep_writing(db.dsn(), topic, stop); });
        for (const auto& [name, signal] : {std::pair{"kill -9", SIGKILL}, {"SIGTERM", SIGTERM}}) {
          std::vector<double> seconds;
          for (int i = 0; i < rounds; ++i) seconds.push_back(pause_after(db, signal));
          std::printf("%-8s median %.3f s, longest %.3f s\n", name, median(seconds),
                      quantile(seconds, 1));
          std::fflush(stdout);
        }
        stop = true;
      });
}
