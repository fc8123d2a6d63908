// SPDX-License-Identifier: Apache-2.0
// A consumer that kills itself around a commit, to be started again and again.
//
//   consumer-that-dies BROKERS TOPIC DSN SEED
//
// The handler counts each message in the table `effect`. At one message, after 1 to 200, a thread
// begins to wait for up to 3 ms and then kills the process: before the commit of that batch, in it,
// or between it and the commit of the offsets. With OUTBOX_AUTOCOMMIT the effect is written outside
// the transaction, which must be found out. With SEED 0 it lives and writes nothing. With
// OUTBOX_SESSION_MS it is a member of its group without a name, which is missed after so long.
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <pqxx/pqxx>
#include <random>
#include <thread>

#include "outbox/consumer.h"

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  std::mt19937 random(static_cast<unsigned>(std::stoul(argv[4])));
  int left = std::uniform_int_distribution<int>(1, 200)(random);
  const std::chrono::microseconds delay(std::uniform_int_distribution<int>(0, 3'000)(random));
  const bool lives = std::string(argv[4]) == "0";
  const bool autocommit = getenv("OUTBOX_AUTOCOMMIT") != nullptr;
  pqxx::connection other(argv[3]);

  outbox::ConsumerOptions options{.brokers = argv[1],
                                  .group = std::string("dies-") + argv[2],
                                  .topics = {argv[2]},
                                  .dsn = argv[3]};
  if (const char* const session = getenv("OUTBOX_SESSION_MS")) {
    options.properties = {{"session.timeout.ms", session}, {"heartbeat.interval.ms", "300"}};
  } else {
    // A member that is known by its name comes back without waiting for the end of its
    // predecessor's session.
    options.properties = {{"group.instance.id", "one"}, {"session.timeout.ms", "6000"}};
  }
  options.batch_messages_max = 20;
  std::jthread killer;
  outbox::Consumer consumer(options, [&](pqxx::dbtransaction& tx, const outbox::Record& record) {
    if (lives) return;
    const std::string insert = "insert into effect (dedup_key, key, payload) values (" +
                               tx.quote(std::string(record.dedup_key)) + ", " +
                               tx.quote(std::string(record.key.value_or(""))) + ", " +
                               tx.quote(std::string(record.payload.value_or(""))) + ")";
    if (autocommit) pqxx::nontransaction(other).exec(insert);
    else tx.exec(insert);
    if (--left == 0) {
      killer = std::jthread([delay] {
        std::this_thread::sleep_for(delay);
        kill(getpid(), SIGKILL);
      });
    }
  });
  consumer.run({});
}
