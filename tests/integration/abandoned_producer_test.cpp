// SPDX-License-Identifier: Apache-2.0
// Two defects of librdkafka (2.0.2, and 2.16.1) that Producer::give_up_transaction() goes round.
// How the answers fall is chance, hence so many ends.
#include <gtest/gtest.h>

#include <array>

#include "relay/base/clock.h"
#include "relay/kafka/producer.h"
#include "tests/support/event_fd.h"
#include "tests/support/kafka_proxy.h"
#include "tests/support/process.h"
#include "tests/support/scratch_servers.h"

namespace relay {
namespace {

using test::KafkaApi;
using test::KafkaProxy;

constexpr int ends = 60;
constexpr int ends_amid_registering = 200;
constexpr std::chrono::microseconds registering_step{20};
constexpr int partitions = 6;
constexpr const char* topic = "t";

kafka::Options options_to(const std::string& brokers) {
  kafka::Options o;
  o.brokers = brokers;
  o.relay = "r";
  o.progress_topic = "outbox-progress.r";
  o.allow = {"*"};
  return o;
}

Page page_for_each_partition() {
  static const std::array<char, 64> keys = [] {
    std::array<char, 64> all{};
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<char>(i + 1);
    return all;
  }();
  Page page;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    Message m;
    m.seq = static_cast<std::int64_t>(i) + 1;
    m.id = Uuid::random();
    m.topic = topic;
    m.key = std::string_view(&keys[i], 1);
    m.payload = m.key;
    page.messages.push_back(m);
  }
  return page;
}

Result<void> unhindered() { return {}; }

// A new incarnation that has begun a batch for this page.
void begin(kafka::KafkaProducer& producer, const Page& page) {
  ASSERT_TRUE(producer.renew(Mode::exactly_once, unhindered));
  test::eventually("the topic is there", [&] {
    const auto validation = producer.validate(page, std::nullopt);
    return validation && validation->complete;
  });
  ASSERT_TRUE(producer.begin());
}

// A producer that was fenced amid a batch is destroyed while Kafka's answers still come; librdkafka
// then frees a text twice. Without the purge, each of eight runs aborted.
TEST(AbandonedProducer, SurvivesAnswersThatSayItWasFenced) {
  KafkaProxy proxy;
  const test::ScratchKafka kafka({"advertised=" + proxy.address()});
  proxy.forward_to(kafka.proxied());
  kafka.create_topic(topic, partitions);
  kafka.create_topic("outbox-progress.r", 1);
  const test::EventFd wake;
  const auto by_proxy = options_to(proxy.address());
  const auto direct = options_to(kafka.brokers());
  kafka::KafkaProducer rival(direct, wake.fd);

  for (int i = 0; i < ends; ++i) {
    const Page page = page_for_each_partition();
    kafka::KafkaProducer fenced(by_proxy, wake.fd);
    ASSERT_NO_FATAL_FAILURE(begin(fenced, page));
    const auto held = proxy.hold(KafkaApi::produce, KafkaProxy::Then::stall);
    ASSERT_TRUE(fenced.send(Batch{}, page, {}, Progress{}));
    held->caught();
    ASSERT_TRUE(rival.renew(Mode::exactly_once, unhindered));
    ASSERT_EQ(held->release(), test::invalid_producer_epoch);
    // Without a pause: the answers to the other requests come in the next instant.
    const Deadline deadline(Millis{30'000});
    while (fenced.reported() && !deadline.passed()) {
    }
    ASSERT_FALSE(deadline.passed());
    fenced.abandon();
  }
}

// The moment of the end moves over the milliseconds in which the client registers its partitions
// with the coordinator. Without the abort, both of two runs ended in an assertion of librdkafka.
TEST(AbandonedProducer, SurvivesItsEndWhilePartitionsAreRegistered) {
  const test::ScratchKafka kafka;
  kafka.create_topic(topic, partitions);
  kafka.create_topic("outbox-progress.r", 1);
  const test::EventFd wake;
  const auto options = options_to(kafka.brokers());
  for (int i = 0; i < ends_amid_registering; ++i) {
    const Page page = page_for_each_partition();
    kafka::KafkaProducer producer(options, wake.fd);
    ASSERT_NO_FATAL_FAILURE(begin(producer, page));
    ASSERT_TRUE(producer.send(Batch{}, page, {}, Progress{}));
    const auto end = Clock::now() + i * registering_step;
    while (Clock::now() < end && producer.reported()) {
    }
    producer.abandon();
  }
}

}  // namespace
}  // namespace relay
