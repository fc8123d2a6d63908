// SPDX-License-Identifier: Apache-2.0
#include "tests/support/consuming.h"

#include <algorithm>
#include <array>
#include <stdexcept>

#include "common/owned.h"

namespace relay::test {
namespace {

using Client = outbox::common::Owned<rd_kafka_t, rd_kafka_destroy>;

void on_delivery(rd_kafka_t*, const rd_kafka_message_t* message, void* failed) {
  if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR)
    *static_cast<std::string*>(failed) = rd_kafka_err2str(message->err);
}

class Producer {
 public:
  explicit Producer(const std::string& brokers) {
    std::array<char, 512> why{};
    rd_kafka_conf_t* conf = rd_kafka_conf_new();
    for (const auto& [name, value] :
         {std::pair{"bootstrap.servers", brokers.c_str()},
          {"linger.ms", "5"},
          {"enable.idempotence", "true"},  // or a repeat could change the order that is expected
          {"partitioner", "murmur2_random"},
          {"queue.buffering.max.messages", "1000000"}}) {
      if (rd_kafka_conf_set(conf, name, value, why.data(), why.size()) != RD_KAFKA_CONF_OK)
        throw std::runtime_error(why.data());
    }
    rd_kafka_conf_set_dr_msg_cb(conf, &on_delivery);
    rd_kafka_conf_set_opaque(conf, &failed_);
    client_.reset(rd_kafka_new(RD_KAFKA_PRODUCER, conf, why.data(), why.size()));
    if (!client_) throw std::runtime_error(why.data());
  }

  void send(const std::string& topic, const NewRecord& r) {
    rd_kafka_headers_t* headers = rd_kafka_headers_new(1 + r.headers.size());
    const auto add = [&](const std::string& name, const std::string& value) {
      rd_kafka_header_add(headers, name.data(), static_cast<ssize_t>(name.size()), value.data(),
                          static_cast<ssize_t>(value.size()));
    };
    if (r.dedup_key) add("dedup-key", *r.dedup_key);
    for (const auto& [name, value] : r.headers) add(name, value);
    rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR__QUEUE_FULL;
    while (code == RD_KAFKA_RESP_ERR__QUEUE_FULL) {
      code = rd_kafka_producev(
          client_.get(), RD_KAFKA_V_TOPIC(topic.c_str()), RD_KAFKA_V_PARTITION(r.partition),
          RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
          RD_KAFKA_V_KEY((r.key ? r.key->data() : nullptr), (r.key ? r.key->size() : 0)),
          RD_KAFKA_V_VALUE(const_cast<char*>(r.payload.data()), r.payload.size()),
          RD_KAFKA_V_TIMESTAMP(r.timestamp_ms), RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_END);
      if (code == RD_KAFKA_RESP_ERR__QUEUE_FULL) rd_kafka_poll(client_.get(), 100);
    }
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
      rd_kafka_headers_destroy(headers);
      throw std::runtime_error(rd_kafka_err2str(code));
    }
    rd_kafka_poll(client_.get(), 0);
  }

  void flush() {
    if (rd_kafka_flush(client_.get(), 60'000) != RD_KAFKA_RESP_ERR_NO_ERROR)
      throw std::runtime_error("records were not sent in time");
    if (!failed_.empty()) throw std::runtime_error("a record was not sent: " + failed_);
  }

 private:
  std::string failed_;
  Client client_;
};

}  // namespace

void create_effect_table(const TestOutbox& db) {
  db.sql(
      "create table effect (id bigint generated always as identity, dedup_key text, key text, "
      "payload text)");
  db.sql("grant select, insert on effect to inbox_consumer");
}

void write_effect(pqxx::dbtransaction& tx, const outbox::Record& record) {
  tx.exec("insert into effect (dedup_key, key, payload) values (" +
          tx.quote(std::string(record.dedup_key)) + ", " +
          tx.quote(std::string(record.key.value_or(""))) + ", " +
          tx.quote(std::string(record.payload.value_or(""))) + ")");
}

void produce(const std::string& brokers, const std::string& topic,
             const std::vector<NewRecord>& records) {
  Producer producer(brokers);
  for (const NewRecord& r : records) producer.send(topic, r);
  producer.flush();
}

void produce_numbers(const std::string& brokers, const std::string& topic, int first, int count,
                     int keys, std::size_t bytes) {
  Producer producer(brokers);
  for (int n = first; n < first + count; ++n) {
    const std::string number = std::to_string(n);
    std::string payload = number;
    payload.resize(std::max(bytes, number.size()), ' ');
    producer.send(topic, {.dedup_key = number,
                          .key = "k" + std::to_string(n % keys),
                          .payload = std::move(payload)});
  }
  producer.flush();
}

int RunningConsumer::event_count(const std::string& name, const std::string& field,
                                 const std::string& value) {
  const std::lock_guard lock(mutex_);
  return static_cast<int>(
      std::count_if(events_.begin(), events_.end(), [&](const outbox::ConsumerEvent& e) {
        return e.name == name &&
               (field.empty() || std::find(e.fields.begin(), e.fields.end(),
                                           std::pair(field, value)) != e.fields.end());
      }));
}

std::string RunningConsumer::events() {
  const std::lock_guard lock(mutex_);
  std::string text;
  for (const outbox::ConsumerEvent& e : events_) {
    if (e.level == outbox::ConsumerEvent::Level::debug) continue;
    text += e.name;
    for (const auto& [name, value] : e.fields) text += " " + name + "=" + value;
    text += "\n";
  }
  return text;
}

void RunningConsumer::note(const outbox::ConsumerEvent& event) {
  const std::lock_guard lock(mutex_);
  events_.push_back(event);
}

}  // namespace relay::test
