// SPDX-License-Identifier: Apache-2.0
// Deduplicates messages in the transaction that processes them.
//
//   pqxx::work tx(connection);
//   if (outbox::inbox::accept(tx, "billing", topic, dedup_key, sent_at) ==
//       outbox::inbox::Accepted::new_message) {
//     charge(tx, message);
//   }
//   tx.commit();
//
// An acceptance commits atomically with the rest of the transaction. Concurrent transactions that
// accept the same message wait for each other: if the first commits, the second receives
// `duplicate`; if it rolls back, `new_message`. The commit is durable, whatever the session's
// synchronous_commit.
//
// If commit() throws pqxx::in_doubt_error, the outcome is unknown: process the message again from
// the start, on a new connection. accept() then returns the correct answer.
//
// outbox::Consumer (consumer.h) does all of this. These functions serve custom consumers.
//
// Errors: std::invalid_argument, before anything is sent, for a key that no record of the relay can
// have. Exceptions of libpqxx are passed on, and the transaction has failed; under REPEATABLE READ
// and SERIALIZABLE these include serialization failures.
// Threads: as for the transaction.
// Requires the role inbox_consumer and the schema of `outbox-relay init --schema inbox`.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <pqxx/dbtransaction>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace outbox {
inline namespace v1 {
namespace inbox {

// Result of accepting a message.
enum class Accepted {
  new_message,  // process it in this transaction
  duplicate,    // processed before, or accepted earlier in this transaction: skip it
  expired,      // older than the deduplication period: do not process it, alert an operator
};

// In place of the topic: one deduplication key is one message, whatever its topic. A consumer that
// uses this for some messages must use it for all.
inline constexpr std::string_view any_topic{};

// The properties of a message that deduplication needs.
struct Arrival {
  // Topic of the Kafka record, or any_topic.
  std::string_view topic;

  // Header dedup-key of the Kafka record: 1 to 1,024 bytes of UTF-8.
  std::string_view dedup_key;

  // Header sent-at of the Kafka record if present, else its timestamp. Never the time of arrival.
  std::chrono::system_clock::time_point sent_at;
};

// Registers a consumer. Required once before it accepts messages. Calling it again changes `keep`;
// a longer one does not restore what was deleted. `span` is the granularity of expiry, 1 s to 1
// day, and cannot be changed. Defaults to 7 days and 10 minutes.
void register_consumer(pqxx::dbtransaction& tx, const std::string& consumer,
                       std::chrono::seconds keep = std::chrono::hours(7 * 24),
                       std::chrono::seconds span = std::chrono::minutes(10));

// Accepts one message. One round trip. The topic of the Kafka record is part of the message's
// identity, unless it is any_topic.
Accepted accept(pqxx::dbtransaction& tx, const std::string& consumer, std::string_view topic,
                std::string_view dedup_key, std::chrono::system_clock::time_point sent_at);

// Accepts all messages in one round trip. The answers equal those of accept() for each in turn.
std::vector<Accepted> accept(pqxx::dbtransaction& tx, const std::string& consumer,
                             std::span<const Arrival> arrivals);

// How far a partition of Kafka was read.
struct Position {
  std::string_view topic;
  std::int32_t partition;

  // All messages of the partition that were sent before were read; the present for a partition that
  // was read to its end. None: the partition is read, and how far is not known yet.
  std::optional<std::chrono::system_clock::time_point> read_to;
};

// Reports the partitions that this process reads. Nothing that a reported partition may still
// deliver is expired because other partitions were read sooner. A partition that is not reported
// for `keep` is taken for one that is no longer read. Call it before prune().
void report(pqxx::dbtransaction& tx, const std::string& consumer,
            std::span<const Position> positions);

// Deletes entries older than `keep`, counted back from the newest accepted message, or from where
// the slowest reported partition was read to, if that is earlier. Deletes at most `rows_max` rows
// and returns their number. Parked messages that were handled or discarded 90 days ago are deleted
// as well. Call it periodically until it returns fewer than `rows_max`. It waits for transactions
// that accept messages of the deleted period.
std::int64_t prune(pqxx::dbtransaction& tx, const std::string& consumer, int rows_max = 10'000);

}  // namespace inbox
}  // namespace v1
}  // namespace outbox
