// SPDX-License-Identifier: Apache-2.0
// Charges an account, and writes in the same transaction what must follow: the charge, a receipt by
// e-mail, a reminder tomorrow.
//
//   enqueue-example DSN ACCOUNT CENTS
//
// Needs the table account (id bigint primary key, cents bigint). Prints the ids of the messages.
#include <outbox/enqueue.h>

#include <chrono>
#include <iostream>
#include <pqxx/pqxx>
#include <string>

namespace {

std::vector<outbox::MessageId> charge(pqxx::connection& connection, const std::string& account,
                                      const std::string& cents) {
  using namespace std::chrono_literals;

  pqxx::work tx(connection);
  // First the lock: this row is what the key stands for, and keeps the messages of one account in
  // order.
  tx.exec("update account set cents = cents - " + tx.quote(cents) +
          "::bigint where id = " + tx.quote(account));

  const std::string key = "account-" + account;
  const outbox::Message messages[] = {
      {.topic = "shop.charges",
       .key = key,
       .payload = R"({"cents": )" + cents + "}",
       .headers = {{"content-type", "application/json"}}},
      {.topic = "shop.emails", .key = key, .payload = "You paid " + cents + " cents."},
      {.topic = "shop.emails",
       .key = key,
       .payload = "How was it?",
       .deliver_at = std::chrono::system_clock::now() + 24h},
  };
  auto ids = outbox::enqueue(tx, messages);
  tx.commit();
  return ids;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: enqueue-example DSN ACCOUNT CENTS\n";
    return 2;
  }
  try {
    pqxx::connection connection(argv[1]);
    for (const outbox::MessageId& id : charge(connection, argv[2], argv[3]))
      std::cout << id.text() << '\n';
  } catch (const std::exception& e) {
    std::cerr << "enqueue-example: " << e.what() << '\n';
    return 1;
  }
  return 0;
}
