// SPDX-License-Identifier: Apache-2.0
#include "outbox/inbox.h"

#include <pqxx/pqxx>
#include <stdexcept>

#include "common/pqxx_statement.h"
#include "common/names.h"

namespace outbox {
inline namespace v1 {
namespace inbox {
namespace {

using common::run;
using TimePoint = std::chrono::system_clock::time_point;

// What libpqxx would cut off at a zero byte is another key, and its message would be lost as a duplicate.
void check(std::string_view dedup_key) {
  if (!dedup_key.empty() && dedup_key.size() <= common::dedup_key_bytes_max && !common::has_zero_byte(dedup_key)) return;
  throw std::invalid_argument("a deduplication key has " + std::to_string(dedup_key.size()) +
                              " bytes, or a zero byte. HINT: it is the header dedup-key of the Kafka record, text of 1 to 1,024 bytes; park the "
                              "message if there is none");
}

std::string micros(TimePoint t) {
  using std::chrono::microseconds;
  return std::to_string(std::chrono::floor<microseconds>(t.time_since_epoch()).count());
}

std::string interval(std::chrono::seconds s) { return std::to_string(s.count()) + " seconds"; }

Accepted verdict_of(std::string_view word) {
  if (word == "new") return Accepted::new_message;
  if (word == "duplicate") return Accepted::duplicate;
  if (word == "expired") return Accepted::expired;
  throw std::logic_error("inbox.accept answered \"" + std::string(word) + "\". HINT: the schema is newer than this library; update it");
}

}  // namespace

void register_consumer(pqxx::dbtransaction& tx, const std::string& consumer, std::chrono::seconds keep, std::chrono::seconds span) {
  common::begin_subtransaction(tx);
  run(tx, "select inbox.register($1, $2::interval, $3::integer)", consumer, interval(keep), std::to_string(span.count()));
}

Accepted accept(pqxx::dbtransaction& tx, const std::string& consumer, std::string_view dedup_key, TimePoint sent_at) {
  check(dedup_key);
  common::begin_subtransaction(tx);
  const auto rows = run(tx, "select inbox.accept($1, $2, timestamptz 'epoch' + $3::bigint * interval '1 microsecond')", consumer,
                        std::string(dedup_key), micros(sent_at));
  return verdict_of(rows[0][0].c_str());
}

std::vector<Accepted> accept(pqxx::dbtransaction& tx, const std::string& consumer, std::span<const Arrival> arrivals) {
  common::ArrayText keys;
  common::ArrayText times;
  for (const Arrival& a : arrivals) {
    check(a.dedup_key);
    keys.add(a.dedup_key);
    times.add(micros(a.sent_at));
  }
  common::begin_subtransaction(tx);
  const auto rows = run(tx, R"(
select a.verdict from pg_catalog.unnest(inbox.accept_all($1, $2::text[], array(
  select timestamptz 'epoch' + t.at * interval '1 microsecond' from pg_catalog.unnest($3::bigint[]) with ordinality t(at, n) order by t.n)))
  with ordinality a(verdict, n)
order by a.n)", consumer, keys.text(), times.text());
  std::vector<Accepted> verdicts;
  verdicts.reserve(arrivals.size());
  for (const auto& row : rows) verdicts.push_back(verdict_of(row[0].c_str()));
  if (verdicts.size() != arrivals.size()) throw std::logic_error("inbox.accept_all gave another number of answers than it was asked for");
  return verdicts;
}

std::int64_t prune(pqxx::dbtransaction& tx, const std::string& consumer, int rows_max) {
  common::begin_subtransaction(tx);
  return run(tx, "select inbox.prune($1, $2::integer)", consumer, std::to_string(rows_max))[0][0].as<std::int64_t>();
}

}  // namespace inbox
}  // namespace v1
}  // namespace outbox
