// SPDX-License-Identifier: Apache-2.0
#include "relay/core/next_action.h"

namespace relay {

NextAction next_action(const StreamStatus& s) {
  if (s.in_flight) return NextAction::await_delivery;
  const bool streams_turn = s.page_ready && s.stream_is_next;
  if (s.release_wanted && !s.reading && !s.draining && !streams_turn)
    return NextAction::open_release;
  if (s.page_ready && !s.draining) return NextAction::open_page;
  if (s.unmarked && (s.draining || s.mark_is_due)) return NextAction::mark_delivered;
  if (s.draining) return NextAction::finish;
  return NextAction::wait;
}

const char* to_string(NextAction action) {
  switch (action) {
    case NextAction::await_delivery: return "await_delivery";
    case NextAction::open_release: return "open_release";
    case NextAction::open_page: return "open_page";
    case NextAction::mark_delivered: return "mark_delivered";
    case NextAction::finish: return "finish";
    case NextAction::wait: return "wait";
  }
  return "unknown";
}

}  // namespace relay
