// SPDX-License-Identifier: Apache-2.0
// Poison amid thousands of messages, and the relay killed at every point between two steps: while
// it parks what cannot be sent, and while it executes what was decided about that.
#include <gtest/gtest.h>
#include <signal.h>

#include "relay/core/loop.h"
#include "tests/support/checker.h"
#include "tests/support/load.h"

namespace relay {
namespace {

using test::TestOutbox;

constexpr int rounds = static_cast<int>(last_phase) + 1;
constexpr int messages_a_round = 1'700;  // 20,000 in all

class PoisonCrashTest : public ::testing::TestWithParam<const char*> {
 protected:
  PoisonCrashTest()
      : topic(db.topic("t", 2, {"cleanup.policy=compact"})), other(db.topic("other")) {
    db.environment["OUTBOX_RELAY_DELIVERY_ORDER"] = GetParam();
    test::create_counters(db);
  }

  // One transaction with a message that cannot be sent, as its headers show, of a key that differs
  // from round to round. In some rounds also one without a key, which only the broker knows to
  // refuse: it takes the relay a second to find out which it was.
  static bool with_refused(int round) {
    const auto phase = static_cast<Phase>(round);
    return phase == Phase::recovered || phase == Phase::parked || phase == Phase::sent;
  }
  void put(int round) {
    const std::string bad = std::to_string(messages_a_round / 2 + round);
    const std::string before = std::to_string(messages_a_round * round);
    db.sql("insert into outbox.message (topic, key, payload, headers) select '" + topic +
           "', m.key, coalesce(m.key || "
           "convert_to(' ' || (" +
           before + " + m.g), 'UTF8'), 'poison'), case when m.g = " + bad +
           " then '[]'::jsonb end "
           "from (select g, convert_to('p' || g % 40, 'UTF8') as key from generate_series(1, " +
           std::to_string(messages_a_round) + ") g union all select " + bad +
           " - 100, null where " + (with_refused(round) ? "true" : "false") +
           ") m order by m.g, m.key");
  }
  void crash_at(Phase phase) {
    if (phase == Phase::claimed) return;                               // of the first start of all
    db.sql("update outbox.lease set expires_at = clock_timestamp()");  // so that the dead relay
                                                                       // need not be waited out
    auto doomed = db.relay({{"OUTBOX_CRASH_AT", to_string(phase)}}, "relay-with-crash-points");
    EXPECT_EQ(doomed.wait(Millis{60'000}), -SIGKILL) << to_string(phase) << "\n" << doomed.output();
  }
  std::vector<std::string> parked(const std::string& error_class) {
    std::vector<std::string> ids;
    for (const auto& row : db.sql(
             "select p.id from outbox.parked p where p.released_in is null and p.error_class = '" +
             error_class + "' order by p.seq")) {
      ids.push_back(row[0].as<std::string>());
    }
    return ids;
  }
  void decide(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "parked");
    arguments.insert(arguments.end(), {"--why", "a test"});
    const auto done = db.command(arguments);
    ASSERT_EQ(done.code, 0) << done.output;
  }
  static bool by_key() { return GetParam() == std::string("key"); }

  TestOutbox db;
  std::string topic;
  std::string other;
};

TEST_P(PoisonCrashTest, NothingIsLostRepeatedOrReorderedWhereverTheRelayIsKilled) {
  test::Load load([&] { test::write(db, other, 10); });
  for (int round = 0; round < rounds; ++round) {
    const auto phase = static_cast<Phase>(round);
    if (phase == Phase::marking)
      load.end();  // a mark stands alone only when nothing else is there to be sent
    put(round);
    crash_at(phase);
  }
  db.deliver();
  const auto bad = parked("bad_headers");
  const auto refused = parked("refused");
  ASSERT_EQ(bad.size(), static_cast<std::size_t>(rounds));
  ASSERT_EQ(refused.size(), 3U);
  EXPECT_EQ(parked("key_blocked").empty(), !by_key());
  auto verdict = test::check_delivery(db, {topic, other});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;

  int edited = 0;
  for (std::size_t round = 0; round < bad.size(); ++round) {
    const auto phase = static_cast<Phase>(round);
    if (round < refused.size()) decide({"edit", refused[round], "--key", "late"});
    if (phase == Phase::parked || round % 3 == 0) {
      decide({"release", bad[round]});  // in vain: it is parked again
    } else if (round % 3 == 1) {
      decide({"discard", bad[round]});
    } else {
      decide({"edit", bad[round], "--no-headers"});
      ++edited;
    }
    crash_at(phase);
    test::write(db, topic, 20);
  }
  db.deliver();
  decide({"discard", "--class", "bad_headers"});
  db.deliver();
  EXPECT_EQ(db.value("select count(*) from outbox.parked p where p.released_in is null"), "0");
  verdict = test::check_delivery(db, {topic, other});
  EXPECT_EQ(verdict.parked, rounds - edited) << verdict;  // the discarded ones
  if (!by_key()) {
    EXPECT_LE(verdict.reordered, edited)
        << verdict;  // those came when they were edited, and no other did
    verdict.reordered = 0;
  }
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
}

INSTANTIATE_TEST_SUITE_P(InBothOrders, PoisonCrashTest, ::testing::Values("key", "message"),
                         [](const auto& p) { return std::string(p.param); });

}  // namespace
}  // namespace relay
