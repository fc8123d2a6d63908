// SPDX-License-Identifier: Apache-2.0
#include "relay/kafka/topic.h"

#include <gtest/gtest.h>

namespace relay::kafka {
namespace {

TEST(TopicTest, APartitionIsSilentUntilItHasAcknowledgedARecord) {
  TopicWriter writer;
  writer.expect_partitions(2);
  EXPECT_FALSE(writer.all_acknowledged());
  writer.acknowledge(1);
  writer.acknowledge(1);
  EXPECT_TRUE(writer.has_acknowledged(1));
  EXPECT_FALSE(writer.has_acknowledged(0));
  writer.acknowledge(0);
  EXPECT_TRUE(writer.all_acknowledged());
}

TEST(TopicTest, PartitionsCanBeAddedAndNotTakenAway) {
  TopicWriter writer;
  writer.acknowledge(2);  // more than was known
  EXPECT_FALSE(writer.all_acknowledged());
  writer.expect_partitions(1);
  EXPECT_TRUE(writer.has_acknowledged(2));
  writer.close();
  EXPECT_TRUE(writer.all_acknowledged());
}

// The broker forgets the producer, and takes whatever comes first.
TEST(TopicTest, AnAcknowledgementIsForgottenAfterAMinute) {
  TopicWriter writer;
  writer.expect_partitions(2);
  const Clock::time_point start = Clock::now();
  writer.begin_batch(start);
  writer.acknowledge(0);
  writer.acknowledge(1);
  writer.begin_batch(start + TopicWriter::remembered_for / 2);
  EXPECT_TRUE(writer.all_acknowledged());
  writer.acknowledge(1);
  writer.begin_batch(start + TopicWriter::remembered_for);
  EXPECT_FALSE(writer.all_acknowledged());
  EXPECT_FALSE(writer.has_acknowledged(0));
  EXPECT_TRUE(writer.has_acknowledged(1));
  writer.acknowledge(0);
  EXPECT_TRUE(writer.all_acknowledged());
}

TEST(TopicTest, APartitionThatIsAddedHasAcknowledgedNothing) {
  TopicWriter writer;
  writer.acknowledge(0);
  EXPECT_TRUE(writer.all_acknowledged());
  writer.expect_partitions(2);
  EXPECT_FALSE(writer.all_acknowledged());
  EXPECT_FALSE(writer.has_acknowledged(1));
}

TEST(TopicTest, TheOffsetsOfABatchAreARangePerPartition) {
  BatchOffsets offsets;
  EXPECT_TRUE(offsets.ranges().empty());
  offsets.add(3, 7);
  offsets.add(3, 5);
  offsets.add(3, 6);
  offsets.add(0, 0);
  const auto ranges = offsets.ranges();
  ASSERT_EQ(ranges.size(), 2U);
  EXPECT_EQ(ranges.at(3).first, 5);
  EXPECT_EQ(ranges.at(3).last, 7);
  EXPECT_EQ(ranges.at(0).first, 0);
  EXPECT_EQ(ranges.at(0).last, 0);
  offsets.clear();
  EXPECT_TRUE(offsets.ranges().empty());
}

TEST(TopicTest, ADeliveryCountsForTheIncarnationAndForTheBatch) {
  Topic topic("t");
  topic.acknowledge(1, 40);
  EXPECT_TRUE(topic.writer.has_acknowledged(1));
  topic.offsets.clear();
  EXPECT_TRUE(topic.writer.has_acknowledged(1));
}

}  // namespace
}  // namespace relay::kafka
