// SPDX-License-Identifier: Apache-2.0
// The relay is killed at every point between two steps of the protocol, in both modes, and started
// again.
#include <gtest/gtest.h>
#include <signal.h>

#include "relay/core/loop.h"
#include "tests/support/checker.h"

namespace relay {
namespace {

using test::TestOutbox;

// What the next relay finds of the batch that was being delivered, after a crash at a phase.
enum class Finds { nothing, not_delivered, delivered };

struct Expectation {
  Finds exactly_once;
  Finds at_least_once;
  const char*
      crash_before;  // a crash that must come first, so that the phase is reached; nullptr: none
};

// A phase without a row fails EveryPhaseHasACrashPoint.
const std::map<Phase, Expectation>& expectations() {
  static const std::map<Phase, Expectation> all = {
      {Phase::leased, {Finds::nothing, Finds::nothing, nullptr}},
      {Phase::initialised, {Finds::nothing, Finds::nothing, nullptr}},
      {Phase::claimed, {Finds::nothing, Finds::nothing, nullptr}},
      {Phase::recovered, {Finds::not_delivered, Finds::not_delivered, "opened"}},
      {Phase::parked, {Finds::not_delivered, Finds::not_delivered, "opened"}},
      {Phase::opening, {Finds::nothing, Finds::nothing, nullptr}},
      {Phase::opened, {Finds::not_delivered, Finds::not_delivered, nullptr}},
      {Phase::begun, {Finds::not_delivered, Finds::not_delivered, nullptr}},
      {Phase::sent, {Finds::not_delivered, Finds::not_delivered, nullptr}},
      {Phase::reported, {Finds::not_delivered, Finds::not_delivered, nullptr}},
      {Phase::confirmed, {Finds::delivered, Finds::not_delivered, nullptr}},
      {Phase::marking, {Finds::delivered, Finds::not_delivered, nullptr}},
      {Phase::marked, {Finds::nothing, Finds::nothing, nullptr}},
  };
  return all;
}

class CrashTest : public ::testing::TestWithParam<std::tuple<Mode, int>> {};

TEST(CrashPoints, EveryPhaseHasACrashPoint) {
  for (int p = 0; p <= static_cast<int>(last_phase); ++p) {
    EXPECT_TRUE(expectations().contains(static_cast<Phase>(p))) << to_string(static_cast<Phase>(p));
  }
}

TEST_P(CrashTest, NothingIsLostGhostedRepeatedOrReordered) {
  const Mode mode = std::get<0>(GetParam());
  const Phase phase = static_cast<Phase>(std::get<1>(GetParam()));
  const Expectation expected = expectations().at(phase);
  TestOutbox db;
  db.environment["OUTBOX_RELAY_RELAY_MODE"] = to_string(mode);
  const std::string kept = db.topic("kept");
  const std::string other = db.topic("other");
  test::create_counters(db);
  test::write(db, kept, 30);
  test::write(db, other, 10);

  const auto crash_at = [&](const std::string& where, const test::Process::Environment& more = {}) {
    test::Process::Environment environment = more;
    environment["OUTBOX_CRASH_AT"] = where;
    auto doomed = db.relay(environment, "relay-with-crash-points");
    EXPECT_EQ(doomed.wait(), -SIGKILL) << doomed.output();
  };
  if (expected.crash_before != nullptr) crash_at(expected.crash_before);
  // For Phase::parked, the batch in doubt must hold something that cannot be sent any more.
  const test::Process::Environment narrowed = {{"OUTBOX_RELAY_TOPICS_ALLOW", kept}};
  if (phase == Phase::parked) db.environment.erase("OUTBOX_RELAY_TOPICS_ALLOW");
  crash_at(to_string(phase), phase == Phase::parked ? narrowed : test::Process::Environment{});
  test::write(db, kept, 20);

  auto relay = db.relay(phase == Phase::parked ? narrowed : test::Process::Environment{});
  db.wait_until_idle();
  relay.signal(SIGTERM);
  ASSERT_EQ(relay.wait(), 0) << relay.output();

  const Finds found_expected =
      mode == Mode::exactly_once ? expected.exactly_once : expected.at_least_once;
  const std::string log = relay.output();
  const Finds found = log.find("found=delivered") != std::string::npos       ? Finds::delivered
                      : log.find("found=not_delivered") != std::string::npos ? Finds::not_delivered
                                                                             : Finds::nothing;
  EXPECT_EQ(found, found_expected) << log;
  EXPECT_EQ(log.find(" error "), std::string::npos) << log;

  const auto verdict = test::check_delivery(db, {kept, other});
  EXPECT_TRUE(verdict.at_least_once()) << verdict;
  EXPECT_EQ(verdict.parked > 0, phase == Phase::parked) << verdict;
  if (mode == Mode::exactly_once) {
    EXPECT_EQ(verdict.repeated, 0) << verdict;
  } else {
    // Only messages of the batch in doubt may come again, once for each crash.
    const auto first =
        std::stoll(db.value("select messages from outbox.batch order by number limit 1"));
    EXPECT_LE(verdict.repeated, 2 * first) << verdict;
    if (phase == Phase::confirmed || phase == Phase::marking) {
      EXPECT_GT(verdict.repeated, 0) << verdict;
    }
  }
  EXPECT_EQ(test::check_delivery(db, {kept, other}, test::Isolation::read_uncommitted).ghosts, 0);
}

INSTANTIATE_TEST_SUITE_P(AtEveryPhase, CrashTest,
                         ::testing::Combine(::testing::Values(Mode::exactly_once,
                                                              Mode::at_least_once),
                                            ::testing::Range(0, static_cast<int>(last_phase) + 1)),
                         [](const auto& point) {
                           std::string name = std::get<0>(point.param) == Mode::exactly_once
                                                  ? "exactly_once_"
                                                  : "at_least_once_";
                           return name + to_string(static_cast<Phase>(std::get<1>(point.param)));
                         });

}  // namespace
}  // namespace relay
