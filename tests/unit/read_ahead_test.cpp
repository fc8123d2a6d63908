// SPDX-License-Identifier: Apache-2.0
#include "relay/core/read_ahead.h"

#include <gtest/gtest.h>

namespace relay {
namespace {

class FakeReader : public Reader {
 public:
  void reset(const Cursor&) override {}
  Result<void> want() override {
    ++questions;
    return {};
  }
  Result<bool> advance() override { return answered; }
  std::optional<Page> take() override { return std::exchange(page, std::nullopt); }
  Result<Page> reread(const Batch&) override { return Page{}; }

  int questions = 0;
  bool answered = false;
  std::optional<Page> page;
};

class FakePoller : public Poller {
 public:
  Clock::time_point now() const override { return time; }
  void wait(std::chrono::microseconds at_most) override { time += at_most; }
  bool stop_requested() const override { return false; }
  bool restart_requested() const override { return false; }

  Clock::time_point time{std::chrono::hours(1)};
};

class ReadAheadTest : public testing::Test {
 protected:
  ReadAheadTest() { ahead.start(); }
  // The reader answers: nothing new, or a page.
  void answer(std::optional<Page> page = std::nullopt) {
    reader.answered = true;
    reader.page = std::move(page);
    EXPECT_TRUE(ahead.advance());
    reader.answered = false;
  }

  FakeReader reader;
  FakePoller poller;
  ReadAhead ahead{reader, poller, Millis{4}};
};

TEST_F(ReadAheadTest, AsksOnceUntilThereIsAnAnswer) {
  EXPECT_TRUE(ahead.want());
  EXPECT_TRUE(ahead.want());
  EXPECT_EQ(reader.questions, 1);
  EXPECT_TRUE(ahead.reading());
  EXPECT_FALSE(ahead.due());
}

TEST_F(ReadAheadTest, APageIsKeptUntilItIsTaken) {
  EXPECT_TRUE(ahead.want());
  Page page;
  page.bytes = 7;
  answer(std::move(page));
  EXPECT_TRUE(ahead.ready());
  EXPECT_FALSE(ahead.reading());
  EXPECT_TRUE(ahead.want());
  EXPECT_EQ(reader.questions, 1);
  EXPECT_EQ(ahead.take().bytes, 7);
  EXPECT_FALSE(ahead.ready());
  EXPECT_TRUE(ahead.want());
  EXPECT_EQ(reader.questions, 2);
}

TEST_F(ReadAheadTest, PausesLongerEachTimeThatNothingIsFound) {
  for (const int pause : {1, 2, 4, 4}) {
    EXPECT_TRUE(ahead.want());
    answer();
    ASSERT_TRUE(ahead.due());
    EXPECT_EQ(*ahead.due() - poller.now(), Millis{pause});
    const int before = reader.questions;
    EXPECT_TRUE(ahead.want());
    EXPECT_EQ(reader.questions, before);
    poller.wait(Millis{pause});
  }
  EXPECT_TRUE(ahead.want());
  answer(Page{});
  ahead.take();
  EXPECT_TRUE(ahead.want());
  answer();
  EXPECT_EQ(*ahead.due() - poller.now(), Millis{1});
}

TEST_F(ReadAheadTest, RecoveryForgetsThePageAndTheQuestion) {
  EXPECT_TRUE(ahead.want());
  ahead.forget();
  EXPECT_FALSE(ahead.reading());
  EXPECT_TRUE(ahead.want());
  EXPECT_EQ(reader.questions, 2);
}

}  // namespace
}  // namespace relay
