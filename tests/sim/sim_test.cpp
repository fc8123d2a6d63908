// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "relay/base/log.h"
#include "tests/sim/placed_schedule.h"
#include "tests/sim/random_schedule.h"
#include "tests/support/process.h"
#include "tests/support/test_outbox.h"

namespace relay::sim {
namespace {

class Simulation : public testing::Test {
 protected:
  static void SetUpTestSuite() { log::set_level(log::Level::error); }
};

TEST_F(Simulation, EachStepSurvivesACrashAndALateRequest) {
  const auto all = run_all_placed_schedules(0, 1'000);
  EXPECT_EQ(all.violation, "");
  EXPECT_GT(all.schedules, 10'000);
  RecordProperty("schedules", std::to_string(all.schedules));
}

TEST_F(Simulation, RandomSchedulesKeepEveryPromise) {
  for (std::uint64_t seed = 0; seed < 100'000; ++seed) {
    const auto result = run_random_schedule(seed);
    ASSERT_EQ(result.violation, "")
        << "seed " << seed << ": repeat it with simulate --schedules 1 --from " << seed;
  }
}

TEST_F(Simulation, TheSameSeedIsTheSameSchedule) {
  for (std::uint64_t seed = 0; seed < 100; ++seed)
    EXPECT_EQ(run_random_schedule(seed).points, run_random_schedule(seed).points);
}

// The checker must be able to fail: each defect breaks a guarantee within a bounded number of
// schedules. A crash is no verdict.
class MutantSimulation : public testing::TestWithParam<const char*> {};

TEST_P(MutantSimulation, IsCaught) {
  const auto ended =
      test::run_command({test::program_path("tests/simulate-mutants"), "--schedules", "400000"},
                        {{"OUTBOX_MUTANT", GetParam()}}, Millis{120'000});
  EXPECT_EQ(ended.code, 1) << ended.output;
  EXPECT_NE(ended.output.find("seed "), std::string::npos) << ended.output;
}

INSTANTIATE_TEST_SUITE_P(Defects, MutantSimulation,
                         testing::Values("no_token_check", "incarnation_rule_off",
                                         "mark_before_confirm", "no_epoch_lock",
                                         "synchronous_commit_off", "order_by_txid",
                                         "position_is_highest_seq"),
                         [](const auto& tested) { return std::string(tested.param); });

}  // namespace
}  // namespace relay::sim
