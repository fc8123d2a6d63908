// SPDX-License-Identifier: Apache-2.0
// A Kafka record, as passed to a handler (consumer.h).
//
//   void handle(pqxx::dbtransaction& tx, const outbox::Record& record) {
//     if (!record.payload) return remove_account(tx, record.key.value());  // tombstone
//     if (record.header("content-type") != "application/json") throw outbox::Poison("not JSON");
//     charge(tx, *record.payload);
//   }
//
// Threads: valid in the thread of the handler, until the handler returns.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace outbox {
inline namespace v1 {

struct RecordHeader {
  std::string_view name;
  // Bytes; none: the header has a null value.
  std::optional<std::string_view> value;
};

// All views are valid only during the call of the handler. Copy data that must outlive it.
struct Record {
  // Position in Kafka.
  std::string_view topic;
  std::int32_t partition = 0;
  std::int64_t offset = 0;

  // Header sent-at (the time at which the relay opened the batch) if present, else the timestamp of
  // the record.
  std::chrono::sys_time<std::chrono::milliseconds> sent_at{};

  // Deduplication key. Empty only for a record without a valid key that an operator has released.
  std::string_view dedup_key;

  // Bytes. A record without a payload is a tombstone.
  std::optional<std::string_view> key;
  std::optional<std::string_view> payload;

  // All headers in order, dedup-key included. Names may repeat.
  std::vector<RecordHeader> headers;

  // Whether the message was parked and is processed after its release.
  bool released = false;

  // Value of the last header of this name.
  std::optional<std::string_view> header(std::string_view name) const {
    for (auto h = headers.rbegin(); h != headers.rend(); ++h) {
      if (h->name == name) return h->value;
    }
    return std::nullopt;
  }
};

}  // namespace v1
}  // namespace outbox
