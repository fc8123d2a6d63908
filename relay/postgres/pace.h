// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "relay/base/clock.h"

namespace relay::postgres {

// How often something is done that may take long: the pause after it is `times` as long as it took,
// between `shortest` and `longest`. Not thread safe.
class Pace {
 public:
  Pace(int times, Millis shortest, Millis longest)
      : times_(times), shortest_(shortest), longest_(longest) {}
  void reset() { due_at_ = {}; }
  bool due() const { return Clock::now() >= due_at_; }
  // It was done, and began at `began`.
  void done(Clock::time_point began) {
    due_at_ =
        began + std::clamp<Clock::duration>(times_ * (Clock::now() - began), shortest_, longest_);
  }

 private:
  int times_;
  Millis shortest_;
  Millis longest_;
  Clock::time_point due_at_{};
};

}  // namespace relay::postgres
