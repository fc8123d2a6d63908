// SPDX-License-Identifier: Apache-2.0
// Consumers in tests: records in topics of their own, consumers on threads of their own.
#pragma once

#include <librdkafka/rdkafka.h>

#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "outbox/consumer.h"
#include "tests/support/test_outbox.h"

namespace relay::test {

// A record to be produced; the deduplication key is given as a header where it is set.
struct NewRecord {
  std::optional<std::string> dedup_key{};
  std::optional<std::string> key{};
  std::string payload{};
  std::int64_t timestamp_ms = 0;  // 0: now
  std::map<std::string, std::string> headers{};
  std::int32_t partition = -1;  // -1: by the key
};

// Produces them in this order; returns when the broker has all. Throws std::runtime_error.
void produce(const std::string& brokers, const std::string& topic,
             const std::vector<NewRecord>& records);

// `count` records numbered from `first`: dedup-key and payload are the number, the key is one of
// `keys`; the payload is filled up to `bytes`.
void produce_numbers(const std::string& brokers, const std::string& topic, int first, int count,
                     int keys = 20, std::size_t bytes = 0);

// The table `effect`, which takes repeats, and the right of consumers to write it.
void create_effect_table(const TestOutbox& db);
// Writes the record's key and payload there.
void write_effect(pqxx::dbtransaction& tx, const outbox::Record& record);

// A consumer that runs on a thread of its own until stop() or the end of its life.
class RunningConsumer {
 public:
  template <class Handler>
  RunningConsumer(outbox::ConsumerOptions options, Handler handler) {
    options.on_event = [this](const outbox::ConsumerEvent& e) { note(e); };
    consumer_ = std::make_unique<outbox::Consumer>(std::move(options), std::move(handler));
    over_ = std::async(std::launch::async, [this] { consumer_->run(stop_.get_token()); });
  }
  ~RunningConsumer() { stop_.request_stop(); }

  // Returns when it has left the group; throws what run() threw.
  void stop() {
    stop_.request_stop();
    over_.get();
  }
  outbox::ConsumerStats stats() const { return consumer_->stats(); }
  // The number of events of this name, and with this value of a field.
  int event_count(const std::string& name, const std::string& field = {},
                  const std::string& value = {});
  // Every event above debug, a line each.
  std::string events();

 private:
  void note(const outbox::ConsumerEvent& event);

  std::stop_source stop_;
  std::mutex mutex_;
  std::vector<outbox::ConsumerEvent> events_;
  std::unique_ptr<outbox::Consumer> consumer_;
  std::future<void> over_;
};

}  // namespace relay::test
