// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "relay/base/clock.h"

namespace relay::test {

// Polls `condition` until it holds; throws with `what` when it has not in time. The time of a
// machine that is shared by more tasks than it has processors counts for less, in proportion.
void eventually(const std::string& what, const std::function<bool()>& condition,
                Millis within = Millis{30'000});

// A child process that dies with the test. Its output goes to a file that is kept until the object
// is gone.
class Process {
 public:
  using Environment = std::map<std::string, std::string>;
  Process(std::vector<std::string> command, const Environment& environment);
  ~Process();  // kill -9
  Process(Process&& other) noexcept;
  Process& operator=(Process&&) = delete;

  pid_t pid() const { return pid_; }
  void signal(int number) const;
  bool running();
  // Waits for the end, as eventually() does; the exit code, or -signal.
  int wait(Millis within = Millis{30'000});
  // Waits until it has stopped itself, as OUTBOX_STOP_AT makes it; SIGCONT lets it go on.
  void stops() const;
  std::string output() const;
  // Waits until the output contains `text`; throws with the whole output when it does not come.
  void says(const std::string& text, Millis within = Millis{30'000}) const;

 private:
  pid_t pid_ = -1;
  std::string file_;
  std::optional<int> status_;
};

// Runs a command to its end.
struct Finished {
  int code;
  std::string output;
};
Finished run_command(std::vector<std::string> command, const Process::Environment& environment,
                     Millis within = Millis{60'000});

}  // namespace relay::test
