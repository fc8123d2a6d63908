// SPDX-License-Identifier: Apache-2.0
#include "relay/core/state.h"

#include <iterator>

#include "relay/base/log.h"

namespace relay {

const char* to_string(State state) {
  switch (state) {
    case State::standby: return "standby";
    case State::recovering: return "recovering";
    case State::streaming: return "streaming";
    case State::stalled: return "stalled";
    case State::draining: return "draining";
    case State::stopped: return "stopped";
  }
  return "unknown";
}

const char* to_string(Phase phase) {
  static constexpr const char* names[] = {
      "leased", "initialised", "claimed",  "recovered", "parked",  "opening", "opened",
      "begun",  "sent",        "reported", "confirmed", "marking", "marked"};
  static_assert(std::size(names) == static_cast<std::size_t>(last_phase) + 1);
  return names[static_cast<std::size_t>(phase)];
}

void StateLog::show(State state, std::int64_t epoch, const std::string& why) {
  if (state == shown_) return;
  log::event(
      why.empty() ? log::Level::info : log::Level::warn, "state_changed",
      {{"from", to_string(shown_)}, {"to", to_string(state)}, {"epoch", epoch}, {"reason", why}});
  shown_ = state;
}

}  // namespace relay
