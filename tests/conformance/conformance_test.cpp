// SPDX-License-Identifier: Apache-2.0
// What the loop relies on, of every implementation of its ports: one suite for the models and for
// the real servers, so that the simulator cannot be kinder than they are.
#include <gtest/gtest.h>

#include <functional>

#include "tests/conformance/servers_under_test.h"
#include "tests/support/process.h"

namespace relay::conformance {
namespace {

using Numbers = std::vector<int>;
using sim::no_key;

class ConformanceTest : public ::testing::TestWithParam<
                            std::pair<const char*, std::unique_ptr<ServersUnderTest> (*)()>> {
 protected:
  ConformanceTest() : servers(GetParam().second()) {}

  // A committed transaction of messages with consecutive numbers, all of this key.
  void committed(Numbers messages, int key = 0) {
    servers->begin("quick");
    for (const int m : messages) servers->insert("quick", m, key);
    servers->commit("quick");
  }
  // A process that holds the lease, with its reader at the beginning and a producer.
  ServersUnderTest::Relay holder(const std::string& name = "a") {
    auto r = servers->relay(name);
    EXPECT_TRUE(r.database.connect());
    EXPECT_TRUE(*r.lease.available());
    auto taken = r.lease.take();
    EXPECT_TRUE(taken && *taken);
    epoch = (*taken)->epoch;
    EXPECT_TRUE(r.producer.renew(Mode::exactly_once, nothing));
    r.reader.reset({.base = Snapshot::nothing()});
    return r;
  }
  static std::optional<Page> page(ServersUnderTest::Relay& r) {
    EXPECT_TRUE(r.reader.want());
    test::eventually("a page", [&] {
      auto news = r.reader.advance();
      if (!news) throw std::runtime_error(news.error().text());
      return *news;
    });
    return r.reader.take();
  }
  Numbers numbers(const std::optional<Page>& p) {
    Numbers out;
    if (p) {
      for (const Message& m : p->messages) out.push_back(servers->number_of(m));
    }
    return out;
  }
  Batch batch_of(const Page& p, std::int64_t number) {
    Batch b;
    b.number = number;
    b.epoch = epoch;
    b.token = Uuid::random();
    b.bounds = p.bounds;
    b.messages = static_cast<std::int64_t>(p.messages.size()), b.bytes = p.bytes;
    return b;
  }
  static Rejection rejection(const Page& p, std::size_t index, const std::string& error_class) {
    return {index, p.messages[index].seq, error_class, "because"};
  }
  static std::vector<Rejection> all_of(const Page& p, const std::string& error_class) {
    std::vector<Rejection> out;
    for (std::size_t i = 0; i < p.messages.size(); ++i) out.push_back(rejection(p, i, error_class));
    return out;
  }
  // Sends the page, without committing; false when Kafka refuses or fences.
  static bool sent(ServersUnderTest::Relay& r, const Batch& b, const Page& p,
                   std::optional<Uuid> previous = std::nullopt, const PageMask& masked = {}) {
    if (auto validation = r.producer.validate(p, std::nullopt);
        !validation || !validation->complete || !validation->rejected.empty())
      return false;
    if (!r.producer.begin()) return false;
    if (!r.producer.send(b, p, masked, {{1, 1}, b.epoch, b.number, b.token, previous}))
      return false;
    bool ok = true;
    test::eventually("delivery reports", [&] {
      auto reported = r.producer.reported();
      ok = reported && *reported != Delivery::refused;
      return !ok || *reported == Delivery::complete;
    });
    return ok;
  }
  static Result<void> nothing() { return {}; }
  static std::int64_t newest_number(ServersUnderTest::Relay& r, bool to_the_end) {
    auto progress = r.producer.newest_progress(to_the_end, nothing_meanwhile);
    if (!progress) return -1;
    return *progress ? (*progress)->number : 0;
  }

  std::unique_ptr<ServersUnderTest> servers;
  std::int64_t epoch = 0;
};

// Reader ------------------------------------------------------------------------------------------

TEST_P(ConformanceTest, ALateCommitterComesInALaterDifferenceWhateverItsSeq) {
  auto r = holder();
  servers->begin("late");
  servers->insert("late", 1, 0);
  servers->begin("undone");
  servers->insert("undone", 9, 1);
  committed({2, 3}, 1);
  servers->abort("undone");
  const auto first = page(r);
  EXPECT_EQ(numbers(first), (Numbers{2, 3}));
  EXPECT_TRUE(first->bounds.exhausted);
  EXPECT_FALSE(page(r));
  servers->commit("late");
  EXPECT_EQ(numbers(page(r)), (Numbers{1}));
  EXPECT_FALSE(page(r));
}

TEST_P(ConformanceTest, AFullPageIsCutAndTheNextOneGoesOnBehindIt) {
  auto r = holder();
  committed({1, 2, 3, 4, 5, 6});
  const auto first = page(r);
  EXPECT_EQ(numbers(first), (Numbers{1, 2, 3, 4}));
  EXPECT_FALSE(first->bounds.exhausted);
  EXPECT_EQ(first->bounds.upto_seq, first->messages.back().seq);
  committed({7});  // not in the difference that is being read
  const auto second = page(r);
  EXPECT_EQ(numbers(second), (Numbers{5, 6}));
  EXPECT_EQ(second->bounds.after_seq, first->bounds.upto_seq);
  EXPECT_EQ(second->bounds.base, first->bounds.base);
  EXPECT_TRUE(second->bounds.exhausted);
  EXPECT_EQ(numbers(page(r)), (Numbers{7}));
}

TEST_P(ConformanceTest, APreparedTransactionIsReadWhenItIsCommittedAlsoAcrossACrash) {
  auto r = holder();
  servers->begin("prepared");
  servers->insert("prepared", 1, 0);
  servers->prepare("prepared");
  committed({2}, 1);
  const auto before = page(r);
  EXPECT_EQ(numbers(before), (Numbers{2}));
  servers->crash_database();
  servers->commit("prepared");
  ASSERT_TRUE(r.database.connect());
  r.reader.reset(before->bounds.next());
  EXPECT_EQ(numbers(page(r)), (Numbers{1}));
}

TEST_P(ConformanceTest, ARereadGivesTheSameRowsWithoutThoseParkedForTheBatch) {
  auto r = holder();
  committed({1, 2, 3});
  const auto p = page(r);
  Batch b = batch_of(*p, 1);
  ASSERT_TRUE(r.journal.open(b, {}, std::nullopt, false));
  committed({4});
  EXPECT_EQ(numbers(*r.reader.reread(b)), (Numbers{1, 2, 3}));
  ASSERT_TRUE(r.journal.park(epoch, b, std::vector<Rejection>{rejection(*p, 1, "refused")}));
  EXPECT_EQ(numbers(*r.reader.reread(b)), (Numbers{1, 3}));
  servers->delete_messages();
  const auto gone = r.reader.reread(b);
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().fault, Fault::refused);
}

// Journal -----------------------------------------------------------------------------------------

TEST_P(ConformanceTest, TheJournalKeepsWhatWasOpenedAndMarksTheBatchBefore) {
  auto r = holder();
  EXPECT_FALSE(*r.journal.newest());
  committed({1, 2, 3, 4, 5});
  auto p = page(r);
  Batch first = batch_of(*p, 1);
  ASSERT_TRUE(r.journal.open(first, {}, std::nullopt, false));
  auto newest = *r.journal.newest();
  ASSERT_TRUE(newest);
  EXPECT_EQ(newest->token, first.token);
  EXPECT_EQ(newest->bounds.upto, first.bounds.upto);
  EXPECT_EQ(newest->bounds.upto_seq, first.bounds.upto_seq);
  EXPECT_FALSE(newest->bounds.exhausted);
  EXPECT_EQ(newest->messages, 4);
  EXPECT_FALSE(newest->delivered);
  EXPECT_FALSE(*r.journal.before(1));

  p = page(r);
  Batch second = batch_of(*p, 2);
  ASSERT_TRUE(r.journal.open(second, {}, Confirmed{1, {}}, false));
  EXPECT_EQ((*r.journal.newest())->number, 2);
  const auto before = *r.journal.before(2);
  ASSERT_TRUE(before);
  EXPECT_EQ(before->token, first.token);
  EXPECT_EQ(before->mode, first.mode);
  EXPECT_TRUE(*r.journal.knows(first.token));
  EXPECT_FALSE(*r.journal.knows(Uuid::random()));
  ASSERT_TRUE(r.journal.mark_delivered(epoch, {2, {}}));
  EXPECT_TRUE((*r.journal.newest())->delivered);
  EXPECT_EQ(r.journal.mark_delivered(epoch, {2, {}}).error().fault,
            Fault::fenced);  // it was marked already
}

TEST_P(ConformanceTest, WhoDoesNotHoldTheLeaseWritesNothing) {
  auto a = holder("a");
  committed({1});
  const auto p = page(a);
  Batch b = batch_of(*p, 1);
  servers->let_lease_run_out();
  const std::int64_t old = epoch;
  auto other = holder("b");
  EXPECT_EQ(epoch, old + 1);
  EXPECT_EQ(a.journal.open(b, {}, std::nullopt, false).error().fault, Fault::fenced);
  EXPECT_EQ(a.lease.renew().error().fault, Fault::fenced);
  EXPECT_FALSE(*other.journal.newest());
  Batch release = b;
  release.release = true;
  EXPECT_EQ(a.journal.open_release(release, std::nullopt).error().fault, Fault::fenced);

  const auto theirs = page(other);
  Batch c = batch_of(*theirs, 1);
  ASSERT_TRUE(other.journal.open(c, {}, std::nullopt, true));
  EXPECT_EQ(a.journal.mark_delivered(old, {1, {}}).error().fault, Fault::fenced);
  EXPECT_EQ(a.journal.park(old, c, all_of(*theirs, "refused")).error().fault, Fault::fenced);
  EXPECT_FALSE((*other.journal.newest())->delivered);
  EXPECT_EQ(numbers(*other.reader.reread(c)), (Numbers{1}));
}

TEST_P(ConformanceTest, ANumberIsOpenedOnce) {
  auto r = holder();
  committed({1});
  const auto p = page(r);
  Batch first = batch_of(*p, 1);
  ASSERT_TRUE(r.journal.open(first, {}, std::nullopt, false));
  Batch again = batch_of(*p, 1);
  const auto refused = r.journal.open(again, {}, std::nullopt, false);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().fault, Fault::postgres);
  EXPECT_EQ((*r.journal.newest())->token, first.token);
}

TEST_P(ConformanceTest, WhatWasReadBeforeACrashIsNotOpenedAfterIt) {
  auto r = holder();
  committed({1});
  const auto p = page(r);
  servers->crash_database();
  Batch b = batch_of(*p, 1);
  EXPECT_EQ(r.journal.open(b, {}, std::nullopt, false).error().fault, Fault::postgres);
  ASSERT_TRUE(r.database.connect());
  EXPECT_FALSE(*r.journal.newest());
}

TEST_P(ConformanceTest, WhatWasOpenedOutlivesACrash) {
  auto r = holder();
  committed({1});
  const auto p = page(r);
  Batch b = batch_of(*p, 1);
  ASSERT_TRUE(r.journal.open(b, all_of(*p, "refused"), std::nullopt, false));
  servers->crash_database();
  ASSERT_TRUE(r.database.connect());
  EXPECT_EQ((*r.journal.newest())->token, b.token);
  EXPECT_EQ(numbers(*r.reader.reread(b)), Numbers{});
}

// Parking -----------------------------------------------------------------------------------------

TEST_P(ConformanceTest, AParkedMessageBlocksWhatComesBehindItAndNothingElse) {
  auto r = holder();
  servers->begin("t");
  servers->insert("t", 1, 0);
  servers->insert("t", 2, 0);
  servers->insert("t", 3, 1);
  servers->commit("t");
  const auto p = page(r);
  Batch b = batch_of(*p, 1);
  EXPECT_TRUE(r.journal.topics_with_blocked_keys(9)->empty());
  ASSERT_TRUE(
      r.journal.open(b, std::vector<Rejection>{rejection(*p, 1, "refused")}, std::nullopt, false));
  EXPECT_EQ(r.journal.topics_with_blocked_keys(9)->size(), 1U);
  const std::vector<const Message*> same = {&p->messages[0], &p->messages[2]};
  EXPECT_TRUE(r.journal.blocked(1, same)->empty());  // before it, or of another key
  committed({4});
  const auto later = page(r);
  const std::vector<const Message*> behind = {&later->messages[0]};
  EXPECT_EQ(*r.journal.blocked(2, behind), (std::vector<std::size_t>{0}));
  const auto twice = r.journal.park(
      epoch, b, std::vector<Rejection>{rejection(*p, 0, "refused"), rejection(*p, 1, "refused")});
  ASSERT_FALSE(twice);
  EXPECT_EQ(twice.error().fault, Fault::postgres);
  EXPECT_EQ(numbers(*r.reader.reread(b)), (Numbers{1, 3}));  // nothing of it was done
}

TEST_P(ConformanceTest, AReleaseTakesWhatWasDecidedAndWhatWaitedForItInOrder) {
  auto r = holder();
  committed({1, 2, 3});
  const auto p = page(r);
  Batch b = batch_of(*p, 1);
  ASSERT_TRUE(r.journal.open(
      b,
      std::vector<Rejection>{rejection(*p, 0, "refused"), rejection(*p, 1, "key_blocked"),
                             rejection(*p, 2, "refused")},
      std::nullopt, false));
  Batch release = batch_of(*p, 2);
  release.release = true;
  EXPECT_FALSE(*r.journal.open_release(release, Confirmed{1, {}}));  // nobody has decided
  servers->decide(3, false);
  EXPECT_FALSE(*r.journal.open_release(release, Confirmed{1, {}}));  // 1 comes first
  servers->decide(1, false);
  ASSERT_TRUE(*r.journal.open_release(release, Confirmed{1, {}}));
  EXPECT_EQ(release.messages, 3);
  EXPECT_EQ(release.bounds.upto, b.bounds.upto);
  EXPECT_EQ(release.bounds.exhausted, b.bounds.exhausted);
  EXPECT_EQ(numbers(*r.reader.reread(release)), (Numbers{1, 2, 3}));
  EXPECT_TRUE(r.journal.topics_with_blocked_keys(9)->empty());
  EXPECT_EQ((*r.journal.newest())->release, true);
}

TEST_P(ConformanceTest, WhatIsDiscardedIsReleasedWithoutBeingSent) {
  auto r = holder();
  committed({1, 2});
  const auto p = page(r);
  Batch b = batch_of(*p, 1);
  ASSERT_TRUE(r.journal.open(
      b, std::vector<Rejection>{rejection(*p, 0, "refused"), rejection(*p, 1, "key_blocked")},
      std::nullopt, false));
  servers->decide(1, true);
  Batch release = batch_of(*p, 2);
  release.release = true;
  ASSERT_TRUE(*r.journal.open_release(release, Confirmed{1, {}}));
  EXPECT_EQ(release.messages, 1);
  EXPECT_EQ(numbers(*r.reader.reread(release)), (Numbers{2}));
  // What cannot be sent is parked again, for the release.
  const auto again = *r.reader.reread(release);
  ASSERT_TRUE(r.journal.park(epoch, release, all_of(again, "refused")));
  EXPECT_EQ(numbers(*r.reader.reread(release)), Numbers{});
  EXPECT_EQ(r.journal.topics_with_blocked_keys(9)->size(), 1U);
}

// Lease -------------------------------------------------------------------------------------------

TEST_P(ConformanceTest, TheLeaseHasOneHolderAtATime) {
  auto a = servers->relay("a");
  auto b = servers->relay("b");
  ASSERT_TRUE(a.database.connect());
  ASSERT_TRUE(b.database.connect());
  ASSERT_TRUE(*a.lease.available());
  ASSERT_TRUE(*b.lease.available());
  const auto first = *a.lease.take();
  ASSERT_TRUE(first);
  EXPECT_FALSE(first->continued);
  EXPECT_FALSE(*b.lease.take());  // somebody was faster
  EXPECT_FALSE(*b.lease.available());
  EXPECT_TRUE(a.lease.held());
  ASSERT_TRUE(*a.lease.available());
  const auto again = *a.lease.take();
  ASSERT_TRUE(again);
  EXPECT_TRUE(again->continued);
  EXPECT_EQ(again->epoch, first->epoch + 1);
  ASSERT_TRUE(a.lease.resign());
  EXPECT_FALSE(a.lease.held());
  ASSERT_TRUE(*b.lease.available());
  const auto second = *b.lease.take();
  ASSERT_TRUE(second);
  EXPECT_FALSE(second->continued);
  EXPECT_EQ(second->epoch, again->epoch + 1);
}

TEST_P(ConformanceTest, ALeaseThatRanOutIsTakenOverAndItsOldHolderKnows) {
  auto a = holder("a");
  auto b = servers->relay("b");
  ASSERT_TRUE(b.database.connect());
  EXPECT_FALSE(*b.lease.available());
  servers->let_lease_run_out();
  EXPECT_FALSE(a.lease.held());
  ASSERT_TRUE(*b.lease.available());
  ASSERT_TRUE(*b.lease.take());
  EXPECT_FALSE(*a.lease.available());
  EXPECT_EQ(a.lease.renew().error().fault, Fault::fenced);
}

// Producer ----------------------------------------------------------------------------------------

TEST_P(ConformanceTest, ATransactionIsVisibleWithItsProgressRecordOnceItIsCommitted) {
  auto r = holder();
  EXPECT_EQ(newest_number(r, true), 0);
  committed({1, 2, 3});
  const auto p = page(r);
  Batch b = batch_of(*p, 1);
  ASSERT_TRUE(r.journal.open(b, {}, std::nullopt, false));
  PageMask masked;
  masked.add(1);
  ASSERT_TRUE(sent(r, b, *p, std::nullopt, masked));
  EXPECT_EQ(servers->arrived(), Numbers{});
  EXPECT_EQ(newest_number(r, false), 0);
  ASSERT_TRUE(r.producer.commit());
  EXPECT_TRUE(r.producer.clean(Mode::exactly_once));
  EXPECT_FALSE(r.producer.clean(Mode::at_least_once));
  EXPECT_EQ(servers->arrived(), (Numbers{1, 3}));
  const auto progress = *r.producer.newest_progress(false, nothing_meanwhile);
  ASSERT_TRUE(progress);
  EXPECT_EQ(progress->token, b.token);
  EXPECT_FALSE(progress->previous);
}

TEST_P(ConformanceTest, ANewIncarnationFencesTheOldOneAndVoidsItsTransaction) {
  auto a = holder("a");
  committed({1, 2});
  const auto p = page(a);
  Batch b = batch_of(*p, 1);
  ASSERT_TRUE(sent(a, b, *p));
  auto other = servers->relay("b");
  ASSERT_TRUE(other.producer.renew(Mode::exactly_once, nothing));
  EXPECT_EQ(newest_number(other, true), 0);
  EXPECT_EQ(a.producer.commit().error().fault, Fault::fenced);
  EXPECT_FALSE(a.producer.clean(Mode::exactly_once));
  EXPECT_EQ(servers->arrived(), Numbers{});
  // The fenced one can only come back by fencing in its turn.
  ASSERT_TRUE(a.producer.renew(Mode::exactly_once, nothing));
  ASSERT_TRUE(sent(a, b, *p));
  ASSERT_TRUE(a.producer.commit());
  EXPECT_EQ(servers->arrived(), (Numbers{1, 2}));
}

TEST_P(ConformanceTest, AnAbandonedTransactionIsSettledByTheNextIncarnation) {
  auto r = holder();
  committed({1});
  const auto p = page(r);
  const Batch b = batch_of(*p, 1);
  ASSERT_TRUE(sent(r, b, *p));
  ASSERT_TRUE(r.producer.commit());
  const Batch next = batch_of(*p, 2);
  ASSERT_TRUE(sent(r, next, *p, b.token));
  r.producer.abandon();
  EXPECT_FALSE(r.producer.clean(Mode::exactly_once));
  ASSERT_TRUE(r.producer.renew(Mode::exactly_once, nothing));
  EXPECT_EQ(newest_number(r, true), 1);
  EXPECT_EQ(servers->arrived(), Numbers{1});
}

TEST_P(ConformanceTest, WhatKafkaRefusesIsNamedAndNothingOfTheTransactionCounts) {
  auto r = holder();
  committed({1});
  servers->begin("bad");
  servers->insert("bad", 2, no_key, Trait::refused);
  servers->commit("bad");
  const auto p = page(r);
  const Batch b = batch_of(*p, 1);
  ASSERT_FALSE(sent(r, b, *p));
  const auto& refused = r.producer.refused();
  EXPECT_TRUE(std::any_of(refused.begin(), refused.end(),
                          [&](const Rejection& x) { return x.seq == p->messages[1].seq; }));
  EXPECT_FALSE(r.producer.clean(Mode::exactly_once));
  r.producer.abandon();
  ASSERT_TRUE(r.producer.renew(Mode::exactly_once, nothing));
  EXPECT_EQ(newest_number(r, true), 0);
  EXPECT_EQ(servers->arrived(), Numbers{});
}

TEST_P(ConformanceTest, WhatIsTooLargeIsKnownBefore) {
  auto r = holder();
  servers->begin("large");
  servers->insert("large", 1, 0);
  servers->insert("large", 2, 0, Trait::too_large);
  servers->commit("large");
  const auto p = page(r);
  const auto validation = r.producer.validate(*p, std::nullopt);
  ASSERT_TRUE(validation);
  ASSERT_EQ(validation->rejected.size(), 1U);
  EXPECT_EQ(validation->rejected[0].seq, p->messages[1].seq);
  EXPECT_EQ(validation->rejected[0].error_class, "too_large");
}

TEST_P(ConformanceTest, AtLeastOnceIsVisibleAtOnceAndWritesItsProgressAtTheEnd) {
  auto r = holder();
  ASSERT_TRUE(r.producer.renew(Mode::at_least_once, nothing));
  EXPECT_TRUE(r.producer.clean(Mode::at_least_once));
  committed({1, 2, 3});
  const auto p = page(r);
  const Batch b = batch_of(*p, 1);
  ASSERT_TRUE(sent(r, b, *p));
  EXPECT_EQ(servers->arrived(), (Numbers{1, 2, 3}));
  ASSERT_TRUE(r.producer.commit());
  test::eventually("the progress record", [&] { return newest_number(r, false) == 1; });
  EXPECT_TRUE(r.producer.clean(Mode::at_least_once));
}

TEST_P(ConformanceTest, OtherRecordBatchesWantAnotherIncarnation) {
  auto r = holder();
  r.producer.limit_record_batches(1);
  EXPECT_FALSE(r.producer.clean(Mode::exactly_once));
  ASSERT_TRUE(r.producer.renew(Mode::exactly_once, nothing));
  EXPECT_TRUE(r.producer.clean(Mode::exactly_once));
}

INSTANTIATE_TEST_SUITE_P(On, ConformanceTest,
                         ::testing::Values(std::pair("Models", &simulated_servers),
                                           std::pair("RealServers", &real_servers)),
                         [](const auto& tested) { return tested.param.first; });

}  // namespace
}  // namespace relay::conformance
