// SPDX-License-Identifier: Apache-2.0
// Counted on the mock cluster that librdkafka brings with it.
#include "relay/kafka/in_flight_requests.h"

#include <gtest/gtest.h>
#include <librdkafka/rdkafka_mock.h>

#include "relay/base/clock.h"
#include "relay/kafka/handle.h"

namespace relay::kafka {
namespace {

class InFlightRequestsTest : public testing::Test {
 protected:
  // A producer whose requests are counted.
  Client producer() {
    Conf conf(rd_kafka_conf_new());
    char why[256];
    EXPECT_EQ(rd_kafka_conf_set(conf.get(), "test.mock.num.brokers", "1", why, sizeof why),
              RD_KAFKA_CONF_OK)
        << why;
    in_flight.attach(conf.get());
    auto made = make_client(RD_KAFKA_PRODUCER, std::move(conf));
    EXPECT_TRUE(made);
    return std::move(*made);
  }
  static void produce(rd_kafka_t* client) {
    EXPECT_EQ(rd_kafka_producev(client, RD_KAFKA_V_TOPIC("t"),
                                RD_KAFKA_V_VALUE(const_cast<char*>("v"), 1), RD_KAFKA_V_END),
              RD_KAFKA_RESP_ERR_NO_ERROR);
  }

  InFlightRequests in_flight;  // outlives the client
};

TEST_F(InFlightRequestsTest, ThereAreNoneBeforeTheFirst) {
  const Client client = producer();
  EXPECT_TRUE(in_flight.none());
}

TEST_F(InFlightRequestsTest, ThereAreNoneWhenAllAreAnswered) {
  const Client client = producer();
  for (int i = 0; i < 3; ++i) {
    produce(client.get());
    ASSERT_EQ(rd_kafka_flush(client.get(), 10'000), RD_KAFKA_RESP_ERR_NO_ERROR);
    EXPECT_TRUE(in_flight.none());
  }
}

TEST_F(InFlightRequestsTest, OneThatIsNotAnsweredStaysUntilTheNextClientIsCounted) {
  {
    const Client client = producer();
    produce(client.get());
    ASSERT_EQ(rd_kafka_flush(client.get(), 10'000), RD_KAFKA_RESP_ERR_NO_ERROR);
    rd_kafka_mock_cluster_t* const cluster = rd_kafka_handle_mock_cluster(client.get());
    ASSERT_NE(cluster, nullptr);
    rd_kafka_mock_broker_set_rtt(cluster, 1, 60'000);
    produce(client.get());
    const Deadline deadline(Millis{20'000});
    while (in_flight.none() && !deadline.passed()) rd_kafka_poll(client.get(), 10);
    EXPECT_FALSE(in_flight.none());
    rd_kafka_purge(client.get(), RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
    rd_kafka_flush(client.get(), 1'000);
    EXPECT_FALSE(in_flight.none());  // it can still act
  }
  const Client next = producer();
  EXPECT_TRUE(in_flight.none());
}

}  // namespace
}  // namespace relay::kafka
