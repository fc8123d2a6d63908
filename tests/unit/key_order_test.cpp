// SPDX-License-Identifier: Apache-2.0
#include "relay/core/key_order.h"

#include <gtest/gtest.h>

#include <set>

namespace relay {
namespace {

// A journal that knows of blocked keys, and counts how often it is asked.
class FakeJournal : public Journal {
 public:
  Result<std::optional<Batch>> newest() override { return std::optional<Batch>{}; }
  Result<std::optional<Predecessor>> before(std::int64_t) override {
    return std::optional<Predecessor>{};
  }
  Result<bool> knows(const Uuid&) override { return false; }
  Result<void> open(Batch&, std::span<const Rejection>, const std::optional<Confirmed>&,
                    bool) override {
    return {};
  }
  Result<bool> open_release(Batch&, const std::optional<Confirmed>&) override { return false; }
  Result<void> mark_delivered(std::int64_t, const Confirmed&) override { return {}; }
  Result<void> park(std::int64_t, const Batch&, std::span<const Rejection>) override { return {}; }
  Result<std::vector<std::string>> topics_with_blocked_keys(std::size_t count_max) override {
    std::vector<std::string> some(topics.begin(), topics.end());
    if (some.size() > count_max) some.resize(count_max);
    return some;
  }
  Result<std::vector<std::size_t>> blocked(std::int64_t,
                                           std::span<const Message* const> messages) override {
    ++questions;
    std::vector<std::size_t> found;
    for (std::size_t i = 0; i < messages.size(); ++i) {
      if (keys.contains(std::string(*messages[i]->key))) found.push_back(i);
    }
    return found;
  }

  std::set<std::string> topics;
  std::set<std::string> keys;
  int questions = 0;
};

struct Sent {
  const char* topic;
  const char* key;  // nullptr: none
};

Page page_of(const std::vector<Sent>& messages) {
  Page page;
  for (const Sent& s : messages) {
    Message m;
    m.seq = 10 * static_cast<std::int64_t>(page.messages.size());
    m.topic = s.topic;
    if (s.key != nullptr) m.key = s.key;
    page.messages.push_back(m);
  }
  return page;
}

class KeyBlocksTest : public testing::Test {
 protected:
  // The indexes of what is rejected in the end, with the class of its error.
  std::vector<std::pair<std::size_t, std::string>> extended(
      const Page& page, const std::vector<std::size_t>& rejected, bool release = false,
      KeyOrder order = KeyOrder::key) {
    KeyBlocks blocks(order, journal);
    EXPECT_TRUE(blocks.reload());
    std::vector<Rejection> given;
    for (const std::size_t i : rejected) given.push_back({i, page.messages[i].seq, "bad", {}});
    Batch batch;
    batch.release = release;
    std::vector<std::pair<std::size_t, std::string>> out;
    const auto all = blocks.extend(batch, page, std::move(given));
    EXPECT_TRUE(all);
    for (const Rejection& r : *all) {
      EXPECT_EQ(r.seq, page.messages[r.index].seq);
      out.emplace_back(r.index, r.error_class);
    }
    return out;
  }

  using Rejected = std::vector<std::pair<std::size_t, std::string>>;
  FakeJournal journal;
};

TEST_F(KeyBlocksTest, ARejectedMessageBlocksTheLaterOnesOfItsKey) {
  const Page page = page_of({{"t", "a"}, {"t", "b"}, {"t", "a"}, {"u", "a"}, {"t", nullptr}});
  EXPECT_EQ(extended(page, {0}), (Rejected{{0, "bad"}, {2, "key_blocked"}}));
  EXPECT_EQ(extended(page, {2}), (Rejected{{2, "bad"}}));
  EXPECT_EQ(extended(page, {4}), (Rejected{{4, "bad"}}));  // without a key it blocks nothing
}

TEST_F(KeyBlocksTest, AKeyThatWasBlockedBeforeStaysBlocked) {
  journal.topics = {"t"};
  journal.keys = {"a"};
  const Page page = page_of({{"t", "b"}, {"t", "a"}, {"u", "a"}});
  EXPECT_EQ(extended(page, {}), (Rejected{{1, "key_blocked"}}));
  EXPECT_EQ(journal.questions, 1);
}

TEST_F(KeyBlocksTest, OfTopicsWithoutBlockedKeysNothingIsAsked) {
  journal.topics = {"other"};
  EXPECT_EQ(extended(page_of({{"t", "a"}}), {}), Rejected{});
  EXPECT_EQ(journal.questions, 0);
}

TEST_F(KeyBlocksTest, OfMoreTopicsThanAreRememberedEachKeyIsAskedAbout) {
  for (std::size_t i = 0; i < KeyBlocks::topics_max; ++i)
    journal.topics.insert("a" + std::to_string(i));
  const Page page = page_of({{"t", "a"}, {"u", nullptr}, {"v", "b"}});
  journal.keys = {"a"};
  EXPECT_EQ(extended(page, {}), Rejected{});
  EXPECT_EQ(journal.questions, 0);
  journal.topics.insert("t");
  EXPECT_EQ(extended(page, {}), (Rejected{{0, "key_blocked"}}));
  EXPECT_EQ(journal.questions, 1);

  // Those of this process's own count as well.
  journal.topics.erase("t");
  KeyBlocks blocks(KeyOrder::key, journal);
  ASSERT_TRUE(blocks.reload());
  PageMask first;
  first.add(0);
  blocks.parked(page, first);
  const auto all = blocks.extend(Batch{}, page, {});
  ASSERT_TRUE(all);
  EXPECT_EQ(all->size(), 1U);
}

TEST_F(KeyBlocksTest, AReleaseIsBlockedByItselfOnly) {
  journal.topics = {"t"};
  journal.keys = {"a"};
  const Page page = page_of({{"t", "a"}, {"t", "a"}});
  EXPECT_EQ(extended(page, {}, true), Rejected{});
  EXPECT_EQ(extended(page, {0}, true), (Rejected{{0, "bad"}, {1, "key_blocked"}}));
  EXPECT_EQ(journal.questions, 0);
}

TEST_F(KeyBlocksTest, WithoutOrderOfKeysNothingIsBlocked) {
  journal.topics = {"t"};
  journal.keys = {"a"};
  const Page page = page_of({{"t", "a"}, {"t", "a"}});
  EXPECT_EQ(extended(page, {0}, false, KeyOrder::message), (Rejected{{0, "bad"}}));
}

TEST_F(KeyBlocksTest, WhatWasParkedIsAskedAboutInTheNextPage) {
  KeyBlocks blocks(KeyOrder::key, journal);
  const Page page = page_of({{"t", "a"}, {"u", nullptr}});
  PageMask parked;
  parked.add(0);
  parked.add(1);
  blocks.parked(page, parked);
  journal.keys = {"a"};
  const auto all = blocks.extend(Batch{}, page_of({{"t", "a"}, {"u", "a"}}), {});
  ASSERT_TRUE(all);
  ASSERT_EQ(all->size(), 1U);
  EXPECT_EQ((*all)[0].index, 0U);
}

TEST_F(KeyBlocksTest, AMaskOfRejectionsHasTheirIndexes) {
  const PageMask mask = mask_of({{1, 10, "bad", {}}, {3, 30, "bad", {}}});
  EXPECT_EQ(mask.count(), 2U);
  EXPECT_TRUE(mask.contains(1) && mask.contains(3));
}

}  // namespace
}  // namespace relay
