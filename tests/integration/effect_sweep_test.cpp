// SPDX-License-Identifier: Apache-2.0
// A worker is killed before and after each of its socket calls, from its first connection to the database to its end: at the
// database, at the provider, and in between. The provider's own log is the judge.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/support/effect_world.h"
#include "tests/support/process.h"
#include "tests/support/providers.h"
#include "tests/support/world.h"

namespace outbox {
namespace {

using namespace std::chrono_literals;

struct Kind {
  const char* name;
  bool tells_repeats;

  friend std::ostream& operator<<(std::ostream& out, const Kind& kind) { return out << kind.name; }
};

class EffectSweep : public ::testing::TestWithParam<Kind> {
 protected:
  EffectSweep() {
    ProviderSettings settings{.on_doubt = OnDoubt::hold};
    if (GetParam().tells_repeats) settings.key_window = 1h;
    settings.can_ask = kind() == "store";
    settings.absence_delay = 10ms;
    settings.window_margin = 1s;
    settings.claim_ttl = 2s;
    settings.doubts_max = 1'000;
    settings.retry_first = 10ms;
    settings.retry_max = 100ms;
    settings.retry_reserve = 100'000;
    settings.breaker_failures = 100'000;
    world.register_provider(kind(), settings);
  }
  ~EffectSweep() override { std::filesystem::remove(count_file); }

  static std::string kind() { return GetParam().name; }
  std::string at() const { return kind() == "mail" || kind() == "store" ? kind() : "payments"; }
  std::string url() const { return kind() == "mail" ? providers.mail() : kind() == "store" ? providers.store() : providers.payments(); }
  // What the provider's log calls it.
  std::string key(int n) const {
    const std::string id = "sweep-" + std::to_string(n);
    return kind() == "mail" ? id + "@customers.example" : kind() == "store" ? "/" + id : id;
  }
  void plan(int n) {
    Effect effect{.provider = kind(), .effect_key = key(n), .body = "{}"};
    if (kind() == "mail") {
      effect.target = {{"to", key(n)}};
      effect.body = "Subject: x\n\nText.\n";
    } else if (kind() == "store") {
      effect.target = {{"url", providers.store() + key(n)}};
    } else {
      effect.target = {{"path", kind() == "plain" ? "/plain/charges" : "/charges"}};
    }
    pqxx::connection connection(world.dsn());
    pqxx::work tx(connection);
    outbox::plan(tx, effect);
    tx.commit();
  }
  test::Process worker(const test::Process::Environment& more) {
    test::Process::Environment environment = more;
    environment["LD_PRELOAD"] = std::string(OUTBOX_BUILD_DIR) + "/libfault_at_socket_call.so";
    return test::Process({test::program_path("worker-that-dies"), world.dsn(), kind(), url()}, environment);
  }
  int calls_of_a_whole_run() {
    plan(0);
    auto whole = worker({{"OUTBOX_SOCKET_CALLS", count_file}});
    EXPECT_EQ(whole.wait(), 0) << whole.output();
    int calls = 0;
    std::ifstream(count_file) >> calls;
    return calls;
  }

  test::EffectWorld world;
  test::StandIns providers;
  const std::string count_file = testing::TempDir() + "socket-calls-" + std::to_string(getpid());
};

TEST_P(EffectSweep, NothingIsRepeatedOrLostAndNoDoubtIsNobodys) {
  const int calls = calls_of_a_whole_run();
  ASSERT_GT(calls, 10) << "the library that kills was not loaded";
  int planned = 1;
  int killed = 0;
  for (int at = 1; at <= calls; ++at) {
    for (const char* when : {"before", "after"}) {
      plan(planned++);
      auto doomed = worker({{"OUTBOX_KILL_AT", std::to_string(at)}, {"OUTBOX_KILL_WHEN", when}});
      // A run can take a call less than the first one did, and then ends by itself.
      const int code = doomed.wait();
      ASSERT_TRUE(code == -SIGKILL || code == 0) << doomed.output();
      killed += code == -SIGKILL ? 1 : 0;
    }
  }
  EXPECT_GT(killed, calls);
  const auto left = [&] { return world.value("select count(*) from effect.effect where state in ('planned', 'claimed', 'in_doubt')"); };
  while (left() != "0") {
    auto healthy = worker({});
    test::eventually("the worker has settled one, or rules have nothing left", [&] { return !healthy.running() || left() == "0"; });
  }
  int doubts = 0;
  for (int n = 0; n < planned; ++n) {
    const std::string state = world.value("select state from effect.effect where effect_key = '" + key(n) + "'");
    const auto times = providers.effects(at(), key(n));
    if (GetParam().tells_repeats) {
      EXPECT_EQ(state, "done") << key(n);
      EXPECT_EQ(times, 1U) << key(n);
      continue;
    }
    EXPECT_LE(times, 1U) << key(n);
    EXPECT_TRUE(state == "done" || state == "needs_human") << key(n) << " is " << state;
    if (state == "done") {
      EXPECT_EQ(times, 1U) << key(n);
    } else {
      ++doubts;
    }
  }
  EXPECT_EQ(std::to_string(doubts), world.value("select count(*) from effect.needs_human"));
  std::cout << kind() << ": " << calls << " socket calls, killed " << killed << " times, " << planned << " effects, " << doubts
            << " left to a person\n";
}
INSTANTIATE_TEST_SUITE_P(Providers, EffectSweep,
                         testing::Values(Kind{"bank", true}, Kind{"store", true}, Kind{"plain", false}, Kind{"mail", false}),
                         [](const auto& chosen) { return chosen.param.name; });

}  // namespace
}  // namespace outbox
