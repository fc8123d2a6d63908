// SPDX-License-Identifier: Apache-2.0
#include "client/consumer/batch_processor.h"

#include <set>
#include <tuple>

#include "client/consumer/parked_messages.h"
#include "client/consumer/sanitize_utf8.h"
#include "common/pqxx_statement.h"
#include "outbox/inbox.h"
#include "common/check.h"

namespace outbox::consumer {

using inbox::Accepted;

void BatchProcessor::begin(Batch batch) {
  CHECK(done());
  batch_ = std::move(batch);
  if (!batch_.empty()) remaining_.push_back({0, batch_.records.size()});
}

std::optional<Failure> BatchProcessor::step(pqxx::connection& connection) {
  Range range = std::move(remaining_.back());
  remaining_.pop_back();
  try {
    transact(connection, range);
    return std::nullopt;
  } catch (...) {
    Failure failure = classify(std::current_exception());
    const bool parks = range.refused || (range.last - range.first == 1 && !batch_.faults[range.first].empty());
    if (failure.fault == Fault::message && !parks) {
      split(std::move(range), failure);
      return std::nullopt;
    }
    // To park a message writes nothing that could be the message's fault but a reason, or a name, in charset that the database lacks.
    const bool try_ascii = failure.fault == Fault::message && !std::exchange(range.in_ascii, true);
    if (failure.fault == Fault::message) failure.fault = Fault::database;
    remaining_.push_back(std::move(range));
    return try_ascii ? std::nullopt : std::optional(failure);
  }
}

void BatchProcessor::split(Range range, const Failure& failure) {
  const std::size_t middle = range.first + (range.last - range.first) / 2;
  if (middle != range.first) {
    remaining_.push_back({middle, range.last});
    remaining_.push_back({range.first, middle});
    return;
  }
  std::string why = sanitize_utf8(failure.what);
  // A key that the database cannot take, say for its encoding: it cannot be in the inbox at all.
  if (phase_ == Phase::accepting) batch_.faults[range.first] = std::move(why);
  else range.refused = std::move(why);
  remaining_.push_back(std::move(range));
}

// Whether a parked message stands before each of them. Asked for after the messages are accepted, in a statement of its own: only
// then has another consumer that parked one of them committed, and can be seen.
std::vector<bool> BatchProcessor::blocked_keys(pqxx::dbtransaction& tx, const Range& range) {
  std::vector<bool> blocked(range.last - range.first, false);
  if (options_.order == ConsumerOptions::Order::none || !any_parked(tx, options_.consumer)) return blocked;
  common::ArrayText topics;
  common::ArrayText keys;
  for (std::size_t i = range.first; i < range.last; ++i) {
    topics.add(batch_.records[i].topic);
    keys.add_bytes(batch_.records[i].key);
  }
  const auto rows = common::run(
      tx, "select b.waits from pg_catalog.unnest(inbox.blocked($1, $2::text[], $3::bytea[])) with ordinality b(waits, n) order by b.n",
      options_.consumer, topics.text(), keys.text());
  CHECK(static_cast<std::size_t>(rows.size()) == blocked.size());
  std::size_t n = 0;
  for (const auto& row : rows) blocked[n++] = row[0].as<bool>();
  return blocked;
}

void BatchProcessor::transact(pqxx::connection& connection, const Range& range) {
  phase_ = Phase::accepting;
  pqxx::work tx(connection);
  std::vector<inbox::Arrival> arrivals;
  arrivals.reserve(range.last - range.first);
  for (std::size_t i = range.first; i < range.last; ++i) {
    if (batch_.faults[i].empty()) arrivals.push_back({batch_.records[i].dedup_key, batch_.records[i].sent_at});
  }
  const auto verdicts = inbox::accept(tx, options_.consumer, arrivals);
  const std::vector<bool> blocked = blocked_keys(tx, range);
  const bool by_key = options_.order == ConsumerOptions::Order::key;

  // What is parked here makes later ones of its key wait as well, in this transaction.
  std::set<std::pair<std::string_view, std::string_view>> blocked_now;
  std::vector<std::size_t> fresh;
  Counts counts;
  auto verdict = verdicts.begin();
  for (std::size_t i = range.first; i < range.last; ++i) {
    const Record& record = batch_.records[i];
    const std::pair key(record.topic, record.key.value_or(std::string_view()));
    const auto park_it = [&](const char* error_class, const std::string& text) {
      if (!park(tx, options_.consumer, record, error_class, text, range.in_ascii ? Charset::ascii : Charset::all)) return;
      ++counts.parked;
      if (by_key && record.key) blocked_now.insert(key);
    };
    if (!batch_.faults[i].empty()) {
      park_it("malformed", batch_.faults[i]);
      continue;
    }
    switch (*verdict++) {
      case Accepted::duplicate: ++counts.duplicates; break;
      case Accepted::expired:
        ++counts.expired;
        park_it("expired", "older than what the consumer remembers: it may have been handled, or not");
        break;
      case Accepted::new_message:
        if (by_key && record.key && (blocked[i - range.first] || blocked_now.contains(key))) {
          park_it("key_blocked", "an earlier message of its key is parked");
        } else if (range.refused) {
          park_it("handler", *range.refused);
        } else {
          fresh.push_back(i);
        }
    }
  }
  phase_ = Phase::handling;
  hand_over(tx, range, fresh);
  // A COMMIT behind a statement that failed rolls back, and reports success. Whether one has, and the handler caught the error, is asked
  // by a statement, which then fails too.
  if (!fresh.empty()) tx.exec("select");
  tx.commit();
  stats_.fresh += static_cast<std::int64_t>(fresh.size());
  stats_.duplicates += counts.duplicates;
  stats_.expired += counts.expired;
  stats_.parked += counts.parked;
  ++stats_.batches;
}

void BatchProcessor::hand_over(pqxx::dbtransaction& tx, const Range& range, const std::vector<std::size_t>& fresh) {
  if (fresh.empty()) return;
  const std::span all(batch_.records);
  if (fresh.size() == range.last - range.first) {
    handler_(tx, all.subspan(range.first, fresh.size()));
    return;
  }
  std::vector<Record> records;
  records.reserve(fresh.size());
  for (const std::size_t i : fresh) records.push_back(all[i]);
  handler_(tx, records);
}

}  // namespace outbox::consumer
