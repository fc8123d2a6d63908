// SPDX-License-Identifier: Apache-2.0
// The states of a relay, the phases of a batch, and what the log shows of the states.
#pragma once

#include <cstdint>
#include <string>

namespace relay {

// Each transition that an operator should see is one log line: see StateLog.
enum class State { standby, recovering, streaming, stalled, draining, stopped };
const char* to_string(State state);

// The points between two steps of the protocol, where a crash must leave nothing in confusion.
enum class Phase {
  leased,       // the lease is taken, older producers are not fenced yet
  initialised,  // older producers are fenced
  claimed,      // a new relay has claimed its name in Kafka
  recovered,    // the outcome of the newest batch is known to the journal
  parked,       // rejections of a batch that is already open are committed
  opening,      // a page is read, its batch not yet open
  opened,       // the batch is in the journal, nothing is sent
  begun,        // the Kafka transaction has begun
  sent,         // everything is handed to the Kafka client
  reported,     // every delivery report has come
  confirmed,    // Kafka has committed, the journal does not know
  marking,      // about to mark the batch alone
  marked,       // the journal knows
};
inline constexpr Phase last_phase = Phase::marked;
const char* to_string(Phase phase);

// Decides which states are shown. The loop passes through some that nobody needs to hear of: while
// one trouble lasts, each probe leads through standby and recovering and back.
class StateLog {
 public:
  // The loop is in `state` now. `in_trouble`: a trouble that was shown has not ended.
  void entered(State state, bool in_trouble, std::int64_t epoch, const std::string& why) {
    if (!in_trouble || state != State::recovering) show(state, epoch, why);
  }
  // Shows that it is in `state`, unless that was shown last.
  void show(State state, std::int64_t epoch, const std::string& why = {});

 private:
  State shown_ = State::stopped;
};

}  // namespace relay
