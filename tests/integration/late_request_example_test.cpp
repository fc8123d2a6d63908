// SPDX-License-Identifier: Apache-2.0
// examples/late_request shows what docs/late-requests.md says.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/support/process.h"
#include "tests/support/scratch_servers.h"

namespace relay {
namespace {

// What the program prints; it reports its verdict by its exit code.
std::string shown(std::vector<std::string> arguments) {
  std::vector<std::string> command = {"/usr/bin/python3",
                                      OUTBOX_SOURCE_DIR "/examples/late_request/late_request.py",
                                      "--bootstrap", test::shared_kafka().brokers()};
  command.insert(command.end(), arguments.begin(), arguments.end());
  const auto done = test::run_command(command, {}, Millis{120'000});
  EXPECT_EQ(done.code, 0) << done.output;
  return done.output;
}

void expect_says(const std::string& output, const std::string& line) {
  EXPECT_NE(("\n" + output).find("\n" + line + "\n"), std::string::npos)
      << "no line '" << line << "' in\n"
      << output;
}

TEST(LateRequestExample, ALateAbortLosesMessagesOfACommitThatSaidOk) {
  const auto output = shown({"--late", "abort"});
  expect_says(output, "late  the abort of n comes on the old connection; the broker says NO_ERROR");
  expect_says(output, "n+1   m2 and m3 delivered to partition 1; commit says OK");
  expect_says(output, "read  read_committed sees m2 m3");
  expect_says(output, "LOST  m0 m1, though commit said OK");
}

TEST(LateRequestExample, ALateCommitShowsHalfOfAnAbortedTransaction) {
  const auto output = shown({"--late", "commit"});
  expect_says(output,
              "late  the commit of n comes on the old connection; the broker says NO_ERROR");
  expect_says(output, "n+1   m2 and m3 delivered to partition 1; abort says OK");
  expect_says(output, "read  read_committed sees m0 m1 n0 n1 n2 n3");
  expect_says(output, "TORN  m0 m1 visible, though n+1 was aborted");
}

TEST(LateRequestExample, ANewProducerInBetweenKeepsBothOut) {
  const auto aborted = shown({"--late", "abort", "--rule"});
  expect_says(
      aborted,
      "late  the abort of n comes on the old connection; the broker says INVALID_PRODUCER_EPOCH");
  expect_says(aborted, "read  read_committed sees m0 m1 m2 m3");
  expect_says(aborted, "INTACT");
  const auto committed = shown({"--late", "commit", "--rule"});
  expect_says(
      committed,
      "late  the commit of n comes on the old connection; the broker says INVALID_PRODUCER_EPOCH");
  expect_says(committed, "read  read_committed sees n0 n1 n2 n3");
  expect_says(committed, "INTACT");
}

// The page's counter, as it stands there, makes a plugin of librdkafka.
TEST(LateRequestExample, TheCounterOfThePageNoticesARepeatedRequestAndNoOther) {
  std::ostringstream page;
  page << std::ifstream(OUTBOX_SOURCE_DIR "/docs/late-requests.md").rdbuf();
  const std::string text = page.str();
  const auto from = text.find("\n```c\n");
  ASSERT_NE(from, std::string::npos);
  const auto to = text.find("\n```\n", from);
  const std::filesystem::path folder =
      std::filesystem::path(testing::TempDir()) / ("late-request-" + std::to_string(getpid()));
  std::filesystem::create_directory(folder);
  std::ofstream(folder / "counter.c") << text.substr(from + 6, to - from - 5) << R"(
static atomic_long n;
rd_kafka_resp_err_t conf_init(rd_kafka_conf_t *conf, void **opaque, char *why, size_t size) {
  return count_unanswered(conf, &n);
}
long unanswered(void) { return n; }
)";
  const auto built =
      test::run_command({"/usr/bin/cc", "-std=c11", "-Wall", "-Werror", "-shared", "-fPIC", "-o",
                         folder / "counter.so", folder / "counter.c", "-lrdkafka"},
                        {});
  ASSERT_EQ(built.code, 0) << built.output;
  const auto done =
      test::run_command({"/usr/bin/python3", OUTBOX_SOURCE_DIR "/tests/support/count_unanswered.py",
                         test::shared_kafka().brokers(), folder / "counter.so"},
                        {}, Millis{120'000});
  std::filesystem::remove_all(folder);
  EXPECT_EQ(done.code, 0) << done.output;
  expect_says(done.output, "quiet 0");
  expect_says(done.output, "disturbed 1");
}

}  // namespace
}  // namespace relay
