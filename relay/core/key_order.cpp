// SPDX-License-Identifier: Apache-2.0
#include "relay/core/key_order.h"

#include "relay/base/mutants.h"

namespace relay {
namespace {

std::string key_of(const Message& m) {
  std::string key(m.topic);
  key += '\0';
  key += *m.key;
  return key;
}

Rejection key_blocked(std::size_t index, const Message& m) {
  return {index, m.seq, "key_blocked", "an earlier message of the same topic and key is parked"};
}

}  // namespace

Result<void> KeyBlocks::reload() {
  if (order_ == KeyOrder::message) return {};
  auto topics = journal_.topics_with_blocked_keys(topics_max + 1);
  if (!topics) return topics.error();
  topics_.clear();
  any_topic_ = false;
  for (std::string& topic : *topics) remember(std::move(topic));
  return {};
}

void KeyBlocks::remember(std::string topic) {
  if (any_topic_) return;
  topics_.insert(std::move(topic));
  if (topics_.size() <= topics_max) return;
  any_topic_ = true;
  topics_.clear();
}

bool KeyBlocks::may_be_blocked(const Message& m) const {
  return m.key && (any_topic_ || topics_.contains(std::string(m.topic)));
}

// Messages of the page whose key was blocked before the page was looked at.
Result<PageMask> KeyBlocks::blocked_before(std::int64_t number, const Page& page) {
  std::vector<const Message*> asked;
  std::vector<std::size_t> indexes;  // of those, in the page
  for (std::size_t i = 0; i < page.messages.size(); ++i) {
    const Message& m = page.messages[i];
    if (!may_be_blocked(m)) continue;
    asked.push_back(&m);
    indexes.push_back(i);
  }
  PageMask before;
  if (asked.empty()) return before;
  auto blocked = journal_.blocked(number, asked);
  if (!blocked) return blocked.error();
  for (const std::size_t n : *blocked) before.add(indexes[n]);
  return before;
}

Result<std::vector<Rejection>> KeyBlocks::extend(const Batch& batch, const Page& page,
                                                 std::vector<Rejection> rejected) {
  const bool ask = !batch.release && (any_topic_ || !topics_.empty());
  if (order_ == KeyOrder::message || (rejected.empty() && !ask) ||
      MUTANT(parked_retried_out_of_order)) {
    return rejected;
  }
  PageMask before;
  if (ask) {
    auto found = blocked_before(batch.number, page);
    if (!found) return found.error();
    before = std::move(*found);
  }
  std::vector<Rejection> all;
  std::unordered_set<std::string> keys;  // blocked by this page
  auto next = rejected.begin();
  for (std::size_t i = 0; i < page.messages.size(); ++i) {
    const Message& m = page.messages[i];
    if (next != rejected.end() && next->index == i) {
      all.push_back(std::move(*next++));
      if (m.key) keys.insert(key_of(m));
    } else if (m.key && (before.contains(i) || (!keys.empty() && keys.contains(key_of(m))))) {
      all.push_back(key_blocked(i, m));
    }
  }
  return all;
}

void KeyBlocks::parked(const Page& page, const PageMask& messages) {
  if (order_ == KeyOrder::message) return;
  messages.for_each([&](std::size_t i) {
    if (page.messages[i].key) remember(std::string(page.messages[i].topic));
  });
}

PageMask mask_of(const std::vector<Rejection>& rejected) {
  PageMask mask;
  for (const Rejection& r : rejected) mask.add(r.index);
  return mask;
}

}  // namespace relay
