// SPDX-License-Identifier: Apache-2.0
#include "relay/core/suspects.h"

#include <algorithm>

namespace outbox {
namespace {

// Record batches per trial: more of them find the culprit in fewer trials, and a trial must end before its transaction times out.
constexpr std::size_t record_batches_per_trial = 64;

}  // namespace

void Suspects::narrow(const std::vector<Rejection>& refused) {
  seqs_.clear();
  for (const Rejection& r : refused) seqs_.insert(r.seq);
  const std::size_t size = (refused.size() + record_batches_per_trial - 1) / record_batches_per_trial;
  // Smaller each time, whatever is refused, so that it comes to an end.
  record_batch_max_ = record_batch_max_ == 0 ? size : std::max<std::size_t>(1, std::min(size, record_batch_max_ / 2));
}

void Suspects::clear() {
  seqs_.clear();
  record_batch_max_ = 0;
}

std::vector<std::size_t> Suspects::left_out(const Page& page, const std::vector<std::size_t>& skip) const {
  std::vector<std::size_t> indexes;
  if (seqs_.empty()) return indexes;
  auto skipped = skip.begin();
  for (std::size_t i = 0; i < page.messages.size(); ++i) {
    const bool is_skipped = skipped != skip.end() && *skipped == i;
    if (is_skipped) ++skipped;
    if (is_skipped || !seqs_.contains(page.messages[i].seq)) indexes.push_back(i);
  }
  if (indexes.size() == page.messages.size()) indexes.clear();
  return indexes;
}

}  // namespace outbox
