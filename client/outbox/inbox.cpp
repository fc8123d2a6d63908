// SPDX-License-Identifier: Apache-2.0
// The inbox functions: one statement for each, on the caller's transaction.
//
// Deduplication keys are validated before anything is sent. Failure: exceptions of libpqxx are
// passed on; the transaction has failed. Uses the thread and the connection of the transaction;
// keeps no state.
#include "outbox/inbox.h"

#include <pqxx/pqxx>
#include <stdexcept>

#include "common/names.h"
#include "common/pqxx_statement.h"

namespace outbox {
inline namespace v1 {
namespace inbox {
namespace {

using common::run;
using TimePoint = std::chrono::system_clock::time_point;

// libpqxx truncates text at a zero byte: the truncated key could equal another, and the message
// would be skipped as a duplicate.
void check_key(std::string_view dedup_key) {
  if (!dedup_key.empty() && dedup_key.size() <= common::dedup_key_bytes_max &&
      !common::has_zero_byte(dedup_key)) {
    return;
  }
  throw std::invalid_argument("a deduplication key has " + std::to_string(dedup_key.size()) +
                              " bytes, or a zero byte. HINT: pass the header dedup-key of the "
                              "Kafka record, text of 1 to 1,024 bytes; "
                              "park the message if it has none");
}

std::string micros(TimePoint t) {
  using std::chrono::microseconds;
  return std::to_string(std::chrono::floor<microseconds>(t.time_since_epoch()).count());
}

std::string interval(std::chrono::seconds s) { return std::to_string(s.count()) + " seconds"; }

Accepted accepted_of(std::string_view word) {
  if (word == "new") return Accepted::new_message;
  if (word == "duplicate") return Accepted::duplicate;
  if (word == "expired") return Accepted::expired;
  throw std::logic_error("inbox.accept answered \"" + std::string(word) +
                         "\". HINT: the schema is newer than this library; upgrade the library");
}

}  // namespace

void register_consumer(pqxx::dbtransaction& tx, const std::string& consumer,
                       std::chrono::seconds keep, std::chrono::seconds span) {
  common::begin_subtransaction(tx);
  run(tx, "select inbox.register($1, $2::interval, $3::integer)", consumer, interval(keep),
      std::to_string(span.count()));
}

Accepted accept(pqxx::dbtransaction& tx, const std::string& consumer, std::string_view topic,
                std::string_view dedup_key, TimePoint sent_at) {
  check_key(dedup_key);
  common::begin_subtransaction(tx);
  const std::string named(topic);
  const auto rows =
      run(tx,
          "select inbox.accept($1, $2, $3, timestamptz 'epoch' operator(pg_catalog.+) "
          "(interval '1 microsecond' operator(pg_catalog.*) $4::double precision))",
          consumer, common::null_if_empty(named), std::string(dedup_key), micros(sent_at));
  return accepted_of(rows[0][0].c_str());
}

std::vector<Accepted> accept(pqxx::dbtransaction& tx, const std::string& consumer,
                             std::span<const Arrival> arrivals) {
  common::ArrayText topics;
  common::ArrayText keys;
  common::ArrayText times;
  for (const Arrival& a : arrivals) {
    check_key(a.dedup_key);
    if (a.topic == any_topic) topics.add_null();
    else topics.add(a.topic);
    keys.add(a.dedup_key);
    times.add(micros(a.sent_at));
  }
  common::begin_subtransaction(tx);
  const auto rows = run(tx, R"(
select a.verdict from pg_catalog.unnest(inbox.accept_all($1, $2::text[], $3::text[], array(
  select timestamptz 'epoch' operator(pg_catalog.+)
           (interval '1 microsecond' operator(pg_catalog.*) t.at)
  from pg_catalog.unnest($4::double precision[]) with ordinality t(at, n) order by t.n)))
  with ordinality a(verdict, n)
order by a.n)",
                        consumer, topics.text(), keys.text(), times.text());
  std::vector<Accepted> answers;
  answers.reserve(arrivals.size());
  for (const auto& row : rows) answers.push_back(accepted_of(row[0].c_str()));
  if (answers.size() != arrivals.size()) {
    throw std::logic_error(
        "inbox.accept_all returned a wrong number of answers. HINT: the schema does not match this "
        "library; run `outbox-relay init --schema inbox`");
  }
  return answers;
}

void report(pqxx::dbtransaction& tx, const std::string& consumer,
            std::span<const Position> positions) {
  common::ArrayText topics;
  common::ArrayText partitions;
  common::ArrayText times;
  for (const Position& p : positions) {
    topics.add(p.topic);
    partitions.add(std::to_string(p.partition));
    if (p.read_to) times.add(micros(*p.read_to));
    else times.add_null();
  }
  common::begin_subtransaction(tx);
  run(tx, R"(
select inbox.report($1, $2::text[], $3::integer[], array(
  select timestamptz 'epoch' operator(pg_catalog.+)
           (interval '1 microsecond' operator(pg_catalog.*) t.at)
  from pg_catalog.unnest($4::double precision[]) with ordinality t(at, n) order by t.n)))",
      consumer, topics.text(), partitions.text(), times.text());
}

std::int64_t prune(pqxx::dbtransaction& tx, const std::string& consumer, int rows_max) {
  common::begin_subtransaction(tx);
  return run(tx, "select inbox.prune($1, $2::integer)", consumer, std::to_string(rows_max))[0][0]
      .as<std::int64_t>();
}

}  // namespace inbox
}  // namespace v1
}  // namespace outbox
