// SPDX-License-Identifier: Apache-2.0
#include "client/consumer/batch_processor.h"

#include <set>
#include <tuple>

#include "client/consumer/parked_messages.h"
#include "client/consumer/sanitize_utf8.h"
#include "common/check.h"
#include "common/pqxx_statement.h"
#include "outbox/inbox.h"

namespace outbox::consumer {

using inbox::Accepted;

constexpr const char* blocked_sql = R"(
select b.waits
from pg_catalog.unnest(inbox.blocked($1, $2::text[], $3::bytea[])) with ordinality b(waits, n)
order by b.n)";

void BatchProcessor::begin(Batch batch) {
  CHECK(done());
  batch_ = std::move(batch);
  if (!batch_.empty()) remaining_.push_back({0, batch_.records.size()});
}

// Runs the next range. A failure that is a message's fault splits the range, and is not reported;
// after any other failure the range stays the next one.
std::optional<Failure> BatchProcessor::step(pqxx::connection& connection) {
  Range range = std::move(remaining_.back());
  remaining_.pop_back();
  try {
    transact(connection, range);
    return std::nullopt;
  } catch (...) {
    Failure failure = classify(std::current_exception());
    const bool parks =
        range.refused || (range.last - range.first == 1 && !batch_.faults[range.first].empty());
    if (failure.fault == Fault::message && !parks) {
      split(std::move(range), failure);
      return std::nullopt;
    }
    // When a message is parked, the only data that the database can reject are the reason and the
    // header names, in characters that its encoding lacks: repeat once in ASCII.
    const bool try_ascii = failure.fault == Fault::message && !std::exchange(range.in_ascii, true);
    if (failure.fault == Fault::message) failure.fault = Fault::database;
    if (!parks && split_after(range, failure)) {
      split(std::move(range), failure);
      return failure;
    }
    remaining_.push_back(std::move(range));
    return try_ascii ? std::nullopt : std::optional(failure);
  }
}

// Whether the range is to be split after a failure that is due to its duration, or may be. A
// message by itself is given several attempts: the server may be busy.
bool BatchProcessor::split_after(Range& range, const Failure& failure) const {
  const bool timed_out = failure.fault == Fault::timeout;
  if (phase_ != Phase::handling || (!timed_out && failure.fault != Fault::connection)) return false;
  ++range.failures;
  const bool alone = range.last - range.first == 1;
  return range.failures >= (timed_out ? (alone ? 3 : 1) : (alone ? 5 : 2));
}

// Halves the range, or notes why its only message is to be parked.
void BatchProcessor::split(Range range, const Failure& failure) {
  const std::size_t middle = range.first + (range.last - range.first) / 2;
  if (middle != range.first) {
    remaining_.push_back({middle, range.last});
    remaining_.push_back({range.first, middle});
    return;
  }
  std::string why = sanitize_utf8(failure.what);
  // A failure of accept() is the key's: the database cannot store it, for example because of its
  // encoding. The message is then parked as malformed, without its key.
  if (phase_ == Phase::accepting) batch_.faults[range.first] = std::move(why);
  else range.refused = std::move(why);
  remaining_.push_back(std::move(range));
}

// Returns, for each message of the range, whether a parked message of its key precedes it. A
// separate statement after accept(): only its snapshot shows the messages that a concurrent
// consumer parked, because accept() waits for that consumer's commit.
std::vector<bool> BatchProcessor::blocked_keys(pqxx::dbtransaction& tx, const Range& range) {
  std::vector<bool> blocked(range.last - range.first, false);
  if (options_.order == ConsumerOptions::Order::none || !any_parked(tx, options_.consumer)) {
    return blocked;
  }
  common::ArrayText topics;
  common::ArrayText keys;
  for (std::size_t i = range.first; i < range.last; ++i) {
    topics.add(batch_.records[i].topic);
    keys.add_bytes(batch_.records[i].key);
  }
  const auto rows = common::run(tx, blocked_sql, options_.consumer, topics.text(), keys.text());
  CHECK(static_cast<std::size_t>(rows.size()) == blocked.size());
  std::size_t n = 0;
  for (const auto& row : rows) blocked[n++] = row[0].as<bool>();
  return blocked;
}

// One transaction for the range. Throws if it fails; nothing of it remains then.
void BatchProcessor::transact(pqxx::connection& connection, const Range& range) {
  phase_ = Phase::accepting;
  pqxx::work tx(connection);
  Counts counts;
  const std::vector<std::size_t> new_messages = accept(tx, range, counts);
  phase_ = Phase::handling;
  hand_over(tx, range, new_messages);
  // After a failed statement, COMMIT rolls back and reports success. If the handler caught the
  // error of such a statement, this one fails as well.
  if (!new_messages.empty()) tx.exec("select");
  tx.commit();
  stats_.new_messages += static_cast<std::int64_t>(new_messages.size());
  stats_.duplicates += counts.duplicates;
  stats_.expired += counts.expired;
  stats_.parked += counts.parked;
  ++stats_.batches;
}

// Accepts the messages of the range, and parks those that the handler must not see. Returns the
// indexes of the others.
std::vector<std::size_t> BatchProcessor::accept(pqxx::dbtransaction& tx, const Range& range,
                                                Counts& counts) {
  std::vector<inbox::Arrival> arrivals;
  arrivals.reserve(range.last - range.first);
  for (std::size_t i = range.first; i < range.last; ++i) {
    if (batch_.faults[i].empty()) {
      const Record& r = batch_.records[i];
      const std::string_view topic = options_.across_topics ? inbox::any_topic : r.topic;
      arrivals.push_back({topic, r.dedup_key, r.sent_at});
    }
  }
  const auto answers = inbox::accept(tx, options_.consumer, arrivals);
  const std::vector<bool> blocked = blocked_keys(tx, range);
  const bool by_key = options_.order == ConsumerOptions::Order::key;

  // A message parked here blocks later messages of its key within this transaction as well.
  std::set<std::pair<std::string_view, std::string_view>> blocked_now;
  std::vector<std::size_t> new_messages;
  auto answer = answers.begin();
  for (std::size_t i = range.first; i < range.last; ++i) {
    const Record& record = batch_.records[i];
    const std::pair key(record.topic, record.key.value_or(std::string_view()));
    const auto park_it = [&](const char* error_class, const std::string& text) {
      const Charset charset = range.in_ascii ? Charset::ascii : Charset::all;
      if (!park(tx, options_.consumer, record, error_class, text, charset)) return;
      ++counts.parked;
      if (by_key && record.key) blocked_now.insert(key);
    };
    if (!batch_.faults[i].empty()) {
      park_it("malformed", batch_.faults[i]);
      continue;
    }
    switch (*answer++) {
      case Accepted::duplicate: ++counts.duplicates; break;
      case Accepted::expired:
        ++counts.expired;
        park_it("expired", "older than the deduplication period: unknown whether it was processed");
        break;
      case Accepted::new_message:
        if (by_key && record.key && (blocked[i - range.first] || blocked_now.contains(key))) {
          park_it("key_blocked", "an earlier message of its key is parked");
        } else if (range.refused) {
          park_it("handler", *range.refused);
        } else {
          new_messages.push_back(i);
        }
    }
  }
  return new_messages;
}

// Calls the handler with the new messages, without copies if they are the whole range.
void BatchProcessor::hand_over(pqxx::dbtransaction& tx, const Range& range,
                               const std::vector<std::size_t>& new_messages) {
  if (new_messages.empty()) return;
  const std::span all(batch_.records);
  if (new_messages.size() == range.last - range.first) {
    handler_(tx, all.subspan(range.first, new_messages.size()));
    return;
  }
  std::vector<Record> records;
  records.reserve(new_messages.size());
  for (const std::size_t i : new_messages) records.push_back(all[i]);
  handler_(tx, records);
}

}  // namespace outbox::consumer
