// SPDX-License-Identifier: Apache-2.0
#include "relay/core/key_order.h"

#include "relay/base/check.h"
#include "relay/base/sabotage.h"

namespace outbox {
namespace {

std::string key_of(const Message& m) {
  std::string key(m.topic);
  key += '\0';
  key += *m.key;
  return key;
}

}  // namespace

Result<void> KeyBlocks::reload() {
  if (order_ == KeyOrder::message) return {};
  auto topics = journal_.topics_with_blocked_keys();
  if (!topics) return topics.error();
  topics_ = {topics->begin(), topics->end()};
  return {};
}

// Messages of the page whose key was blocked before the page was looked at.
Result<std::unordered_set<std::int64_t>> KeyBlocks::blocked_before(std::int64_t number, const Page& page) {
  std::vector<const Message*> suspects;
  for (const Message& m : page.messages) {
    if (m.key && topics_.contains(std::string(m.topic))) suspects.push_back(&m);
  }
  std::unordered_set<std::int64_t> seqs;
  if (suspects.empty()) return seqs;
  auto blocked = journal_.blocked(number, suspects);
  if (!blocked) return blocked.error();
  for (const std::size_t i : *blocked) seqs.insert(suspects[i]->seq);
  return seqs;
}

Result<std::vector<Rejection>> KeyBlocks::extend(const Batch& batch, const Page& page, std::vector<Rejection> vetted) {
  const bool ask = !batch.release && !topics_.empty();
  if (order_ == KeyOrder::message || (vetted.empty() && !ask) || SABOTAGED(parked_retried_out_of_order)) return vetted;
  std::unordered_set<std::int64_t> before;
  if (ask) {
    auto found = blocked_before(batch.number, page);
    if (!found) return found.error();
    before = std::move(*found);
  }
  std::vector<Rejection> all;
  std::unordered_set<std::string> keys;  // blocked by this page
  auto next = vetted.begin();
  for (const Message& m : page.messages) {
    if (next != vetted.end() && next->seq == m.seq) {
      all.push_back(std::move(*next++));
      if (m.key) keys.insert(key_of(m));
    } else if (m.key && (before.contains(m.seq) || (!keys.empty() && keys.contains(key_of(m))))) {
      all.push_back({m.seq, "key_blocked", "an earlier message of the same topic and key is parked"});
    }
  }
  return all;
}

void KeyBlocks::parked(const Page& page, const std::vector<std::size_t>& indexes) {
  if (order_ == KeyOrder::message) return;
  for (const std::size_t i : indexes) {
    if (page.messages[i].key) topics_.emplace(page.messages[i].topic);
  }
}

std::vector<std::size_t> indexes_of(const Page& page, const std::vector<Rejection>& rejected) {
  std::vector<std::size_t> indexes;
  indexes.reserve(rejected.size());
  std::size_t i = 0;
  for (const Rejection& r : rejected) {
    while (i < page.messages.size() && page.messages[i].seq < r.seq) ++i;
    CHECK(i < page.messages.size() && page.messages[i].seq == r.seq);
    indexes.push_back(i);
  }
  return indexes;
}

}  // namespace outbox
