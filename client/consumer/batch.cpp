// SPDX-License-Identifier: Apache-2.0
#include "client/consumer/batch.h"

#include <charconv>

#include "client/consumer/sanitize_utf8.h"
#include "common/names.h"

namespace outbox::consumer {
namespace {

// End of the year 9999, in milliseconds since 1970: the range of the inbox's timestamps.
constexpr std::int64_t sent_at_max = 253'402'300'799'999;

// Kafka distinguishes null from empty.
std::optional<std::string_view> bytes(const void* data, std::size_t size) {
  if (data == nullptr) return std::nullopt;
  return std::string_view(static_cast<const char*>(data), size);
}

void read_headers(const rd_kafka_message_t& message, Record& record) {
  rd_kafka_headers_t* headers = nullptr;
  if (rd_kafka_message_headers(&message, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR) return;
  record.headers.reserve(rd_kafka_header_cnt(headers));
  const char* name = nullptr;
  const void* value = nullptr;
  std::size_t size = 0;
  for (std::size_t i = 0;
       rd_kafka_header_get_all(headers, i, &name, &value, &size) == RD_KAFKA_RESP_ERR_NO_ERROR;
       ++i) {
    record.headers.push_back({name, bytes(value, size)});
  }
}

// Sets the time. Returns false if the record has no valid one.
bool read_time(const rd_kafka_message_t& message, Record& record) {
  rd_kafka_timestamp_type_t type = RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
  std::int64_t ms = rd_kafka_message_timestamp(&message, &type);
  if (type == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE) ms = -1;
  // The header comes first: with log-append time a duplicate has a later timestamp, and the inbox
  // may have pruned the entry of the first copy.
  if (const auto header = record.header("sent-at")) {
    const auto [end, error] = std::from_chars(header->data(), header->data() + header->size(), ms);
    if (error != std::errc() || end != header->data() + header->size()) ms = -1;
  }
  if (ms < 0 || ms > sent_at_max) return false;
  record.sent_at = std::chrono::sys_time<std::chrono::milliseconds>(std::chrono::milliseconds(ms));
  return true;
}

// Why the inbox cannot store the deduplication key; empty: it can.
std::string key_error(const std::optional<std::string_view>& key) {
  if (!key || key->empty()) return "the record has no header dedup-key";
  if (key->size() > common::dedup_key_bytes_max) {
    return "the header dedup-key has " + std::to_string(key->size()) + " bytes; the limit is 1,024";
  }
  if (!common::is_text(*key)) return "the header dedup-key is not UTF-8 or has a zero byte";
  return {};
}

}  // namespace

void Batch::add(Message message) {
  Record record;
  record.topic = rd_kafka_topic_name(message->rkt);
  record.partition = message->partition;
  record.offset = message->offset;
  record.key = bytes(message->key, message->key_len);
  record.payload = bytes(message->payload, message->len);
  read_headers(*message, record);
  const auto key = record.header("dedup-key");
  std::string fault = key_error(key);
  if (fault.empty()) record.dedup_key = *key;
  if (!read_time(*message, record) && fault.empty()) {
    fault = "the record has no valid timestamp or header sent-at";
  }
  messages.push_back(std::move(message));
  records.push_back(std::move(record));
  faults.push_back(std::move(fault));
}

}  // namespace outbox::consumer
