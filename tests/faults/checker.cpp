// SPDX-License-Identifier: Apache-2.0
#include "tests/faults/checker.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "client/effects/digest.h"
#include "common/hex.h"

namespace relay::faults {
namespace {

using Json = nlohmann::json;
using test::KafkaRecord;

constexpr Millis reads_within{30'000};

std::string digest_of(const std::optional<std::string>& payload) {
  return payload ? outbox::common::hex(outbox::effects::sha256(*payload)) : "null";
}

// The record's headers without the deduplication key, as outbox.message has them.
Json headers_of(const KafkaRecord& r) {
  Json out = Json::object();
  for (const auto& [name, value] : r.headers) {
    if (name != "dedup-key") out[name] = value;
  }
  return out;
}

}  // namespace

Checker::Checker(test::TestOutbox& db, std::vector<std::string> topics, Mode mode)
    : db_(&db), topics_(std::move(topics)), mode_(mode) {}

void Checker::example(const std::string& what) {
  examples_.emplace(what.substr(0, what.find(':')), what);
}

std::string Checker::take_examples() {
  std::string out;
  for (const auto& [kind, text] : std::exchange(examples_, {}))
    out += (out.empty() ? "" : "; ") + text;
  return out;
}

// The messages whose transaction has committed by now.
void Checker::load_truth() {
  for (const auto& row :
       db_->sql("select s.id, s.topic, s.key, s.n, coalesce(s.payload_sha256, 'null'), "
                "coalesce(s.headers, '{}'), "
                "exists (select from app.poison p where p.id = s.id) from app.said s")) {
    Message& m = messages_[row[0].c_str()];
    if (!m.topic.empty()) continue;
    m.topic = row[1].c_str();
    if (!row[2].is_null()) m.key = row[2].c_str();
    m.n = row[3].as<std::int64_t>();
    m.payload_sha256 = row[4].c_str();
    m.headers = row[5].c_str();
    m.poison = row[6].as<bool>();
  }
  for (auto& [id, m] : messages_) m.parked = false;
  for (const auto& row : db_->sql("select p.id, p.error_class = 'key_blocked' from outbox.parked p "
                                  "where p.released_in is null")) {
    const auto found = messages_.find(row[0].c_str());
    if (found == messages_.end()) continue;
    found->second.parked = true;
    found->second.waits = row[1].as<bool>();
  }
}

void Checker::settle(Counts& counts, Millis within) {
  const auto began = Clock::now();
  const std::string undelivered =
      "select (select count(*) from outbox.batch b where b.delivered_at is null) + case when "
      "n.number is null then (select count(*) from "
      "outbox.message) else (select count(*) from outbox.message m where not "
      "outbox.batch_covers(n, m.txid, m.seq)) end from (select 1) one "
      "left join (select x.* from outbox.batch x order by x.number desc limit 1) n on true";
  pqxx::connection connection(db_->dsn());
  try {
    test::eventually(
        "all is delivered",
        [&] {
          pqxx::nontransaction tx(connection);
          counts.stuck = tx.exec(undelivered)[0][0].as<std::int64_t>();
          return counts.stuck == 0;
        },
        within);
  } catch (const std::runtime_error&) {
    example("stuck: " + std::to_string(counts.stuck) + " messages and batches after " +
            std::to_string(within.count()) + " ms");
  }
  settled_in_ = std::chrono::duration_cast<Millis>(Clock::now() - began);
}

void Checker::take(const KafkaRecord& r, Counts& counts) {
  const std::string id = r.header("dedup-key").value_or("none");
  const std::string where = id + " in " + r.topic + "[" + std::to_string(r.partition) + "] at " +
                            std::to_string(r.offset);
  const auto found = messages_.find(id);
  if (found == messages_.end()) {
    if (forgotten_.contains(id)) return;
    ++counts.ghosts;
    example("ghost: never committed: " + where);
    return;
  }
  Message& m = found->second;
  if (m.topic != r.topic || m.key != r.key || m.payload_sha256 != digest_of(r.payload) ||
      Json::parse(m.headers) != headers_of(r)) {
    ++counts.ghosts;
    example("ghost: other content: " + where);
    return;
  }
  fresh_.emplace_back(id, r.topic, r.partition, r.offset);
  const std::string key = r.topic + "/" + m.key.value_or("");
  const bool moved = m.key && partition_of_.emplace(key, r.partition).first->second != r.partition;
  if (++m.copies > 1) {
    ++counts.repeated;
    example("repeated: " + where);
    repeated_.push_back(id);
  } else {
    ++counts.arrived;
    auto& newest = newest_of_[key];
    if (m.key && (moved || m.n <= newest)) {
      ++counts.reordered;
      example("reordered: number " + std::to_string(m.n) + " behind " + std::to_string(newest) +
              ": " + where);
    }
    newest = std::max(newest, m.n);
  }
}

void Checker::read_topics(Counts& counts) {
  const auto log = test::read_on(db_->kafka().brokers(), topics_, test::Isolation::read_committed,
                                 positions_, reads_within);
  if (!log.unread.empty())
    throw std::runtime_error("the log could not be read to its end: " + log.unread.front());
  load_truth();  // what committed meanwhile may be in the log
  records_ += log.records.size();
  for (const KafkaRecord& r : log.records) take(r, counts);
}

// Only messages that were in doubt can be repeated.
void Checker::look_at_repeats(Counts& counts, const Allowed& allowed) {
  std::set<std::int64_t> repeating;
  for (const std::string& id : std::exchange(repeated_, {})) repeating.insert(batch_of_[id]);
  if (static_cast<int>(repeating.size()) <= allowed.doubtful_batches) return;
  counts.journal += static_cast<std::int64_t>(repeating.size());
  example("journal: messages of " + std::to_string(repeating.size()) + " batches are repeated");
}

void Checker::look_for_lost(const std::set<std::string>& due, Counts& counts,
                            const Allowed& allowed) {
  for (const std::string& id : due) {
    Message& m = messages_.at(id);
    if (std::exchange(m.checked, true)) continue;
    ++counts.committed;
    if (m.copies == 0 && !m.parked) {
      ++counts.lost;
      example("lost: " + id + " to " + m.topic);
    }
  }
  look_at_parked(counts, allowed);
}

// A message that cannot be sent is parked, and so are those that wait for it; any other only if the
// scenario allows it.
void Checker::look_at_parked(Counts& counts, const Allowed& allowed) {
  std::map<std::string, std::int64_t> blocked_from;  // number of the first message that is parked
                                                     // for a reason of its own, by topic and key
  const auto key_of = [](const Message& m) { return m.topic + "/" + m.key.value_or(""); };
  for (const auto& [id, m] : messages_) {
    if (!m.parked || m.waits || !m.key) continue;
    auto& first = blocked_from.emplace(key_of(m), m.n).first->second;
    first = std::min(first, m.n);
  }
  std::int64_t without_cause = 0;
  for (const auto& [id, m] : messages_) {
    counts.parked += m.parked;
    if (m.parked && m.copies > 0) {
      ++counts.ghosts;
      example("ghost: arrived and parked: " + id);
    }
    const auto first = blocked_from.find(key_of(m));
    const bool expected =
        m.waits ? m.key && first != blocked_from.end() && first->second < m.n : m.poison;
    without_cause += m.parked && !expected;
    if (parked_hold_back_ && !m.parked && m.copies > 0 && m.key && first != blocked_from.end() &&
        first->second < m.n) {
      ++counts.reordered;
      example("reordered: it overtook a parked message of its key: " + id);
    }
    if (m.poison && m.copies > 0) {
      ++counts.ghosts;
      example("ghost: arrived, and cannot be sent: " + id);
    }
  }
  if (without_cause > allowed.parked) {
    counts.stuck += without_cause - allowed.parked;
    example("stuck: parked without cause: " + std::to_string(without_cause));
  }
}

// A server that loses what it acknowledged is outside of this test: the round is unknown.
void Checker::compare_answers(const std::vector<CommitAnswer>& answers, Counts& counts,
                              const Allowed& allowed) {
  std::set<std::int64_t> there;
  for (const auto& row : db_->sql("select t.id from app.tx t"))
    there.insert(row[0].as<std::int64_t>());
  for (const CommitAnswer& t : answers) {
    if (t.what == CommitAnswer::What::unknown) ++counts.unknown_resolved;
    if (t.what == CommitAnswer::What::failed && there.contains(t.tx))
      throw std::runtime_error("a transaction that failed is there");
    if (t.what == CommitAnswer::What::committed && !t.asynchronous && !allowed.database_goes_back &&
        !there.contains(t.tx)) {
      throw std::runtime_error("PostgreSQL forgot a transaction that it had committed");
    }
  }
}

// Each message is in exactly one batch, the batches count what they have, and the offsets that they
// recorded hold it.
void Checker::look_at_journal(Counts& counts, const Allowed& allowed) {
  std::map<std::int64_t, Batch> batches;
  std::int64_t newest_delivered = 0;
  for (const auto& row : db_->sql("select b.number, b.epoch, b.messages, coalesce(b.offsets, "
                                  "'{}'), b.kind, b.delivered_at is not null "
                                  "from outbox.batch b order by b.number")) {
    const auto number = row[0].as<std::int64_t>();
    const Batch b{row[1].as<std::int64_t>(), row[2].as<std::int64_t>(), Json::parse(row[3].c_str()),
                  std::string(row[4].c_str()) == "stream"};
    if (!batches.empty() && b.epoch < batches.rbegin()->second.epoch &&
        !allowed.database_goes_back) {
      ++counts.fencing;
      example("fencing: batch " + std::to_string(number) +
              " has an older epoch than the one before");
    }
    batches.emplace(number, b);
    if (row[5].as<bool>()) newest_delivered = number;
  }
  note_batches();
  for (const auto& [number, b] : batches) {
    if (!b.stream || has_[number] == b.messages) continue;
    ++counts.journal;
    example("journal: batch " + std::to_string(number) + " has " + std::to_string(has_[number]) +
            " messages and counts " + std::to_string(b.messages));
  }
  for (const auto& [id, topic, partition, offset] : fresh_) {
    const auto b = batches.find(batch_of_[id]);
    if (b == batches.end() || b->second.offsets.empty())
      continue;  // recovery does not know the offsets
    const Json range = b->second.offsets.value(topic, Json::object())
                           .value(std::to_string(partition), Json::array({0, -1}));
    const bool inside =
        range[0].get<std::int64_t>() <= offset && offset <= range[1].get<std::int64_t>();
    if (inside || mode_ == Mode::at_least_once)
      continue;  // there, the first copy may be an earlier attempt's
    ++counts.journal;
    example("journal: " + id + " is at " + std::to_string(offset) + ", outside of what batch " +
            std::to_string(b->first) + " says");
  }
  fresh_.clear();
  look_at_repeats(counts, allowed);
  look_at_progress(newest_delivered, counts, allowed);
}

// Only those are asked for that can be new since the last call.
void Checker::note_batches() {
  const std::string now = db_->value("select clock_timestamp()");
  const std::string since = assigned_until_.empty()
                                ? "'-infinity'"
                                : "'" + assigned_until_ + "'::timestamptz - interval '20 seconds'";
  // A transaction's messages are in batches of ascending numbers, by seq: most transactions are in
  // one, which is found with two questions. No join: before the table has statistics, the planner
  // takes a loop that asks them again for each message.
  const std::string query =
      "with t as materialized (select m.txid, array_agg(m.id order by m.seq) as ids, "
      "array_agg(m.seq order by m.seq) as seqs, "
      "outbox.batch_of(m.txid, min(m.seq)) as low, outbox.batch_of(m.txid, max(m.seq)) as high "
      "from outbox.message m where m.created_at > " +
      since +
      " group by m.txid) "
      "select u.id, case when t.low = t.high then t.low else outbox.batch_of(t.txid, u.seq) end "
      "from t cross join lateral unnest(t.ids, t.seqs) as u (id, seq)";
  for (const auto& row : db_->sql(query)) {
    if (row[1].is_null()) continue;
    const auto number = row[1].as<std::int64_t>();
    const auto [known, is_new] = batch_of_.emplace(row[0].c_str(), number);
    if (!is_new) --has_[std::exchange(known->second, number)];
    ++has_[number];
  }
  assigned_until_ = now;
}

void Checker::look_at_progress(std::int64_t newest_delivered, Counts& counts,
                               const Allowed& allowed) {
  const auto log =
      test::read_on(db_->kafka().brokers(), {"outbox-progress." + db_->name()},
                    test::Isolation::read_committed, progress_positions_, reads_within);
  if (!log.unread.empty())
    throw std::runtime_error("the progress topic could not be read to its end: " +
                             log.unread.front());
  for (const KafkaRecord& r : log.records) {
    const Json j = Json::parse(r.payload.value_or("{}"));
    const std::int64_t epoch = j.value("epoch", std::int64_t{0});
    if (epoch < progress_epoch_ && mode_ == Mode::exactly_once && !allowed.database_goes_back) {
      ++counts.fencing;
      example("fencing: a progress record of epoch " + std::to_string(epoch) + " after " +
              std::to_string(progress_epoch_));
    }
    progress_epoch_ = epoch;
    progress_token_ = j.value("token", "");
  }
  if (mode_ == Mode::at_least_once || allowed.database_goes_back || newest_delivered == 0) return;
  const std::string number =
      progress_token_.empty() ? ""
                              : db_->value("select b.number from outbox.batch b where b.token = '" +
                                           progress_token_ + "'");
  if (!number.empty() && std::stoll(number) >= newest_delivered) return;
  ++counts.journal;
  example("journal: batch " + std::to_string(newest_delivered) +
          " counts as delivered, and Kafka's newest progress record is of batch " + number);
}

Counts Checker::check(const std::vector<CommitAnswer>& answers, const Allowed& allowed,
                      Millis settles_within) {
  Counts counts;
  load_truth();
  std::set<std::string>
      due;  // committed before we waited, so that none of it may be missing afterwards
  for (const auto& [id, m] : messages_) {
    if (!m.checked) due.insert(id);
  }
  settle(counts, settles_within);
  read_topics(counts);
  look_for_lost(due, counts, allowed);
  compare_answers(answers, counts, allowed);
  look_at_journal(counts, allowed);
  return counts;
}

void Checker::check_whole_log(Counts& counts) {
  const auto log = test::read_log(db_->kafka().brokers(), topics_, test::Isolation::read_committed,
                                  reads_within);
  if (!log.unread.empty())
    throw std::runtime_error("the log could not be read to its end: " + log.unread.front());
  if (log.records.size() == records_) return;
  ++counts.lost;
  example("lost: the whole log has " + std::to_string(log.records.size()) + " records, " +
          std::to_string(records_) + " were read before");
}

}  // namespace relay::faults
