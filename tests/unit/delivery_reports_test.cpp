// SPDX-License-Identifier: Apache-2.0
// What a batch's delivery reports add up to, whatever their order.
#include "relay/kafka/delivery_reports.h"

#include <gtest/gtest.h>

namespace relay::kafka {
namespace {

constexpr auto different_record_was_invalid = static_cast<rd_kafka_resp_err_t>(-138);

class DeliveryReportsTest : public testing::Test {
 protected:
  DeliveryReportsTest() {
    Options options;
    options.brokers = "127.0.0.1:1";  // nobody is asked
    client = std::move(*make_client(RD_KAFKA_PRODUCER, std::move(*make_conf(options, {}))));
    EXPECT_TRUE(topic.writer.open(client.get(), "t", &topic));
    for (std::int64_t seq = 10; seq < 14; ++seq) {
      Message m;
      m.seq = seq;
      page.messages.push_back(m);
    }
    reports.begin(page, Millis{0});
  }
  // The report about the message with this index.
  bool take(std::size_t index, rd_kafka_resp_err_t code, std::int32_t partition = 0,
            std::int64_t offset = -1) {
    rd_kafka_message_t m{};
    m.err = code;
    m.rkt = topic.writer.handle();
    m.partition = partition;
    m.offset = offset;
    m._private = DeliveryReports::opaque(index);
    reports.sent();
    return reports.take(m);
  }
  std::vector<std::int64_t> refused() const {
    std::vector<std::int64_t> seqs;
    for (const Rejection& r : reports.refused()) {
      EXPECT_EQ(page.messages[r.index].seq, r.seq);
      seqs.push_back(r.seq);
    }
    return seqs;
  }

  using Seqs = std::vector<std::int64_t>;
  Page page;
  Client client;
  Topic topic{"t"};
  DeliveryReports reports;
};

TEST_F(DeliveryReportsTest, ADeliveryIsAcknowledgedWithItsOffset) {
  EXPECT_TRUE(take(0, RD_KAFKA_RESP_ERR_NO_ERROR, 1, 40));
  EXPECT_TRUE(take(1, RD_KAFKA_RESP_ERR_NO_ERROR, 1, 41));
  EXPECT_FALSE(reports.failed());
  EXPECT_EQ(reports.missing(), 0U);
  const auto ranges = topic.offsets.ranges();
  ASSERT_EQ(ranges.size(), 1U);
  EXPECT_EQ(ranges.at(1).first, 40);
  EXPECT_EQ(ranges.at(1).last, 41);
}

TEST_F(DeliveryReportsTest, TheFailureThatSaysMostIsKept) {
  EXPECT_FALSE(take(0, RD_KAFKA_RESP_ERR__PURGE_QUEUE));
  EXPECT_TRUE(reports.purged());
  take(1, RD_KAFKA_RESP_ERR__TIMED_OUT);
  EXPECT_EQ(reports.failure(), RD_KAFKA_RESP_ERR__TIMED_OUT);
  take(2, RD_KAFKA_RESP_ERR_INVALID_RECORD);
  EXPECT_EQ(reports.failure(), RD_KAFKA_RESP_ERR_INVALID_RECORD);
  take(3, RD_KAFKA_RESP_ERR__PURGE_INFLIGHT);
  EXPECT_EQ(reports.failure(), RD_KAFKA_RESP_ERR_INVALID_RECORD);
  EXPECT_EQ(refused(), Seqs{12});
}

// The clock of the database or of a broker is wrong: no message can help that.
TEST_F(DeliveryReportsTest, ANewBatchIsNotTooOldWhateverTheBrokerSays) {
  take(0, RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP);
  reports.isolate();
  EXPECT_EQ(refused(), Seqs{});
  EXPECT_FALSE(reports.isolated());
}

TEST_F(DeliveryReportsTest, OfAnOldBatchEachMessageOfATopicThatFindsItTooOldIsRefused) {
  reports.begin(page, Millis{61'000});
  take(0, RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP);
  take(1, RD_KAFKA_RESP_ERR__PURGE_INFLIGHT, 1);
  take(2, RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP);
  reports.isolate();
  EXPECT_EQ(refused(), (Seqs{10, 12}));
  EXPECT_EQ(reports.refused()[0].error_class, "too_old");
  EXPECT_TRUE(reports.isolated());
}

TEST_F(DeliveryReportsTest, WhatTheBrokerToldApartIsIsolated) {
  take(0, RD_KAFKA_RESP_ERR_INVALID_RECORD);
  take(1, different_record_was_invalid);
  take(2, RD_KAFKA_RESP_ERR_INVALID_RECORD, 1);  // of a record batch that was refused as a whole
  reports.isolate();
  EXPECT_TRUE(reports.isolated());
  EXPECT_EQ(refused(), Seqs{10});
}

TEST_F(DeliveryReportsTest, ARecordBatchThatWasRefusedAsAWholeIsNot) {
  take(0, RD_KAFKA_RESP_ERR_INVALID_RECORD);
  take(1, RD_KAFKA_RESP_ERR_INVALID_RECORD);
  reports.isolate();
  EXPECT_FALSE(reports.isolated());
  EXPECT_EQ(refused(), (Seqs{10, 11}));
}

TEST_F(DeliveryReportsTest, WhatTheTopicSaysIsKeptWithTheTopic) {
  take(0, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
  take(1, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
  EXPECT_TRUE(topic.info.refused);
  EXPECT_TRUE(topic.info.refused_size);
  EXPECT_EQ(refused(), Seqs{11});
}

TEST_F(DeliveryReportsTest, AMessageThatTheClientDoesNotTakeIsRefused) {
  reports.not_taken(3, 13, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
  EXPECT_TRUE(reports.failed());
  EXPECT_EQ(refused(), Seqs{13});
  reports.isolate();
  EXPECT_FALSE(reports.isolated());
}

TEST_F(DeliveryReportsTest, SilenceIsMeasuredFromTheLastReport) {
  const auto now = Clock::now();
  take(0, RD_KAFKA_RESP_ERR_NO_ERROR, 0, 1);
  EXPECT_FALSE(reports.silent_for(Millis{1'000}, now + Millis{5'000}));
  EXPECT_FALSE(reports.silent_for(Millis{1'000}, now + Millis{6'000}));
  EXPECT_TRUE(reports.silent_for(Millis{1'000}, now + Millis{6'001}));
}

TEST_F(DeliveryReportsTest, TheNextBatchBeginsWithoutTheFailuresOfTheLast) {
  take(0, RD_KAFKA_RESP_ERR_INVALID_RECORD);
  reports.begin(page, Millis{0});
  EXPECT_FALSE(reports.failed());
  EXPECT_TRUE(reports.refused().empty());
  reports.sent();
  reports.none_will_come();
  EXPECT_EQ(reports.missing(), 0U);
  EXPECT_EQ(reports.page(), nullptr);
}

}  // namespace
}  // namespace relay::kafka
