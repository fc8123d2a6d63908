// SPDX-License-Identifier: Apache-2.0
// Tells a consumer, inside the transaction that handles a message, whether the message was handled before.
//
//   pqxx::work tx(connection);
//   if (outbox::inbox::accept(tx, "billing", dedup_key, sent_at) == outbox::inbox::Accepted::new_message) charge(tx, message);
//   tx.commit();
//
// What is accepted is true with the commit, together with what the handler wrote, or not at all. Two transactions that accept one
// message wait for each other: when the first commits, the second is told `duplicate`; when it rolls back, `fresh`. The commit
// waits until it is durable, whatever synchronous_commit says in the session.
//
// If commit() throws pqxx::in_doubt_error, handle the message anew from the start, on a new connection: accept() knows.
//
// outbox::Consumer (consumer.h) does all of this. These functions are for a consumer of your own.
//
// Errors: std::invalid_argument for a key that no record of the relay can have, before anything is sent; what libpqxx throws is
// passed on, and the transaction has failed then. In REPEATABLE READ and SERIALIZABLE that can be a serialization failure.
// Threads: as for the transaction.
// Needs the rights of the role inbox_consumer, and a schema made by `outbox-relay init --schema inbox`.
#pragma once

#include <chrono>
#include <cstdint>
#include <pqxx/dbtransaction>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace outbox {
inline namespace v1 {
namespace inbox {

// What becomes of a message.
enum class Accepted {
  new_message,  // handle it, in this transaction
  duplicate,  // it was handled before, or stands earlier in this transaction: do nothing
  expired,    // it is older than what the consumer remembers, and nobody knows: do not handle it, tell a person
};

// A message, as far as the inbox needs to know it.
struct Arrival {
  // Header dedup-key of the Kafka record: 1 to 1,024 bytes of UTF-8.
  std::string_view dedup_key;

  // Timestamp of the Kafka record, or its header sent-at where there is one; never the time at which it arrived.
  std::chrono::system_clock::time_point sent_at;
};

// Makes a consumer known. Needed once, before it accepts anything; can be repeated, and then changes `keep`. A longer one brings
// nothing back. `span` is the step in which it forgets, 1 s to 1 day; it cannot be changed later.
void register_consumer(pqxx::dbtransaction& tx, const std::string& consumer, std::chrono::seconds keep = std::chrono::hours(7 * 24),
                       std::chrono::seconds span = std::chrono::minutes(10));

// Accepts one message. One round trip.
Accepted accept(pqxx::dbtransaction& tx, const std::string& consumer, std::string_view dedup_key,
                std::chrono::system_clock::time_point sent_at);

// Accepts all of them in one round trip: the answers are those that accept() would give for one after the other, in this order.
std::vector<Accepted> accept(pqxx::dbtransaction& tx, const std::string& consumer, std::span<const Arrival> arrivals);

// Forgets what is older than `keep`, counted back from the newest message that was accepted. Deletes at most `rows_max` rows and
// returns how many: call it now and then, each time until it returns less. It waits for transactions that accept what it forgets.
std::int64_t prune(pqxx::dbtransaction& tx, const std::string& consumer, int rows_max = 10'000);

}  // namespace inbox
}  // namespace v1
}  // namespace outbox
