// SPDX-License-Identifier: Apache-2.0
#include "tests/support/kafka_log.h"

#include <librdkafka/rdkafka.h>

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <stdexcept>
#include <tuple>

#include "common/owned.h"

namespace relay::test {
namespace {

using Clock = std::chrono::steady_clock;

using Client = outbox::common::Owned<rd_kafka_t, rd_kafka_destroy>;
using Topic = outbox::common::Owned<rd_kafka_topic_t, rd_kafka_topic_destroy>;
using Queue = outbox::common::Owned<rd_kafka_queue_t, rd_kafka_queue_destroy>;
using Message = outbox::common::Owned<rd_kafka_message_t, rd_kafka_message_destroy>;
using Metadata = outbox::common::Owned<const rd_kafka_metadata_t, rd_kafka_metadata_destroy>;

struct Part {
  std::string topic;
  rd_kafka_topic_t* handle;
  std::int32_t number;
  std::int64_t position;  // where the next record is looked for
  std::int64_t end;
};

void check(rd_kafka_resp_err_t code, const std::string& doing) {
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
    throw std::runtime_error(doing + ": " + rd_kafka_err2str(code));
}

std::string text_of(const void* bytes, std::size_t size) {
  return {static_cast<const char*>(bytes), size};
}

Client connect(const std::string& brokers, const char* isolation) {
  std::array<char, 512> error{};
  rd_kafka_conf_t* conf = rd_kafka_conf_new();
  const std::vector<std::pair<const char*, const char*>> settings = {
      {"bootstrap.servers", brokers.c_str()},
      {"isolation.level", isolation},
      {"enable.partition.eof", "true"},
      {"auto.offset.reset", "error"},
      {"check.crcs", "true"},
      {"fetch.wait.max.ms", "50"}};
  for (const auto& [name, value] : settings) {
    if (rd_kafka_conf_set(conf, name, value, error.data(), error.size()) != RD_KAFKA_CONF_OK)
      throw std::runtime_error(error.data());
  }
  Client client(rd_kafka_new(RD_KAFKA_CONSUMER, conf, error.data(), error.size()));
  if (!client) throw std::runtime_error(error.data());
  return client;
}

class LogReader {
 public:
  LogReader(const std::string& brokers, Isolation isolation, std::chrono::milliseconds timeout)
      : deadline_(Clock::now() + timeout),
        client_(connect(brokers, isolation == Isolation::read_committed ? "read_committed"
                                                                        : "read_uncommitted")),
        uncommitted_(connect(brokers, "read_uncommitted")),
        queue_(rd_kafka_queue_new(client_.get())) {}

  KafkaLog read(const std::vector<std::string>& topics, KafkaPositions& positions) {
    for (const std::string& topic : topics) find_parts(topic, positions);
    for (const Part& part : parts_) {
      if (rd_kafka_consume_start_queue(part.handle, part.number, part.position, queue_.get()) !=
          0) {
        check(rd_kafka_last_error(), "reading " + part.topic);
      }
    }
    while (!at_end() && left_ms() > 0) {
      if (const Message message{rd_kafka_consume_queue(queue_.get(), std::min(left_ms(), 200))})
        take(*message);
    }
    for (const Part& part : parts_) {
      rd_kafka_consume_stop(part.handle, part.number);
      positions[{part.topic, part.number}] = part.position;
      if (part.position < part.end) {
        log_.unread.push_back(part.topic + "[" + std::to_string(part.number) + "] at " +
                              std::to_string(part.position) + " of " + std::to_string(part.end));
      }
    }
    sort(topics);
    return std::move(log_);
  }

 private:
  // The end comes from a read_uncommitted client: a read_committed one would call its last stable
  // offset the end.
  void find_parts(const std::string& topic, const KafkaPositions& positions) {
    handles_.emplace_back(rd_kafka_topic_new(client_.get(), topic.c_str(), nullptr));
    rd_kafka_topic_t* handle = handles_.back().get();
    const rd_kafka_metadata_t* answer = nullptr;
    check(rd_kafka_metadata(client_.get(), 0, handle, &answer, left_ms()), "metadata of " + topic);
    const Metadata metadata(answer);
    check(answer->topics[0].err, "topic " + topic);
    for (int i = 0; i < answer->topics[0].partition_cnt; ++i) {
      const std::int32_t number = answer->topics[0].partitions[i].id;
      std::int64_t begin = 0;
      std::int64_t end = 0;
      auto code = RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION;  // a topic that was just made can
                                                               // have no leader for a moment
      while (code == RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION && left_ms() > 1) {
        code = rd_kafka_query_watermark_offsets(uncommitted_.get(), topic.c_str(), number, &begin,
                                                &end, left_ms());
      }
      check(code, "end of " + topic);
      const auto position = positions.find({topic, number});
      parts_.push_back(
          {topic, handle, number, position == positions.end() ? begin : position->second, end});
    }
  }

  bool at_end() const {
    return std::all_of(parts_.begin(), parts_.end(),
                       [](const Part& part) { return part.position >= part.end; });
  }

  void take(const rd_kafka_message_t& message) {
    Part& part = *std::find_if(parts_.begin(), parts_.end(), [&](const Part& candidate) {
      return candidate.handle == message.rkt && candidate.number == message.partition;
    });
    // The end of what may be read: every record before this offset is read, or belongs to an
    // aborted transaction.
    const bool at_end = message.err == RD_KAFKA_RESP_ERR__PARTITION_EOF;
    if (!at_end) check(message.err, "reading " + part.topic);
    if (!at_end && message.offset < part.end)
      log_.records.push_back(record_of(part.topic, message));
    // What came after the end was asked for is for the next who reads on from here.
    part.position = std::min(at_end ? message.offset : message.offset + 1, part.end);
  }

  static KafkaRecord record_of(const std::string& topic, const rd_kafka_message_t& message) {
    KafkaRecord record;
    record.topic = topic;
    record.partition = message.partition;
    record.offset = message.offset;
    record.timestamp_ms = rd_kafka_message_timestamp(&message, nullptr);
    if (message.key != nullptr) record.key = text_of(message.key, message.key_len);
    if (message.payload != nullptr) record.payload = text_of(message.payload, message.len);
    rd_kafka_headers_t* headers = nullptr;
    if (rd_kafka_message_headers(&message, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR) {
      const char* name = nullptr;
      const void* value = nullptr;
      std::size_t size = 0;
      for (std::size_t i = 0;
           rd_kafka_header_get_all(headers, i, &name, &value, &size) == RD_KAFKA_RESP_ERR_NO_ERROR;
           ++i) {
        record.headers.emplace_back(name, text_of(value, size));
      }
    }
    return record;
  }

  void sort(const std::vector<std::string>& topics) {
    std::map<std::string, std::size_t> rank;
    for (const std::string& topic : topics) rank.emplace(topic, rank.size());
    std::sort(log_.records.begin(), log_.records.end(),
              [&](const KafkaRecord& a, const KafkaRecord& b) {
                return std::tuple(rank.at(a.topic), a.partition, a.offset) <
                       std::tuple(rank.at(b.topic), b.partition, b.offset);
              });
  }

  int left_ms() const {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline_ - Clock::now()).count();
    return static_cast<int>(std::max<decltype(left)>(left, 0));
  }

  Clock::time_point deadline_;
  Client client_;
  Client uncommitted_;
  Queue queue_;
  std::vector<Topic> handles_;
  std::vector<Part> parts_;
  KafkaLog log_;
};

}  // namespace

std::optional<std::string> KafkaRecord::header(const std::string& name) const {
  const auto found = std::find_if(headers.rbegin(), headers.rend(),
                                  [&](const auto& header) { return header.first == name; });
  if (found == headers.rend()) return std::nullopt;
  return found->second;
}

KafkaLog read_log(const std::string& brokers, const std::vector<std::string>& topics,
                  Isolation isolation, std::chrono::milliseconds timeout) {
  KafkaPositions from_the_first;
  return read_on(brokers, topics, isolation, from_the_first, timeout);
}

KafkaLog read_on(const std::string& brokers, const std::vector<std::string>& topics,
                 Isolation isolation, KafkaPositions& positions,
                 std::chrono::milliseconds timeout) {
  return LogReader(brokers, isolation, timeout).read(topics, positions);
}

}  // namespace relay::test
