// SPDX-License-Identifier: Apache-2.0
// outbox-relay, but it kills itself (SIGKILL) or stops itself (SIGSTOP) at the n-th time it reaches
// a phase of the protocol: OUTBOX_CRASH_AT=confirmed:2, OUTBOX_STOP_AT=opened:1.
#include <signal.h>

#include <cstdlib>
#include <string>

#include "relay/commands/commands.h"
#include "relay/core/loop.h"

namespace {

struct Point {
  std::string phase;
  int times = 0;

  explicit Point(const char* variable) {
    const char* const text = std::getenv(variable);
    if (text == nullptr) return;
    const std::string at = text;
    const auto colon = at.find(':');
    phase = at.substr(0, colon);
    times = colon == std::string::npos ? 1 : std::stoi(at.substr(colon + 1));
  }
  bool reached(relay::Phase now) { return phase == to_string(now) && --times == 0; }
};

}  // namespace

int main(int argc, char** argv) {
  Point crash("OUTBOX_CRASH_AT");
  Point stop("OUTBOX_STOP_AT");
  return relay::main_command(argc, argv, [&](relay::Phase now) {
    if (crash.reached(now)) raise(SIGKILL);
    if (stop.reached(now)) raise(SIGSTOP);
  });
}
