// SPDX-License-Identifier: Apache-2.0
// SIGHUP: the relay takes what it can of a configuration that was changed, says what it cannot, and
// loses nothing.
#include <gtest/gtest.h>
#include <signal.h>

#include <fstream>
#include <future>

#include "tests/support/checker.h"

namespace relay {
namespace {

using test::TestOutbox;

class ReloadTest : public ::testing::Test {
 protected:
  ReloadTest()
      : file(::testing::TempDir() + db.name() + ".toml"),
        topic(db.topic("t")),
        late(db.topic("late")) {
    configure("allow = [\"" + topic + "\"]");
    db.environment.erase("OUTBOX_RELAY_TOPICS_ALLOW");
    db.environment["OUTBOX_RELAY_TOPICS_MISSING_AFTER"] = "500ms";
  }
  void configure(const std::string& topics, const std::string& more = {}) {
    std::ofstream(file) << "[topics]\n" << topics << "\n" << more;
  }
  test::Process run() {
    return test::Process({test::program_path("outbox-relay"), "run", "--config", file},
                         db.environment);
  }

  TestOutbox db;
  std::string file;
  std::string topic;
  std::string late;
};

TEST_F(ReloadTest, ATopicThatIsAllowedNowIsServedAndTheLeaseIsKept) {
  test::create_counters(db);
  auto relay = run();
  relay.says("to=streaming");
  test::write(db, late, 1);
  db.wait_until_idle();
  EXPECT_EQ(db.value("select count(*) from outbox.parked where error_class = 'topic_not_allowed'"),
            "1");
  const std::string holder = db.value("select holder from outbox.lease");
  auto writer = std::async(std::launch::async, [&] { test::write(db, topic, 300); });
  configure("allow = [\"" + topic + "\", \"" + late + "\"]");
  relay.signal(SIGHUP);
  relay.says("reloaded");
  ASSERT_EQ(db.command({"parked", "release", "--topic", late, "--why", "allowed now"},
                       {{"OUTBOX_RELAY_TOPICS_ALLOW", "*"}})
                .code,
            0);
  writer.get();
  db.wait_until_idle();
  db.wait_until_released();
  EXPECT_EQ(db.value("select holder from outbox.lease"), holder);
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  const auto verdict = test::check_delivery(db, {topic, late});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
  EXPECT_EQ(verdict.parked, 0) << verdict;
}

TEST_F(ReloadTest, MistakesAreReportedAndTheOldConfigurationStays) {
  auto relay = run();
  relay.says("to=streaming");
  configure("allow = 7", "[poll]\nidle = \"never\"\n");
  relay.signal(SIGHUP);
  relay.says("reload_refused");
  test::create_counters(db);
  test::write(db, topic, 10);
  db.wait_until_idle();
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0);
  EXPECT_NE(relay.output().find("topics.allow"), std::string::npos) << relay.output();
  EXPECT_NE(relay.output().find("poll.idle"), std::string::npos) << relay.output();
  EXPECT_EQ(test::check_delivery(db, {topic}).arrived, 30);
}

TEST_F(ReloadTest, WhatNeedsARestartIsNamedAndNotTaken) {
  auto relay = run();
  relay.says("to=streaming");
  configure("allow = [\"" + topic + "\"]",
            "[delivery]\norder = \"message\"\n[log]\nlevel = \"warn\"\n");
  relay.signal(SIGHUP);
  relay.says("needs_restart=delivery.order");
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  EXPECT_NE(relay.output().find("changed=log.level"), std::string::npos) << relay.output();
  EXPECT_EQ(relay.output().find("to=stopped"), std::string::npos)
      << "the new level was not taken: " << relay.output();
}

}  // namespace
}  // namespace relay
