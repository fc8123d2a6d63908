// SPDX-License-Identifier: Apache-2.0
#include "relay/kafka/connection_failure.h"

#include <mutex>

#include "relay/base/clock.h"

namespace relay::kafka {
namespace {

constexpr Millis of_late{60'000};

struct Failure {
  std::mutex mutex;
  std::string text;
  Clock::time_point at{};
};

Failure& last() {
  static Failure failure;
  return failure;
}

}  // namespace

// "[thrd:host:9092/1]: host:9092/1: Connect to ipv4#… failed: Connection refused (after 0ms in
// state CONNECT, 3 identical error(s) suppressed)"
void note_connection_failure(const std::string& line) {
  std::string text = line;
  if (const auto end = text.find("]: "); text.starts_with("[thrd:") && end != std::string::npos)
    text.erase(0, end + 3);
  if (const auto timing = text.rfind(" (after "); timing != std::string::npos) text.erase(timing);
  const std::lock_guard lock(last().mutex);
  last().text = text;
  last().at = Clock::now();
}

std::string connection_failure() {
  const std::lock_guard lock(last().mutex);
  return Clock::now() < last().at + of_late ? last().text : std::string();
}

}  // namespace relay::kafka
