// SPDX-License-Identifier: Apache-2.0
// What the effect ledger costs for each call to a provider: claim and settle, with an adapter that
// answers at once; and what a claim costs when many effects are done or planned, also while an old
// snapshot keeps the dead rows.
//
//   effects [--effects 5000] [--kept 100000] [--planned 10000]
#include <chrono>
#include <thread>

#include "outbox/effect_worker.h"
#include "tests/support/bench_main.h"
#include "tests/support/process.h"
#include "tests/support/test_ledger.h"
#include "tests/support/usage.h"

namespace {

using namespace relay;
using namespace relay::test;
using Clock = std::chrono::steady_clock;

class Instant : public outbox::Provider {
 public:
  outbox::Outcome call(const outbox::Request&, Deadline) override {
    return {.phase = outbox::Phase::answered, .answer = outbox::Answer::done, .status = 201};
  }
};

double seconds_since(Clock::time_point begun) {
  return std::chrono::duration<double>(Clock::now() - begun).count();
}

// Time of a worker for each call.
void measure(TestLedger& db, int workers, int claims_max, int effects) {
  db.sql("truncate effect.effect cascade");
  db.plan("p", "n", effects);
  const auto begun = Clock::now();
  std::vector<std::unique_ptr<outbox::EffectWorker>> all;
  std::vector<std::jthread> threads;
  for (int i = 0; i < workers; ++i) {
    outbox::EffectWorkerOptions o{.dsn = db.dsn(), .claims_max = claims_max};
    o.accounts.push_back({"p", std::nullopt, std::make_unique<Instant>()});
    all.push_back(std::make_unique<outbox::EffectWorker>(std::move(o)));
    threads.emplace_back(
        [&worker = *all.back()](const std::stop_token& stop) { worker.run(stop); });
  }
  eventually(
      "all are done",
      [&] {
        std::uint64_t done = 0;
        for (const auto& w : all) done += w->stats().done;
        return done >= static_cast<std::uint64_t>(effects);
      },
      Millis{300'000});
  const double time = seconds_since(begun);
  std::printf("%d workers, claims_max %2d: %6.0f effects a second, %.2f ms of a worker for each\n",
              workers, claims_max, effects / time, 1000 * time * workers / effects);
  std::fflush(stdout);
}

// Median time of the server for one claim and one settle.
void measure_claims(pqxx::connection& connection, const std::string& what) {
  std::vector<double> claims;
  std::vector<double> settles;
  for (int i = 0; i < 300; ++i) {
    pqxx::work tx(connection);
    const auto begun = Clock::now();
    const auto claimed = outbox::effect::claim(tx, "p", "bench");
    claims.push_back(1000 * seconds_since(begun));
    if (claimed.empty()) throw std::runtime_error("nothing to claim");
    tx.commit();
    pqxx::work settling(connection);
    const auto answered = Clock::now();
    outbox::effect::settle(settling, claimed.front(),
                           {.phase = outbox::Phase::answered, .answer = outbox::Answer::done});
    settles.push_back(1000 * seconds_since(answered));
    settling.commit();
  }
  std::printf("%-64s claim %.2f ms, settle %.2f ms (without the commits)\n", what.c_str(),
              median(claims), median(settles));
  std::fflush(stdout);
}

void measure_kept(TestLedger& db, int kept, int planned) {
  db.sql("truncate effect.effect cascade");
  pqxx::connection connection(db.dsn());
  db.plan("p", "first", 400);
  measure_claims(connection, "few effects");
  // As if each had been claimed and settled, in the order of their ids.
  const auto execute = [&](const std::string& prefix, int count) {
    db.plan("p", prefix, count);
    db.sql(
        "set session_replication_role = replica; "
        "update effect.effect set state = 'claimed', epoch = 1, attempts = 1, worker = 'b', "
        "claim_expires_at = now() + interval '1 h' "
        "where effect_key like '" +
        prefix +
        "-%'; "
        "update effect.effect set state = 'done', worker = null, claim_expires_at = null, "
        "settled_at = now(), evidence = 'answer' "
        "where effect_key like '" +
        prefix + "-%'");
  };
  execute("done", kept);
  db.plan("p", "second", planned);
  measure_claims(connection, std::to_string(kept) + " done, " + std::to_string(planned) +
                                 " planned, not analyzed");
  db.sql("vacuum analyze effect.effect");
  measure_claims(connection, "the same, vacuumed and analyzed");
  pqxx::connection old(db.dsn());
  pqxx::transaction<pqxx::isolation_level::repeatable_read> snapshot(old);
  snapshot.exec("select count(*) from effect.effect");
  db.sql(
      "set session_replication_role = replica; update effect.effect set state = 'done', epoch = 1, "
      "attempts = 1, settled_at = now(), "
      "evidence = 'answer' where state = 'planned'");
  db.plan("p", "third", planned);
  measure_claims(connection,
                 std::to_string(planned) + " done since an old snapshot was taken, which is held");
}

}  // namespace

int main(int argc, char** argv) {
  int effects = 5'000;
  int kept = 100'000;
  int planned = 10'000;
  return relay::test::bench_main(
      argc, argv, "effects", "Measures what the effect ledger costs.",
      {{"--effects", &effects, "Of each measurement"},
       {"--kept", &kept, "Effects that are done"},
       {"--planned", &planned, "Effects that are planned"}},
      [&] {
        ScratchPostgres postgres;
        TestLedger db(postgres);
        db.register_provider("p", {.in_doubt_policy = outbox::InDoubtPolicy::hold,
                                   .idempotency_window = std::chrono::hours{24}});
        measure_kept(db, kept, planned);
        for (const auto& [workers, claims_max] : {std::pair{1, 1}, {1, 10}, {4, 1}, {4, 10}})
          measure(db, workers, claims_max, effects);
      });
}
