// SPDX-License-Identifier: Apache-2.0
// BootClock, and the default implementation of Provider::lookup().
#include "outbox/provider.h"

#include <ctime>

namespace outbox {
inline namespace v1 {

BootClock::time_point BootClock::now() noexcept {
  timespec time{};
  ::clock_gettime(CLOCK_BOOTTIME, &time);
  return time_point(std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec));
}

Outcome Provider::lookup(const Request&, Deadline) {
  Outcome outcome;
  outcome.error = "the adapter does not support lookups. HINT: check supports_lookup() first";
  return outcome;
}

}  // namespace v1
}  // namespace outbox
