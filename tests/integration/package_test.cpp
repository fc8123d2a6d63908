// SPDX-License-Identifier: Apache-2.0
// The C++ API as users get it: installed, found by find_package(outbox) from a project outside the
// tree, and used through the relay.
#include <gtest/gtest.h>

#include <signal.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/support/consuming.h"
#include "tests/support/kafka_log.h"
#include "tests/support/test_inbox.h"
#include "tests/support/test_outbox.h"

namespace relay {
namespace {

namespace fs = std::filesystem;
using test::TestOutbox;

class PackageTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    run({cmake, "--install", OUTBOX_BUILD_DIR, "--prefix", folder() / "installed"});
  }
  static void TearDownTestSuite() { fs::remove_all(folder()); }

  static fs::path folder() {
    return fs::path(::testing::TempDir()) / ("outbox-package-" + std::to_string(getpid()));
  }
  // Of this test's own.
  static fs::path source() {
    return folder() / ::testing::UnitTest::GetInstance()->current_test_info()->name();
  }
  static void run(const std::vector<std::string>& command) {
    const auto done = test::run_command(command, {}, Millis{300'000});
    ASSERT_EQ(done.code, 0) << command.front() << ": " << done.output;
  }
  // Builds the project in source() outside the tree, and returns where.
  static std::string build() {
    const fs::path built = source() / "build";
    run({cmake, "-S", source(), "-B", built,
         "-DCMAKE_PREFIX_PATH=" + (folder() / "installed").string(),
         "-DCMAKE_CXX_FLAGS=" SANITIZE_FLAGS});
    run({cmake, "--build", built});
    return built;
  }
  static std::string build_example(const char* name) {
    fs::copy(fs::path(OUTBOX_SOURCE_DIR) / "examples" / name, source());
    return build();
  }

  inline static const std::string cmake = "/usr/bin/cmake";
};

TEST_F(PackageTest, AProjectOutsideTheTreeFindsItAndItsMessagesArrive) {
  const std::string built = build_example("enqueue");

  TestOutbox db;
  for (const char* topic : {"shop.charges", "shop.emails"}) db.kafka().create_topic(topic, 1);
  db.environment["OUTBOX_RELAY_TOPICS_ALLOW"] = "shop.*";
  db.sql("create table account (id bigint primary key, cents bigint)");
  db.sql("insert into account values (7, 5000)");
  const auto done = test::run_command({built + "/enqueue-example", db.dsn(), "7", "4200"}, {});
  ASSERT_EQ(done.code, 0) << done.output;
  std::vector<std::string> ids;
  std::istringstream lines(done.output);
  for (std::string line; std::getline(lines, line);) ids.push_back(line);
  ASSERT_EQ(ids.size(), 3U) << done.output;

  db.deliver();
  const auto log = test::read_log(db.kafka().brokers(), {"shop.charges", "shop.emails"},
                                  test::Isolation::read_committed);
  ASSERT_EQ(log.records.size(), 2U);
  EXPECT_EQ(log.records[0].key, "account-7");
  EXPECT_EQ(log.records[0].payload, "{\"cents\": 4200}");
  EXPECT_EQ(log.records[0].header("dedup-key"), ids[0]);
  EXPECT_EQ(log.records[0].header("content-type"), "application/json");
  EXPECT_EQ(log.records[1].header("dedup-key"), ids[1]);
  EXPECT_EQ(db.value("select cents from account"), "800");
  EXPECT_EQ(db.value("select count(*) from outbox.scheduled where id = '" + ids[2] + "'"), "1");
}

TEST_F(PackageTest, TheWorkersAreAProjectOfTheirOwn) {
  const std::string built = build_example("workers");
  const auto without = test::run_command({built + "/charge-worker"}, {});
  EXPECT_EQ(without.code, 2) << without.output;
  EXPECT_NE(without.output.find("one argument is needed"), std::string::npos) << without.output;
}

TEST_F(PackageTest, TheAdaptersForProvidersAreFoundAsWell) {
  fs::create_directories(source());
  std::ofstream(source() / "CMakeLists.txt") << R"(cmake_minimum_required(VERSION 3.25)
project(uses-effects CXX)
find_package(outbox REQUIRED COMPONENTS effects)
add_executable(uses-effects main.cpp)
target_link_libraries(uses-effects PRIVATE outbox::effects)
)";
  std::ofstream(source() / "main.cpp") << R"(#include <outbox/http_provider.h>
#include <outbox/smtp_provider.h>
#include <outbox/upload_provider.h>
int main() {
  outbox::HttpProvider http({.base_url = "http://127.0.0.1:1"});
  outbox::SmtpProvider mail({.url = "smtp://127.0.0.1:1"});
  outbox::UploadProvider uploads({.origins = {"http://127.0.0.1:1"}});
  outbox::Provider* all[] = {&http, &mail, &uploads};
  for (outbox::Provider* provider : all) {
    const auto outcome = provider->call({.effect_key = "a", .provider_key = "a"},
                                        outbox::BootClock::now() + std::chrono::seconds(5));
    if (outcome.answer != outbox::Answer::refused) return 1;
  }
  return 0;
}
)";
  const std::string built = build();
  run({built + "/uses-effects"});
}

TEST_F(PackageTest, AProjectOutsideTheTreeFindsTheConsumerAndWorksWithIt) {
  const std::string built = build_example("consume");

  test::TestInbox db;
  db.sql("create table charge (dedup_key text, what text)");
  test::shared_kafka().create_topic("consumed", 1);
  test::produce_numbers(test::shared_kafka().brokers(), "consumed", 0, 100);
  test::produce_numbers(test::shared_kafka().brokers(), "consumed", 50, 50);
  test::Process consumer(
      {built + "/consume-example", test::shared_kafka().brokers(), db.dsn(), "consumed"}, {});
  test::eventually("all are handled",
                   [&] { return db.value("select count(*) from charge") == "100"; });
  consumer.signal(SIGTERM);
  EXPECT_EQ(consumer.wait(), 0) << consumer.output();
  EXPECT_NE(consumer.output().find("to=consuming"), std::string::npos) << consumer.output();
}

}  // namespace
}  // namespace relay
