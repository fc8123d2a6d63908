// SPDX-License-Identifier: Apache-2.0
// A Kafka record, as a handler is given it.
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
  std::optional<std::string_view> value;
};

// All views end with the call of the handler: copy what is to live longer.
struct Record {
  // Where it stands.
  std::string_view topic;
  std::int32_t partition = 0;
  std::int64_t offset = 0;

  // Timestamp of the record, or its header sent-at where there is one: when the relay opened its batch.
  std::chrono::sys_time<std::chrono::milliseconds> sent_at{};

  // What repeats are told by. Empty only for a record without a usable one that a person has released.
  std::string_view dedup_key;

  // Bytes. No payload: a tombstone.
  std::optional<std::string_view> key;
  std::optional<std::string_view> payload;

  // All of them, dedup-key included, in their order; a name can stand there more than once.
  std::vector<RecordHeader> headers;

  // It was parked, and is handled after all: by a person's decision, or because its key is free again.
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
