// SPDX-License-Identifier: Apache-2.0
// A login that is refused says which of the places that a password can come from was used.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/support/test_outbox.h"

namespace relay {
namespace {

class PasswordTest : public ::testing::Test {
 protected:
  PasswordTest() {
    std::ofstream(file) << "wrong\n";
    std::filesystem::permissions(
        file, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
    environment = {{"OUTBOX_RELAY_RELAY_NAME", "password-test"},
                   {"OUTBOX_RELAY_POSTGRES_DSN", postgres.dsn()},
                   {"OUTBOX_RELAY_KAFKA_BROKERS", "127.0.0.1:1"},
                   {"OUTBOX_RELAY_TOPICS_ALLOW", "*"},
                   {"PGPASSFILE", "/nonexistent"}};
  }
  ~PasswordTest() override { std::filesystem::remove(file); }

  void expect_refused(const std::string& server, const std::string& source) const {
    for (const char* command : {"status", "init", "prune"}) {
      const auto done =
          test::run_command({test::program_path("outbox-relay"), command}, environment);
      EXPECT_EQ(done.code, 3) << command << ": " << done.output;
      EXPECT_NE(done.output.find(server), std::string::npos) << command << ": " << done.output;
      EXPECT_NE(done.output.find(source), std::string::npos) << command << ": " << done.output;
      EXPECT_EQ(done.output.find("wrong"), std::string::npos) << command << ": " << done.output;
    }
    test::Process relay({test::program_path("outbox-relay"), "run"}, environment);
    relay.says(source);
  }

  test::ScratchPostgres postgres{{"auth=scram"}};
  std::filesystem::path file =
      std::filesystem::path(testing::TempDir()) / ("password-test-" + std::to_string(getpid()));
  test::Process::Environment environment;
};

TEST_F(PasswordTest, TheSourceOfTheRefusedPasswordIsNamed) {
  expect_refused("no password supplied", "libpq looked in PGPASSWORD and in ~/.pgpass");
  environment["PGPASSWORD"] = "wrong";
  expect_refused("password authentication failed", "libpq looked in PGPASSWORD");
  environment["OUTBOX_RELAY_POSTGRES_DSN"] = postgres.dsn() + " password=wrong";
  expect_refused("password authentication failed", "the password was that of the dsn");
  environment["OUTBOX_RELAY_POSTGRES_DSN"] = postgres.dsn();
  environment["OUTBOX_RELAY_POSTGRES_PASSWORD_FILE"] = file;
  expect_refused("password authentication failed",
                 "the password was read from the file " + file.string());
}

}  // namespace
}  // namespace relay
