// SPDX-License-Identifier: Apache-2.0
// SIGHUP: the relay takes what it can of a configuration that was changed, says what it cannot, and loses nothing.
#include <gtest/gtest.h>
#include <signal.h>

#include <fstream>
#include <future>

#include "tests/support/judge.h"

namespace relay {
namespace {

using test::World;

class ReloadTest : public ::testing::Test {
 protected:
  ReloadTest() : file(::testing::TempDir() + world.name() + ".toml"), topic(world.topic("t")), late(world.topic("late")) {
    configure("allow = [\"" + topic + "\"]");
    world.environment.erase("OUTBOX_RELAY_TOPICS_ALLOW");
    world.environment["OUTBOX_RELAY_TOPICS_MISSING_AFTER"] = "500ms";
  }
  void configure(const std::string& topics, const std::string& more = {}) { std::ofstream(file) << "[topics]\n" << topics << "\n" << more; }
  test::Process run() { return test::Process({test::program_path("outbox-relay"), "run", "--config", file}, world.environment); }

  World world;
  std::string file;
  std::string topic;
  std::string late;
};

TEST_F(ReloadTest, ATopicThatIsAllowedNowIsServedAndTheLeaseIsKept) {
  test::create_counters(world);
  auto relay = run();
  relay.says("to=streaming");
  test::write(world, late, 1);
  world.settled();
  EXPECT_EQ(world.value("select count(*) from outbox.parked where error_class = 'topic_not_allowed'"), "1");
  const std::string holder = world.value("select holder from outbox.lease");
  auto writer = std::async(std::launch::async, [&] { test::write(world, topic, 300); });
  configure("allow = [\"" + topic + "\", \"" + late + "\"]");
  relay.signal(SIGHUP);
  relay.says("reloaded");
  ASSERT_EQ(world.command({"parked", "release", "--topic", late, "--why", "allowed now"}, {{"OUTBOX_RELAY_TOPICS_ALLOW", "*"}}).code, 0);
  writer.get();
  world.settled();
  world.released();
  EXPECT_EQ(world.value("select holder from outbox.lease"), holder);
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  const auto verdict = test::judge(world, {topic, late});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
  EXPECT_EQ(verdict.parked, 0) << verdict;
}

TEST_F(ReloadTest, MistakesAreReportedAndTheOldConfigurationStays) {
  auto relay = run();
  relay.says("to=streaming");
  configure("allow = 7", "[poll]\nidle = \"never\"\n");
  relay.signal(SIGHUP);
  relay.says("reload_refused");
  test::create_counters(world);
  test::write(world, topic, 10);
  world.settled();
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0);
  EXPECT_NE(relay.output().find("topics.allow"), std::string::npos) << relay.output();
  EXPECT_NE(relay.output().find("poll.idle"), std::string::npos) << relay.output();
  EXPECT_EQ(test::judge(world, {topic}).arrived, 30);
}

TEST_F(ReloadTest, WhatNeedsARestartIsNamedAndNotTaken) {
  auto relay = run();
  relay.says("to=streaming");
  configure("allow = [\"" + topic + "\"]", "[delivery]\norder = \"message\"\n[log]\nlevel = \"warn\"\n");
  relay.signal(SIGHUP);
  relay.says("needs_restart=delivery.order");
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  EXPECT_NE(relay.output().find("changed=log.level"), std::string::npos) << relay.output();
  EXPECT_EQ(relay.output().find("to=stopped"), std::string::npos) << "the new level was not taken: " << relay.output();
}

}  // namespace
}  // namespace relay
