// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <unordered_set>
#include <vector>

#include "relay/core/ports.h"

namespace relay {

// Which messages a parked one holds back: with KeyOrder::key, the later ones of its (topic, key),
// in its page and in every later page, until it is released. The truth is outbox.parked; what is
// remembered here only saves questions to the database.
//
// All parking is done by the holder of the lease, so between two recoveries nobody else changes
// what is blocked. Used by the loop's thread.
class KeyBlocks {
 public:
  KeyBlocks(KeyOrder order, Journal& journal) : order_(order), journal_(journal) {}

  // From so many topics on, the journal is asked about each message with a key: what is remembered
  // must not grow with what is parked.
  static constexpr std::size_t topics_max = 1'000;

  // Asks the journal again; at each recovery.
  Result<void> reload();
  // Returns `rejected` and, where keys keep their order, every message of the page whose key is
  // blocked. Both ascending. What is being released can only be blocked by what is released with
  // it. Of `batch` only number and release are used.
  Result<std::vector<Rejection>> extend(const Batch& batch, const Page& page,
                                        std::vector<Rejection> rejected);
  // These messages of the page were parked.
  void parked(const Page& page, const PageMask& messages);

 private:
  bool may_be_blocked(const Message& m) const;
  void remember(std::string topic);
  Result<PageMask> blocked_before(std::int64_t number, const Page& page);

  const KeyOrder order_;
  Journal& journal_;
  std::unordered_set<std::string> topics_;  // topics with keys that a parked message blocks
  bool any_topic_ = false;                  // they are more than topics_max
};

// The messages that were rejected.
PageMask mask_of(const std::vector<Rejection>& rejected);

}  // namespace relay
