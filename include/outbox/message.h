// SPDX-License-Identifier: Apache-2.0
// A message for the outbox, as an application writes it.
#pragma once

#include <chrono>
#include <cstddef>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>

namespace outbox {
inline namespace v1 {

// What must follow the commit of a transaction. Only `topic` is required.
//
// key and payload are bytes: any value is allowed, zero bytes included. All other texts are UTF-8 without zero bytes.
struct Message {
  // Kafka topic: 1 to 249 of a-z A-Z 0-9 . _ -
  std::string topic;

  // Key of the Kafka record. Messages of one (topic, key) arrive in the order of their transactions, if each transaction locks
  // what the key stands for before it enqueues. Defaults to none: no order.
  std::optional<std::string> key{};

  // Value of the Kafka record. Defaults to none: a tombstone, which is what deletes a key from a compacted topic.
  std::optional<std::string> payload{};

  // Further Kafka headers. dedup-key, sent-at and all names that begin with outbox- or effect- are reserved.
  std::map<std::string, std::string> headers{};

  // What consumers tell repeats by, in the header dedup-key; at most 1,024 bytes. Defaults to the id of the message. Two messages
  // with one key are two messages: the relay does not suppress the second, consumers do.
  std::optional<std::string> dedup_key{};

  // Not to be delivered before, by the clock of the database; delivered within a second of it. Defaults to at once.
  std::optional<std::chrono::system_clock::time_point> deliver_at{};
};

// Identity of a message: a UUID. outbox.status_of(id) says where the message is.
class MessageId {
 public:
  explicit MessageId(std::string text) : text_(std::move(text)) {}
  // Its usual 36 characters, in small letters.
  const std::string& text() const { return text_; }
  friend bool operator==(const MessageId&, const MessageId&) = default;

 private:
  std::string text_;
};

// A message that the relay could never send: say, a topic name that Kafka does not allow. what() names the message, the place
// and the remedy. Nothing was sent to the server, so the transaction can be used further.
class InvalidMessage : public std::invalid_argument {
 public:
  InvalidMessage(std::size_t index, const std::string& what) : std::invalid_argument(what), index_(index) {}
  // Its place in what was given to enqueue(), from 0.
  std::size_t index() const { return index_; }

 private:
  std::size_t index_;
};

}  // namespace v1
}  // namespace outbox
