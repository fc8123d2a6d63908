// SPDX-License-Identifier: Apache-2.0
#include "tests/support/checker.h"

#include <map>
#include <set>

#include "common/hex.h"

namespace relay::test {

std::ostream& operator<<(std::ostream& out, const CheckerReport& j) {
  out << "committed " << j.committed << ", parked " << j.parked << ", arrived " << j.arrived
      << ", lost " << j.lost << ", ghosts " << j.ghosts << ", repeated " << j.repeated
      << ", reordered " << j.reordered << ", parked and arrived " << j.both;
  for (const auto& partition : j.unread) out << ", unread " << partition;
  return out;
}

namespace {

// One row a message: id, and topic, key and payload as they must be sent; whether it is parked.
constexpr const char* truth_sql = R"(
  select coalesce(m.dedup_key, m.id::text), coalesce(p.sent_topic, m.topic),
         coalesce(convert_from(case when p.seq is null then m.key
                                    else p.sent_key end, 'UTF8'), ''),
         coalesce(encode(case when p.seq is null then m.payload
                              else p.sent_payload end, 'hex'), ''),
         p.seq is not null and (p.released_in is null or p.resolution = 'discard')
  from outbox.message m left join lateral (
    select k.seq, k.released_in, k.resolution,
           coalesce(k.edited_topic, k.topic) as sent_topic,
           case when k.resolution = 'edit' then k.edited_key else k.key end as sent_key,
           case when k.resolution = 'edit' then k.edited_payload
                else k.payload end as sent_payload
    from outbox.parked k where k.seq = m.seq
    order by k.parked_for desc limit 1) p on true)";

}  // namespace

CheckerReport check_delivery(TestOutbox& db, const std::vector<std::string>& topics,
                             Isolation isolation, const std::vector<TestOutbox*>& neighbours) {
  struct Truth {
    std::string topic, key, payload;
    bool parked;
    int copies = 0;
  };
  std::map<std::string, Truth> truth;
  CheckerReport j;
  for (const auto& row : db.sql(truth_sql)) {
    truth[row[0].as<std::string>()] = {row[1].as<std::string>(), row[2].as<std::string>(),
                                       row[3].as<std::string>(), row[4].as<bool>()};
  }
  j.committed = static_cast<std::int64_t>(truth.size());
  std::set<std::string> foreign;
  for (TestOutbox* const neighbour : neighbours) {
    for (const auto& row :
         neighbour->sql("select coalesce(m.dedup_key, m.id::text) from outbox.message m"))
      foreign.insert(row[0].as<std::string>());
  }
  const KafkaLog log = read_log(db.kafka().brokers(), topics, isolation);
  j.unread = log.unread;
  std::map<std::string, std::int64_t> newest;  // by topic, partition and key
  for (const KafkaRecord& r : log.records) {
    const auto found = truth.find(r.header("dedup-key").value_or(""));
    if (found == truth.end() && foreign.contains(r.header("dedup-key").value_or(""))) continue;
    if (found == truth.end() || found->second.topic != r.topic ||
        found->second.key != r.key.value_or("") ||
        found->second.payload != outbox::common::hex(r.payload.value_or(""))) {
      ++j.ghosts;
      continue;
    }
    if (++found->second.copies > 1) {
      ++j.repeated;
      continue;
    }
    ++j.arrived;
    const auto blank = r.payload ? r.payload->find(' ') : std::string::npos;
    if (!r.key || blank == std::string::npos) continue;
    const auto n = std::stoll(r.payload->substr(blank + 1));
    auto& before = newest[r.topic + "/" + *r.key];
    if (n <= before) ++j.reordered;
    before = std::max<std::int64_t>(before, n);
  }
  for (const auto& [id, t] : truth) {
    if (t.parked) ++j.parked;
    if (t.copies == 0 && !t.parked) ++j.lost;
    if (t.copies > 0 && t.parked) ++j.both;
  }
  return j;
}

void create_counters(TestOutbox& db) {
  db.sql("create table counter (key text primary key, n bigint not null)");
}

void write(TestOutbox& db, const std::string& topic, int transactions, int keys) {
  write(db.dsn(), topic, transactions, keys);
}

void write(const std::string& dsn, const std::string& topic, int transactions, int keys) {
  pqxx::connection connection(dsn);
  for (int i = 0; i < transactions; ++i) {
    pqxx::work tx(connection);
    const std::string key = "k" + std::to_string(i % keys);
    for (int m = 0; m <= i % 5; ++m) {
      tx.exec_params(
          "with c as (insert into counter values ($2, 1) on conflict (key) do update set n = "
          "counter.n + 1 returning n) "
          "insert into outbox.message (topic, key, payload) select $1, convert_to($2, 'UTF8'), "
          "convert_to($2 || ' ' || n, 'UTF8') from c",
          topic, key);
    }
    tx.commit();
  }
}

std::int64_t delivered(TestOutbox& db) {
  pqxx::connection connection(db.dsn());
  return delivered(connection);
}

std::int64_t delivered(pqxx::connection& connection) {
  pqxx::nontransaction tx(connection);
  return tx
      .exec(
          "select coalesce(sum(b.messages), 0) from outbox.batch b where b.delivered_at is not "
          "null")[0][0]
      .as<std::int64_t>();
}

void until_delivered(TestOutbox& db, std::int64_t more, Millis within) {
  const auto before = delivered(db);
  eventually(
      std::to_string(more) + " messages more are delivered",
      [&] { return delivered(db) >= before + more; }, within);
}

}  // namespace relay::test
