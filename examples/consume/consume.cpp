// SPDX-License-Identifier: Apache-2.0
// Writes a row for each message, once, whatever dies in between. Ends on SIGINT or SIGTERM.
//
//   consume-example BROKERS DSN TOPIC…
#include <outbox/consumer.h>
#include <pthread.h>
#include <signal.h>

#include <cstdlib>
#include <iostream>
#include <pqxx/pqxx>
#include <thread>

namespace {

void charge(pqxx::dbtransaction& tx, const outbox::Record& record) {
  if (!record.payload) throw outbox::Poison("a charge without a payload");
  tx.exec("insert into charge (dedup_key, what) values (" +
          tx.quote(std::string(record.dedup_key)) + ", " + tx.quote(std::string(*record.payload)) +
          ")");
}

void print(const outbox::ConsumerEvent& event) {
  if (event.level == outbox::ConsumerEvent::Level::debug) return;
  std::cerr << event.name;
  for (const auto& [name, value] : event.fields) std::cerr << ' ' << name << '=' << value;
  std::cerr << std::endl;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::cerr << "consume-example BROKERS DSN TOPIC...\n";
    return 2;
  }
  // Signals are for the thread that waits for them: blocked here, before any other thread begins.
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGINT);
  sigaddset(&ends, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);
  try {
    outbox::ConsumerOptions options{
        .brokers = argv[1], .group = "charges", .topics = {argv + 3, argv + argc}, .dsn = argv[2]};
    options.on_event = &print;
    outbox::Consumer consumer(options, &charge);
    std::jthread running([&](std::stop_token stop) {
      try {
        consumer.run(std::move(stop));
      } catch (const std::exception& e) {
        std::cerr << "consume-example: " << e.what() << '\n';
        std::_Exit(1);
      }
    });
    int number = 0;
    sigwait(&ends, &number);
    running.request_stop();
    running.join();
  } catch (const std::exception& e) {
    std::cerr << "consume-example: " << e.what() << '\n';
    return 1;
  }
  return 0;
}
