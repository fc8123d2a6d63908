// SPDX-License-Identifier: Apache-2.0
#include "relay/kafka/record.h"

#include <string_view>

#include "common/names.h"
#include "relay/kafka/delivery_reports.h"
#include "relay/kafka/progress.h"

namespace relay::kafka {
namespace {

constexpr int transaction_timeout_ms = 15'000;
constexpr std::int64_t beside_payload_max =
    outbox::common::key_bytes_max + outbox::common::headers_bytes_max + 256 * 1024;
// Of librdkafka's queue: the most that it takes. A page bounds what is in it, and a batch in doubt
// can be larger than pages are now.
constexpr const char* queue_unbounded = "2147483647";

Headers headers_of(const Message& m, const Page& page, bool log_append_time,
                   std::int64_t timestamp_ms) {
  Headers headers(rd_kafka_headers_new(1 + (m.headers_to - m.headers_from)));
  const auto add = [&](std::string_view name, std::string_view value) {
    rd_kafka_header_add(headers.get(), name.data(), static_cast<ssize_t>(name.size()), value.data(),
                        static_cast<ssize_t>(value.size()));
  };
  char id[36];
  if (!m.dedup_key) m.id.write(id);
  add("dedup-key", m.dedup_key ? *m.dedup_key : std::string_view(id, sizeof id));
  for (auto i = m.headers_from; i < m.headers_to; ++i) {
    add(page.headers[i].name, page.headers[i].value);
  }
  if (log_append_time) add("sent-at", std::to_string(timestamp_ms));
  return headers;
}

}  // namespace

Result<Conf> producer_conf(const Options& options, Mode mode, const RecordBatchLimits& limits) {
  Properties ours = {
      {"enable.idempotence", "true"},
      {"partitioner", "murmur2_random"},
      {"linger.ms", "0"},
      {"queue.buffering.max.messages", queue_unbounded},
      {"queue.buffering.max.kbytes", queue_unbounded},
      {"message.max.bytes", std::to_string(options.message_bytes_max + beside_payload_max)}};
  if (limits.bytes_max) ours.emplace_back("batch.size", std::to_string(*limits.bytes_max));
  if (limits.messages_max != 0) {
    ours.emplace_back("batch.num.messages", std::to_string(limits.messages_max));
  }
  if (mode == Mode::exactly_once) {
    ours.emplace_back("transactional.id", options.transactional_id());
    ours.emplace_back("transaction.timeout.ms", std::to_string(transaction_timeout_ms));
  } else {
    // A timed-out message would leave the next one of its key delivered.
    ours.emplace_back("message.timeout.ms", "0");
    // What follows a refused record batch must wait: its other messages are good, and come before.
    ours.emplace_back("enable.gapless.guarantee", "true");
  }
  return make_conf(options, ours);
}

rd_kafka_resp_err_t produce(rd_kafka_t* client, const Topic& topic, const Page& page,
                            std::size_t index, std::int32_t partition, std::int64_t timestamp_ms) {
  const Message& m = page.messages[index];
  Headers headers = headers_of(m, page, topic.info.log_append_time, timestamp_ms);
  const auto bytes = [](const std::optional<std::string_view>& v) {
    return v ? const_cast<char*>(v->data()) : nullptr;
  };
  const auto size = [](const std::optional<std::string_view>& v) {
    return v ? v->size() : std::size_t{0};
  };
  const auto code =
      rd_kafka_producev(client, RD_KAFKA_V_RKT(topic.writer.handle()),
                        RD_KAFKA_V_PARTITION(partition), RD_KAFKA_V_KEY(bytes(m.key), size(m.key)),
                        RD_KAFKA_V_VALUE(bytes(m.payload), size(m.payload)),
                        RD_KAFKA_V_TIMESTAMP(timestamp_ms), RD_KAFKA_V_HEADERS(headers.get()),
                        RD_KAFKA_V_OPAQUE(DeliveryReports::opaque(index)), RD_KAFKA_V_END);
  // librdkafka owns them now.
  if (code == RD_KAFKA_RESP_ERR_NO_ERROR) static_cast<void>(headers.release());
  return code;
}

rd_kafka_resp_err_t produce_progress(rd_kafka_t* client, rd_kafka_topic_t* topic,
                                     const std::string& relay, const Progress& progress) {
  const std::string value = progress_json(progress);
  return rd_kafka_producev(client, RD_KAFKA_V_RKT(topic), RD_KAFKA_V_PARTITION(0),
                           RD_KAFKA_V_KEY(relay.data(), relay.size()),
                           RD_KAFKA_V_VALUE(const_cast<char*>(value.data()), value.size()),
                           RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_OPAQUE(nullptr),
                           RD_KAFKA_V_END);
}

}  // namespace relay::kafka
