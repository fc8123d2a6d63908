// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <unordered_set>
#include <vector>

#include "relay/core/ports.h"

namespace relay {

// The search for the message that makes Kafka refuse a record batch.
//
// Kafka refuses a record batch as a whole, and older clients do not say which of its messages is
// the cause. The search narrows it down, from one sending of the batch to the next:
//
//   1. split()   messages were refused together. They are suspected, and record batches become
//                smaller.
//   2. next()    a probe: the suspected messages alone. It is never committed. If Kafka refuses
//                some of them, the search goes on with 1.
//   3. passed()  Kafka took the probe, so none of them is refused by itself: next() is the whole
//                batch again, in record batches as small as the probe's.
//   4. isolates()  what was refused was alone in its record batch: it is the cause.
//
// All calls are about the newest batch of the journal. Used by the loop's thread.
class PoisonBisector {
 public:
  // What to send of a page.
  struct Attempt {
    PageMask masked;     // without these
    bool probe = false;  // do not commit it
  };
  // `parked` is never sent.
  Attempt next(const Page& page, const PageMask& parked) const;

  // How many messages a record batch may hold now; 0: as many as fit.
  std::size_t record_batch_max() const { return record_batch_max_; }
  // Whether each of the messages that were refused now was alone in its record batch.
  bool isolates(const std::vector<Rejection>& refused) const {
    return refused.size() == 1 || record_batch_max_ == 1;
  }
  void split(const std::vector<Rejection>& refused);
  void passed() { suspected_.clear(); }
  // The batch is done with, or goes on without the cause.
  void clear();

 private:
  // By seq: the page is read again for each sending, and may then have fewer messages.
  std::unordered_set<std::int64_t> suspected_;
  std::size_t record_batch_max_ = 0;
};

}  // namespace relay
