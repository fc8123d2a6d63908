// SPDX-License-Identifier: Apache-2.0
#include <librdkafka/rdkafka.h>

#include "tests/faults/scenarios.h"
#include "tests/support/dying_consumers.h"
#include "tests/support/effect_sweep.h"
#include "tests/support/effect_trials.h"

namespace relay::faults {
namespace {

Counts counts_of(const test::EffectReport& f) {
  return {.committed = f.asked,
          .arrived = f.executed,
          .parked = f.needs_review,
          .lost = f.lost,
          .repeated = f.repeated,
          .reordered = f.reordered,
          .stuck = f.stuck,
          .journal = f.journal,
          .exits = f.exits};
}

Counts conclude(AloneRound& round, const test::EffectReport& f, test::TestOutbox& db) {
  for (const std::string& example : f.examples)
    round.why += (round.why.empty() ? "" : "; ") + example;
  const std::string version = db.value("show server_version");
  round.servers["postgres"] = version.substr(0, version.find(' '));
  return counts_of(f);
}

// Half of the sessions run one consumer only, so that a death is followed by a restart in some and
// by a rebalance in others.
class ConsumersDie : public Alone {
 public:
  explicit ConsumersDie(std::uint64_t seed)
      : kafka_({"group.min.session.timeout.ms=1000"}),
        company_(one_of_two(seed)),
        consumers_(postgres_, kafka_, company_) {}

  Counts run(AloneRound& round) override {
    consumers_.one_dies(round.random());
    round.healed_at = Clock::now();
    const auto found = consumers_.check_delivery();
    round.recovered_at = Clock::now();
    round.detail =
        company_ == Company::none ? "it comes back under its name" : "the group rebalances";
    round.servers["kafka"] = round.kafka_version;
    round.servers["librdkafka"] = rd_kafka_version_str();
    return conclude(round, found, consumers_.db());
  }

 private:
  using Company = test::DyingConsumers::Company;

  // The seed's own last bit is not random: it is the same for all even rounds.
  static Company one_of_two(std::uint64_t seed) {
    Random random(seed);
    return chance(random, 0.5) ? Company::none : Company::steady;
  }

  test::ScratchPostgres postgres_;
  test::ScratchKafka kafka_;
  const Company company_;
  test::DyingConsumers consumers_;
};

// A round is a whole sweep with one kind of provider.
class WorkersDie : public Alone {
 public:
  Counts run(AloneRound& round) override {
    const auto& provider = test::swept_providers.at(static_cast<std::size_t>(round.number) %
                                                    test::swept_providers.size());
    test::EffectSweep sweep(postgres_, provider);
    const auto found = sweep.run();
    round.measured["sweeps"] = 1.0 / static_cast<double>(test::swept_providers.size());
    round.detail = std::string(provider.name) + ": killed " + std::to_string(sweep.killed()) +
                   " times at " + std::to_string(sweep.calls()) + " socket calls; " +
                   std::to_string(found.needs_review) + " left to an operator";
    return conclude(round, found, sweep.db());
  }

 private:
  test::ScratchPostgres postgres_;
};

class ProvidersFail : public Alone {
 public:
  Counts run(AloneRound& round) override {
    const auto kind = test::EffectTrials::kinds.at(static_cast<std::size_t>(round.number) %
                                                   test::EffectTrials::kinds.size());
    const auto found = trials_.round(kind, round.number, round.random);
    round.detail = std::string(test::EffectTrials::name(kind)) + "; " +
                   std::to_string(found.needs_review) + " left to an operator";
    return conclude(round, found, trials_.db());
  }

 private:
  test::ScratchPostgres postgres_;
  test::EffectTrials trials_{postgres_};
};

}  // namespace

std::vector<Scenario> effect_scenarios() {
  return {
      {.id = "EF01",
       .inject = {},
       .rounds_of_session = 10,
       .alone = [](std::uint64_t seed) { return std::make_unique<ConsumersDie>(seed); }},
      {.id = "EF02",
       .inject = {},
       .alone = [](std::uint64_t) { return std::make_unique<WorkersDie>(); },
       .rounds = 4},
      {.id = "EF03",
       .inject = {},
       .alone = [](std::uint64_t) { return std::make_unique<ProvidersFail>(); }},
  };
}

}  // namespace relay::faults
