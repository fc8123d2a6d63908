// SPDX-License-Identifier: Apache-2.0
// enqueue(): inserts messages into outbox.message, or outbox.scheduled if they have deliver_at.
//
//   1. Validate all messages; the first fault throws InvalidMessage before anything is sent.
//   2. Collect them in two chunks, immediate and scheduled.
//   3. Write a chunk as one statement when it is full (1,000 messages or 4 MiB), and at the end.
//   4. Return the ids in the order of the messages.
//
// Failure. Exceptions of libpqxx are passed on; the transaction has failed. Uses the thread and the
// connection of the transaction; keeps no state.
#include "outbox/enqueue.h"

#include <nlohmann/json.hpp>
#include <string_view>

#include "common/names.h"
#include "common/pqxx_statement.h"

namespace outbox {
inline namespace v1 {
namespace {

using common::ArrayText;
using common::has_zero_byte;
using common::run;

constexpr std::size_t chunk_messages_max = 1'000;
constexpr std::size_t chunk_bytes_max = std::size_t{4} << 20;

// PostgreSQL evaluates the column defaults after the sort: seq increases in the order of the
// messages.
constexpr const char* insert_sql = R"(
with written as (
  insert into outbox.message (topic, key, payload, headers, dedup_key)
  select m.topic, m.key, m.payload, m.headers, m.dedup_key
  from rows from (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::bytea[]),
                  pg_catalog.unnest($3::bytea[]), pg_catalog.unnest($4::jsonb[]),
                  pg_catalog.unnest($5::text[]))
       with ordinality as m(topic, key, payload, headers, dedup_key, n)
  order by m.n
  returning id, seq)
select w.id from written w order by w.seq)";

// It runs in the application's session: operators are named with their schema.
constexpr const char* schedule_sql = R"(
select outbox.enqueue(m.topic, m.key, m.payload, m.headers, m.dedup_key,
                      timestamptz 'epoch' operator(pg_catalog.+)
                        (interval '1 microsecond' operator(pg_catalog.*) m.deliver_at))
from rows from (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::bytea[]),
                pg_catalog.unnest($3::bytea[]), pg_catalog.unnest($4::jsonb[]),
                pg_catalog.unnest($5::text[]), pg_catalog.unnest($6::double precision[]))
     with ordinality as m(topic, key, payload, headers, dedup_key, deliver_at, n)
order by m.n)";

// Headers as a JSON object. Throws nlohmann::json::exception if they are not UTF-8.
std::string json_of(const Message& message) { return nlohmann::json(message.headers).dump(); }

// Why the relay cannot publish the message; empty: it can.
std::string message_error(const Message& message) {
  if (!common::valid_topic_name(message.topic)) {
    return "topic is not a valid Kafka name. HINT: use 1 to 249 characters of a-z A-Z 0-9 . _ -, "
           "except \".\" and \"..\"";
  }
  if (message.key && message.key->size() > common::key_bytes_max) {
    return "key has " + std::to_string(message.key->size()) +
           " bytes. HINT: the limit is 1 MiB; use a hash of it";
  }
  if (message.dedup_key && message.dedup_key->empty()) {
    return "dedup_key is empty. HINT: leave it out, and the message id is the deduplication key";
  }
  if (message.dedup_key && message.dedup_key->size() > common::dedup_key_bytes_max) {
    return "dedup_key has " + std::to_string(message.dedup_key->size()) +
           " bytes. HINT: the limit is 1,024; use a hash of it";
  }
  if (message.dedup_key && common::has_zero_byte(*message.dedup_key)) {
    return "dedup_key has a zero byte. HINT: encode bytes as text, for example in hexadecimal";
  }
  for (const auto& [name, value] : message.headers) {
    if (common::reserved_header(name)) {
      return "header \"" + name +
             "\" is reserved. HINT: use another name; dedup-key, sent-at, outbox-* and effect-* "
             "are reserved";
    }
    if (common::has_zero_byte(name) || common::has_zero_byte(value)) {
      return "a header has a zero byte. HINT: headers are text; put binary data into the payload";
    }
  }
  try {
    if (const auto bytes = json_of(message).size(); bytes > common::headers_bytes_max) {
      return "headers have " + std::to_string(bytes) +
             " bytes. HINT: the limit is 1 MiB; put content into the payload";
    }
  } catch (const nlohmann::json::exception&) {
    return "a header is not UTF-8. HINT: headers are text; put binary data into the payload";
  }
  return {};
}

// Throws InvalidMessage for the first invalid message.
void check_messages(std::span<const Message> messages) {
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (const std::string fault = message_error(messages[i]); !fault.empty()) {
      throw InvalidMessage(i, "outbox message " + std::to_string(i) + " of " +
                                  std::to_string(messages.size()) + ": " + fault);
    }
  }
}

// Messages of one statement: either all scheduled, or none.
class Chunk {
 public:
  explicit Chunk(bool scheduled) : scheduled_(scheduled) {}

  void add(std::size_t index, const Message& message) {
    indexes_.push_back(index);
    bytes_ +=
        (message.key ? message.key->size() : 0) + (message.payload ? message.payload->size() : 0);
    topics_.add(message.topic);
    keys_.add_bytes(message.key);
    payloads_.add_bytes(message.payload);
    if (message.headers.empty()) {
      headers_.add_null();
    } else {
      headers_.add(json_of(message));
    }
    if (message.dedup_key) {
      dedup_keys_.add(*message.dedup_key);
    } else {
      dedup_keys_.add_null();
    }
    if (scheduled_) {
      using std::chrono::microseconds;
      times_.add(std::to_string(
          std::chrono::ceil<microseconds>(message.deliver_at->time_since_epoch()).count()));
    }
  }

  bool full() const { return indexes_.size() >= chunk_messages_max || bytes_ >= chunk_bytes_max; }

  // Writes the messages, and their ids to `ids`; then the chunk is empty.
  void write(pqxx::dbtransaction& tx, std::vector<MessageId>& ids) {
    if (indexes_.empty()) return;
    const pqxx::result rows =
        scheduled_ ? run(tx, schedule_sql, topics_.text(), keys_.text(), payloads_.text(),
                         headers_.text(), dedup_keys_.text(), times_.text())
                   : run(tx, insert_sql, topics_.text(), keys_.text(), payloads_.text(),
                         headers_.text(), dedup_keys_.text());
    std::size_t n = 0;
    for (const auto& row : rows) ids.at(indexes_.at(n++)) = MessageId(row[0].c_str());
    *this = Chunk(scheduled_);
  }

 private:
  bool scheduled_;
  std::vector<std::size_t> indexes_;
  std::size_t bytes_ = 0;
  common::ArrayText topics_, keys_, payloads_, headers_, dedup_keys_, times_;
};

}  // namespace

MessageId enqueue(pqxx::dbtransaction& tx, const Message& message) {
  return enqueue(tx, std::span(&message, 1)).front();
}

std::vector<MessageId> enqueue(pqxx::dbtransaction& tx, std::span<const Message> messages) {
  check_messages(messages);
  common::begin_subtransaction(tx);
  std::vector<MessageId> ids(messages.size(), MessageId(""));
  Chunk now(false);
  Chunk later(true);
  for (std::size_t i = 0; i < messages.size(); ++i) {
    Chunk& chunk = messages[i].deliver_at ? later : now;
    chunk.add(i, messages[i]);
    if (chunk.full()) chunk.write(tx, ids);
  }
  now.write(tx, ids);
  later.write(tx, ids);
  return ids;
}

std::string transaction_id(pqxx::dbtransaction& tx) {
  common::begin_subtransaction(tx);
  return run(tx, "select pg_catalog.pg_current_xact_id()")[0][0].c_str();
}

CommitStatus commit_status(pqxx::dbtransaction& tx, const std::string& transaction_id) {
  const auto rows = run(tx, "select outbox.commit_status($1::pg_catalog.xid8)", transaction_id);
  const std::string_view answer = rows[0][0].c_str();
  if (answer == "committed") return CommitStatus::committed;
  if (answer == "aborted") return CommitStatus::aborted;
  return answer == "in progress" ? CommitStatus::in_progress : CommitStatus::unknown;
}

}  // namespace v1
}  // namespace outbox
