// SPDX-License-Identifier: Apache-2.0
#include "client/consumer/parked_messages.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "client/consumer/sanitize_utf8.h"
#include "common/pqxx_statement.h"

namespace outbox::consumer {
namespace {

using common::null_if_empty;
using common::run;

// inbox.park() returns null if the record was parked before.
constexpr const char* park_sql = R"(
select inbox.park($1, $2, $3::integer, $4::bigint,
                  timestamptz 'epoch' operator(pg_catalog.+)
                    (interval '1 millisecond' operator(pg_catalog.*) $5::double precision),
                  $6::bytea, $7::bytea, $8::jsonb, $9, $10, $11))";

constexpr const char* next_sql = R"(
select n.id, n.topic, n."partition", n.record_offset,
       (pg_catalog.date_part('epoch', n.sent_at)
        operator(pg_catalog.*) 1000::double precision)::bigint,
       pg_catalog.encode(n.key, 'hex'), pg_catalog.encode(n.payload, 'hex'), n.headers, n.dedup_key
from inbox.next_released($1, $2::boolean, $3::bigint) n)";

// No row if another consumer has processed the message meanwhile.
constexpr const char* park_again_sql = R"(
select inbox.park_again(p.id, $2)
from (select q.id from inbox.parked q
      where q.id = $1::bigint and q.handled_at is null and q.resolution is distinct from 'discard'
      for update skip locked) p)";

// Text form of a bytea value, which is never empty; empty: there is none.
std::string bytea(const std::optional<std::string_view>& bytes) {
  return bytes ? common::bytea(*bytes) : std::string();
}

// Replaces each byte outside the charset by "?".
std::string kept(std::string text, Charset charset) {
  if (charset == Charset::all) return text;
  for (char& c : text) {
    if (static_cast<unsigned char>(c) >= 0x80) c = '?';
  }
  return text;
}

// Headers as a JSON array of [name, value in hexadecimal or null].
std::string headers_of(const Record& record, Charset charset) {
  auto all = nlohmann::json::array();
  for (const RecordHeader& h : record.headers) {
    auto value = h.value ? nlohmann::json(common::hex(*h.value)) : nlohmann::json();
    all.push_back(nlohmann::json::array({kept(sanitize_utf8(h.name), charset), std::move(value)}));
  }
  return all.dump();
}

// A row of next_sql, and the record that points into it.
class Parked {
 public:
  explicit Parked(const pqxx::row& row)
      : topic_(row[1].c_str()), dedup_key_(row[8].is_null() ? "" : row[8].c_str()) {
    if (!row[5].is_null()) key_ = common::unhex(row[5].c_str());
    if (!row[6].is_null()) payload_ = common::unhex(row[6].c_str());
    if (!row[7].is_null()) read_headers(row[7].c_str());
    record.topic = topic_;
    record.partition = row[2].as<std::int32_t>();
    record.offset = row[3].as<std::int64_t>();
    record.sent_at = std::chrono::sys_time<std::chrono::milliseconds>(
        std::chrono::milliseconds(row[4].as<std::int64_t>()));
    record.dedup_key = dedup_key_;
    if (key_) record.key = *key_;
    if (payload_) record.payload = *payload_;
    record.released = true;
  }
  Parked(const Parked&) = delete;
  Parked& operator=(const Parked&) = delete;

  Record record;

 private:
  void read_headers(const char* json) {
    const auto all = nlohmann::json::parse(json);
    for (const auto& h : all) {
      headers_.emplace_back(h.at(0).get<std::string>(),
                            h.at(1).is_null()
                                ? std::nullopt
                                : std::optional(common::unhex(h.at(1).get<std::string>())));
    }
    for (const auto& [name, value] : headers_) {
      record.headers.push_back(
          {name, value ? std::optional<std::string_view>(*value) : std::nullopt});
    }
  }

  std::string topic_;
  std::string dedup_key_;
  std::optional<std::string> key_;
  std::optional<std::string> payload_;
  std::vector<std::pair<std::string, std::optional<std::string>>> headers_;
};

}  // namespace

bool park(pqxx::dbtransaction& tx, const std::string& consumer, const Record& record,
          const char* error_class, const std::string& error_text, Charset charset) {
  const bool usable = std::string_view(error_class) != "malformed";
  const auto rows =
      run(tx, park_sql, consumer, std::string(record.topic), std::to_string(record.partition),
          std::to_string(record.offset), std::to_string(record.sent_at.time_since_epoch().count()),
          null_if_empty(bytea(record.key)), null_if_empty(bytea(record.payload)),
          headers_of(record, charset), null_if_empty(std::string(usable ? record.dedup_key : "")),
          std::string(error_class), kept(error_text, charset));
  return !rows.empty() && !rows[0][0].is_null();
}

bool any_parked(pqxx::dbtransaction& tx, const std::string& consumer) {
  return run(tx, R"(
select exists (select from inbox.parked p join inbox.consumer c on c.id = p.consumer
               where c.name = $1 and p.handled_at is null
                 and p.resolution is distinct from 'discard'))",
             consumer)[0][0]
      .as<bool>();
}

// Only a failure inside the handler is the message's: handing_over_ marks that part.
ParkedRetrier::Progress ParkedRetrier::step(pqxx::connection& connection) {
  id_.clear();
  handing_over_ = false;
  try {
    if (handle_next(connection)) return Progress::one_more;
    behind_ = "0";
    return Progress::none;
  } catch (...) {
    failure_ = classify(std::current_exception());
  }
  if (failure_.fault == Fault::message && handing_over_ &&
      park_again(connection, sanitize_utf8(failure_.what))) {
    return Progress::one_more;
  }
  if (!id_.empty()) behind_ = id_;
  return Progress::failed;
}

// One transaction. Returns false if no message is released; throws if it fails.
bool ParkedRetrier::handle_next(pqxx::connection& connection) {
  pqxx::work tx(connection);
  const auto rows =
      run(tx, next_sql, options_.consumer,
          std::string(options_.order == ConsumerOptions::Order::key ? "true" : "false"), behind_);
  if (rows.empty()) return false;
  id_ = rows[0][0].c_str();
  handing_over_ = true;  // an undecodable row counts as rejected by the handler
  const Parked parked(rows[0]);
  handler_(tx, std::span(&parked.record, 1));
  run(tx, "select inbox.handled($1::bigint)", id_);
  tx.commit();
  ++stats_.released;
  return true;
}

// A reason that the encoding of the database cannot represent is reduced to ASCII.
bool ParkedRetrier::park_again(pqxx::connection& connection, const std::string& why) {
  for (const Charset charset : {Charset::all, Charset::ascii}) {
    try {
      pqxx::work tx(connection);
      run(tx, park_again_sql, id_, kept(why, charset));
      tx.commit();
      ++stats_.parked;
      return true;
    } catch (...) {
      failure_ = classify(std::current_exception());
      if (failure_.fault != Fault::message) break;
    }
  }
  return false;
}

}  // namespace outbox::consumer
