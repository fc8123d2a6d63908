// SPDX-License-Identifier: Apache-2.0
// What happens around the calls of a relay: time, other processes, and what the network makes of a
// request.
#pragma once

#include "relay/base/clock.h"

namespace relay::sim {

// What becomes of a request.
enum class RequestFate {
  arrives,
  answer_lost,  // the server does it, the client does not hear of it
  late,         // the connection breaks, and the server does it later, whatever happens in between
  lost,         // the connection breaks, and the server never sees it
};

// The models ask it before and after everything that they do. Calm schedule lets every call through
// and nothing happen in between.
class FaultSchedule {
 public:
  virtual ~FaultSchedule() = default;
  // Between two steps: anything else may happen here; if the process is killed here, this throws
  // Killed.
  virtual void point() {}
  // What becomes of the request that is sent now.
  virtual RequestFate fate() { return RequestFate::arrives; }
  // A small choice, true once in so many; what is usual is false.
  virtual bool maybe(unsigned one_in) {
    static_cast<void>(one_in);
    return false;
  }
  virtual Clock::time_point now() const = 0;
};

// Thrown by FaultSchedule::point() through the loop: the process is gone, as after kill -9.
struct Killed {};

}  // namespace relay::sim
