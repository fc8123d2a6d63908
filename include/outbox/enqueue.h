// SPDX-License-Identifier: Apache-2.0
// Writes messages into the outbox, in a transaction of the application's.
//
//   pqxx::work tx(connection);
//   tx.exec("update account set cents = cents - 4200 where id = 7");    // locks what the key stands for, before it enqueues
//   outbox::enqueue(tx, {.topic = "shop.charges", .key = "account-7", .payload = R"({"cents": 4200})"});
//   tx.commit();
//
// The message becomes true with the commit, together with everything else in the transaction, or not at all. That is why these
// functions want a pqxx::dbtransaction (pqxx::work, pqxx::subtransaction, …) and do not take a pqxx::nontransaction.
//
// They never commit, roll back or lock. If commit() throws pqxx::in_doubt_error, nobody knows yet whether the messages are true:
// on a new connection, outbox.status_of(id) returns a row if, and only if, they are (until retention removes a delivered message).
//
// Errors: InvalidMessage, before anything is sent; what libpqxx throws is passed on, and the transaction has failed then.
// Threads: as for the transaction.
// Needs the rights of the role outbox_writer, and a schema made by `outbox-relay init`.
#pragma once

#include <pqxx/dbtransaction>
#include <span>
#include <vector>

#include "outbox/message.h"

namespace outbox {
inline namespace v1 {

// Writes one message and returns its id. One round trip.
MessageId enqueue(pqxx::dbtransaction& tx, const Message& message);

// Writes all of them, in this order, and returns their ids in the same order. One round trip for each 1,000 messages or 4 MiB of
// keys and payloads: much faster than one by one. Scheduled messages (with deliver_at) go in round trips of their own.
std::vector<MessageId> enqueue(pqxx::dbtransaction& tx, std::span<const Message> messages);

}  // namespace v1
}  // namespace outbox
