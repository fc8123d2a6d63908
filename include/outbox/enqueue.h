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
// They never commit, roll back or lock. If commit() throws pqxx::in_doubt_error, or the connection
// breaks in it, the outcome is unknown: the server may still be committing. Ask commit_status() on
// a new connection, with what transaction_id() returned before the commit, until it is not
// in_progress:
//
//   const std::string id = outbox::transaction_id(tx);
//   tx.commit();                                    // throws
//   pqxx::work later(another_connection);
//   outbox::commit_status(later, id);                  // committed: do not repeat; aborted: repeat
//
// Errors: InvalidMessage before anything is sent. Exceptions of libpqxx are passed on, and the
// transaction has failed.
// Threads: as for the transaction.
// Requires the role outbox_writer and the schema of `outbox-relay init`.
#pragma once

#include <pqxx/dbtransaction>
#include <span>
#include <string>
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

// The identity of this transaction (of the whole one, in a subtransaction), a decimal number. One
// round trip.
std::string transaction_id(pqxx::dbtransaction& tx);

enum class CommitStatus {
  committed,
  aborted,
  in_progress,  // ask again: it can still become either
  unknown       // so old that the server has forgotten it
};

// What became of the transaction with this identity. One round trip. Holds as long as the server is
// the same, or a successor that has all its commits.
CommitStatus commit_status(pqxx::dbtransaction& tx, const std::string& transaction_id);

}  // namespace v1
}  // namespace outbox
