// SPDX-License-Identifier: Apache-2.0
// What comes next while the relay streams or drains: one table, without side effects.
#pragma once

namespace relay {

enum class NextAction {
  await_delivery,  // a batch is in flight: serve its delivery reports
  open_release,    // open a batch of parked messages that were decided about
  open_page,       // open a batch of the page that was read ahead
  mark_delivered,  // the last batch is confirmed, and no other comes that could carry its mark
  finish,          // drained: hand over and stop
  wait,
};
const char* to_string(NextAction action);

// What the choice depends on.
struct StreamStatus {
  bool draining = false;        // asked to stop: nothing new is opened
  bool in_flight = false;       // a batch is open and not confirmed
  bool reading = false;         // the hot session reads a page
  bool page_ready = false;      // a page was read ahead
  bool release_wanted = false;  // there may be decisions about parked messages
  bool stream_is_next = false;  // the last batch was a release: they take turns
  bool unmarked = false;        // the last batch is confirmed, and not yet marked delivered
  bool mark_is_due = false;     // and that for so long that it is marked alone
};

NextAction next_action(const StreamStatus& status);

}  // namespace relay
