// SPDX-License-Identifier: Apache-2.0
// Writes messages to the outbox in a transaction of the application.
//
//   pqxx::work tx(connection);
//   tx.exec("update account set cents = cents - 4200 where id = 7");  // locks the key's row first
//   outbox::enqueue(tx, {.topic = "shop.charges",
//                        .key = "account-7",
//                        .payload = R"({"cents": 4200})"});
//   tx.commit();
//
// Messages commit atomically with the rest of the transaction. The functions therefore require a
// pqxx::dbtransaction (pqxx::work, pqxx::subtransaction, ...) and reject a pqxx::nontransaction.
//
// They never commit, roll back or lock. If commit() throws pqxx::in_doubt_error, the outcome is
// unknown: on a new connection, outbox.status_of(id) returns a row if and only if the transaction
// committed (until retention deletes the delivered message).
//
// Errors: InvalidMessage before anything is sent. Exceptions of libpqxx are passed on, and the
// transaction has failed.
// Threads: as for the transaction.
// Requires the role outbox_writer and the schema of `outbox-relay init`.
#pragma once

#include <pqxx/dbtransaction>
#include <span>
#include <vector>

#include "outbox/message.h"

namespace outbox {
inline namespace v1 {

// Writes one message and returns its id. One round trip.
MessageId enqueue(pqxx::dbtransaction& tx, const Message& message);

// Writes all messages in this order and returns their ids in the same order. One round trip for
// each 1,000 messages or 4 MiB of keys and payloads. Scheduled messages (with deliver_at) are sent
// in separate round trips.
std::vector<MessageId> enqueue(pqxx::dbtransaction& tx, std::span<const Message> messages);

}  // namespace v1
}  // namespace outbox
