// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <unordered_set>
#include <vector>

#include "relay/core/ports.h"

namespace outbox {

// Which of the messages that Kafka refused together is to blame?
//
// Kafka refuses a record batch as a whole, and older clients cannot tell for which of its messages. So those of a refused record
// batch are suspects: they are sent again by themselves, in smaller record batches, which is a trial and is never committed; and so
// on, until what is refused was alone in its record batch. If a trial is taken, none of them is bad by itself: the whole batch is
// then sent in record batches as small as the trial's.
//
// All calls are about the newest batch of the journal.
class Suspects {
 public:
  // How many messages a record batch may hold now; 0: as many as fit.
  std::size_t record_batch_max() const { return record_batch_max_; }
  // Whether messages that were refused now are each to blame, because each was alone.
  bool convicts(const std::vector<Rejection>& refused) const { return refused.size() == 1 || record_batch_max_ == 1; }
  // These were refused together: they are due for a trial in smaller record batches.
  void narrow(const std::vector<Rejection>& refused);
  // Their trial was taken.
  void acquit() { seqs_.clear(); }
  // The batch is done with, or goes on without a culprit.
  void clear();

  // What a trial that is due leaves out: indexes of all messages of the page that are in `skip` or not suspected. Empty: there is
  // nothing to try apart from the rest.
  std::vector<std::size_t> left_out(const Page& page, const std::vector<std::size_t>& skip) const;

 private:
  std::unordered_set<std::int64_t> seqs_;
  std::size_t record_batch_max_ = 0;
};

}  // namespace outbox
