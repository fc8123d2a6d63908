// SPDX-License-Identifier: Apache-2.0
#include "relay/core/snapshot.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace relay {
namespace {

TEST(SnapshotTest, ReadsWhatTheServerPrints) {
  const auto s = Snapshot::parse("10:20:10,14,15");
  ASSERT_TRUE(s);
  EXPECT_EQ(s->xmin(), 10u);
  EXPECT_EQ(s->xmax(), 20u);
  EXPECT_EQ(s->running(), (std::vector<Xid>{10, 14, 15}));
  EXPECT_EQ(s->text(), "10:20:10,14,15");
  EXPECT_TRUE(Snapshot::parse("7:7:"));
}

TEST(SnapshotTest, RefusesWhatNoServerPrints) {
  for (const char* bad : {"", "10", "10:20", "20:10:", "10:20:9", "10:20:20", "10:20:14,",
                          "10:20:15,14", "10:20:14,14", "a:b:", "10:20:x", "10:20:1 ",
                          "-1:20:", "10:20::", "99999999999999999999:99999999999999999999:"}) {
    EXPECT_FALSE(Snapshot::parse(bad)) << bad;
  }
}

TEST(SnapshotTest, ATransactionIsFinishedWhenItIsBelowXmaxAndNotRunning) {
  const auto s = *Snapshot::parse("10:20:10,14");
  for (const Xid finished : {1u, 9u, 11u, 13u, 15u, 19u})
    EXPECT_TRUE(s.finished(finished)) << finished;
  for (const Xid not_yet : {10u, 14u, 20u, 21u}) EXPECT_FALSE(s.finished(not_yet)) << not_yet;
}

TEST(SnapshotTest, ADifferenceIsExactlyWhatFinishedInBetween) {
  std::mt19937 random(20261124);
  for (int round = 0; round < 2'000; ++round) {
    // Two snapshots of one history: what was finished stays finished.
    std::string texts[2];
    std::vector<bool> finished(60, false);
    Xid xmax = 20;
    for (auto& text : texts) {
      xmax += random() % 20;
      std::string running;
      Xid xmin = xmax;
      for (Xid x = 3; x < xmax; ++x) {
        if (!finished[x]) finished[x] = random() % 3 != 0;
        if (finished[x]) continue;
        xmin = std::min(xmin, x);
        running += (running.empty() ? "" : ",") + std::to_string(x);
      }
      text = std::to_string(xmin) + ":" + std::to_string(xmax) + ":" + running;
    }
    const auto base = *Snapshot::parse(texts[0]);
    const auto upto = *Snapshot::parse(texts[1]);
    const Difference d = Difference::between(base, upto);
    for (Xid x = 3; x < xmax + 2; ++x) {
      int found = static_cast<int>(std::count(d.late.begin(), d.late.end(), x));
      for (const XidRange r : d.fresh) found += x >= r.from && x < r.to ? 1 : 0;
      EXPECT_EQ(found, !base.finished(x) && upto.finished(x) ? 1 : 0)
          << texts[0] << " → " << texts[1] << " at " << x;
    }
  }
}

}  // namespace
}  // namespace relay
