// SPDX-License-Identifier: Apache-2.0
// A client for which the machine has no thread at the moment: nothing is wrong with the
// configuration, and the next attempt may go well.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "relay/kafka/handle.h"

namespace relay::kafka {
namespace {

constexpr rlim_t room_without_a_stack =
    4 << 20;  // for what a client allocates; the stack of a thread has 8 MB

rlim_t bytes_mapped() {
  rlim_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * static_cast<rlim_t>(sysconf(_SC_PAGESIZE));
}

[[noreturn]] void start_without_threads() {
  const rlim_t limit = bytes_mapped() + room_without_a_stack;
  const rlimit no_stack{limit, limit};
  if (setrlimit(RLIMIT_AS, &no_stack) != 0) std::abort();
  Options options;
  options.brokers = "127.0.0.1:1";
  const auto client = make_admin_client(options);
  if (client) std::_Exit(1);
  std::fprintf(stderr, "%s\n", client.error().what.c_str());
  std::_Exit(client.error().fault == Fault::kafka ? 0 : 2);
}

TEST(ClientStart, WithoutAThreadIsATroubleOfTheMoment) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer reserves terabytes, so that address space cannot be bounded";
#endif
  EXPECT_EXIT(start_without_threads(), testing::ExitedWithCode(0),
              "librdkafka does not start: .*thread");
}

TEST(ClientStart, WithABadValueIsAnErrorOfTheConfiguration) {
  Options options;
  options.brokers = "127.0.0.1:1";
  options.properties = {{"security.protocol", "sasl_plaintext"},
                        {"sasl.mechanisms", "SCRAM-SHA-256"}};
  const auto client = make_admin_client(options);
  ASSERT_FALSE(client);
  EXPECT_EQ(client.error().fault, Fault::usage) << client.error().what;
}

}  // namespace
}  // namespace relay::kafka
