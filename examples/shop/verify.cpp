// SPDX-License-Identifier: Apache-2.0
// outbox-verify: prints the closing table of a run of the shop. Exits 0 when every committed effect
// arrived once, in order, and nothing else did; 1 when not, or when that cannot be known; 3 when a
// server does not answer. With --effects, the same of what providers executed, by their log.
#include <CLI/CLI.hpp>
#include <iostream>

#include "tests/support/effects_verdict.h"
#include "tests/support/shop_verdict.h"

int main(int argc, char** argv) {
  CLI::App app("Compares the shop's tables with its Kafka topics.", "outbox-verify");
  std::string dsn;
  std::string brokers;
  std::string effects;
  int seconds = 30;
  app.add_option("--dsn", dsn, "PostgreSQL connection string")->envname("PGDSN")->required();
  app.add_option("--brokers", brokers, "Kafka bootstrap servers")
      ->envname("KAFKA_BROKERS")
      ->required();
  app.add_option("--effects", effects, "Look at this log of the providers in place of Kafka");
  app.add_option("--timeout", seconds, "Seconds to read the topics in")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    if (!effects.empty()) {
      const relay::test::EffectsVerdict verdict = relay::test::check_effects(dsn, effects);
      std::cout << verdict;
      return verdict.good() ? 0 : 1;
    }
    const relay::test::ShopVerdict verdict =
        relay::test::check_shop(dsn, brokers, std::chrono::seconds(seconds));
    std::cout << verdict;
    return verdict.good() ? 0 : 1;
  } catch (const std::exception& e) {
    std::cerr << "outbox-verify: " << e.what() << '\n';
    return 3;
  }
}
