// SPDX-License-Identifier: Apache-2.0
// An outbox message, as written by the application.
//
//   outbox::Message message{.topic = "shop.charges",
//                           .key = "account-7",
//                           .payload = R"({"cents": 4200})",
//                           .headers = {{"content-type", "application/json"}},
//                           .dedup_key = "order-1001-charge"};
//   const outbox::MessageId id = outbox::enqueue(tx, message);  // enqueue.h
//
// Threads: values; no type of this file synchronizes.
#pragma once

#include <chrono>
#include <cstddef>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

namespace outbox {
inline namespace v1 {

// A message to publish after the commit of its transaction.
//
// `key` and `payload` may hold any bytes. All other strings are UTF-8 without zero bytes.
struct Message {
  // Kafka topic: 1 to 249 characters of a-z A-Z 0-9 . _ - Required.
  std::string topic;

  // Key of the Kafka record, at most 1 MiB. Messages of the same (topic, key) are delivered in
  // transaction order if each transaction locks the entity of the key before it enqueues. Defaults
  // to none: no order.
  std::optional<std::string> key{};

  // Value of the Kafka record. Defaults to none: a tombstone, which deletes the key from a
  // compacted topic.
  std::optional<std::string> payload{};

  // Additional Kafka headers, at most 1 MiB as JSON. dedup-key, sent-at, outbox-* and effect-* are
  // reserved. Defaults to none.
  std::map<std::string, std::string> headers{};

  // Deduplication key, sent as the header `dedup-key`; 1 to 1,024 bytes. Defaults to the message
  // id. The relay publishes messages with equal keys; consumers deduplicate them.
  std::optional<std::string> dedup_key{};

  // Earliest time of delivery, by the clock of the database; delivered within a second of it.
  // Defaults to none: immediately.
  std::optional<std::chrono::system_clock::time_point> deliver_at{};
};

// Identity of a message: a UUID. outbox.status_of(id) returns the state of the message.
class MessageId {
 public:
  explicit MessageId(std::string text) : text_(std::move(text)) {}
  // The canonical form of 36 characters in lower case.
  const std::string& text() const { return text_; }
  friend bool operator==(const MessageId&, const MessageId&) = default;

 private:
  std::string text_;
};

// The relay cannot publish the message, for example because Kafka does not allow the topic name.
// what() names the message, the field and the remedy. Nothing was sent to the server; the
// transaction remains usable.
class InvalidMessage : public std::invalid_argument {
 public:
  InvalidMessage(std::size_t index, const std::string& what)
      : std::invalid_argument(what), index_(index) {}
  // Index of the message in the argument of enqueue(), from 0.
  std::size_t index() const { return index_; }

 private:
  std::size_t index_;
};

}  // namespace v1
}  // namespace outbox
