// SPDX-License-Identifier: Apache-2.0
#include "relay/commands/trace_lookup.h"

#include <limits>

#include "relay/base/uuid.h"
#include "relay/commands/command.h"
#include "relay/commands/output.h"
#include "relay/kafka/find_record.h"

namespace relay {
namespace {

using kafka::RecordLookup;
using Verdict = RecordLookup::Verdict;

constexpr Millis search_deadline{30'000};

// $1 id, $2 deduplication key, $3 seq; null selects nothing. An id given together with a key is
// that key: it then selects only messages without a key of their own. Reads only what
// outbox_observer may.
std::string find_sql() {
  return R"(
  with wanted as materialized (
    select m.seq, m.id, m.dedup_key, m.created_at from outbox.message m
    where m.id = $1::uuid and ($2::text is null or m.dedup_key is null)
    union all select m.seq, m.id, m.dedup_key, m.created_at from outbox.message m
    where m.dedup_key = $2::text
    union all select m.seq, m.id, m.dedup_key, m.created_at from outbox.message m
    where m.seq = $3::bigint),
  kept as (
    select distinct p.seq, p.id, p.dedup_key, p.created_at from outbox.parked p
    where (p.id = $1::uuid and ($2::text is null or p.dedup_key is null)
           or p.dedup_key = $2::text or p.seq = $3::bigint)
      and not exists (select from outbox.message m where m.seq = p.seq)),
  found as (
    select w.seq, w.id, s.topic, w.dedup_key, w.created_at, s.state, s.batch,
           null::timestamptz as deliver_at
    from (select m.seq, m.id, m.dedup_key, m.created_at from wanted m
          union all select k.* from kept k) w
    cross join lateral outbox.status_of_seq(w.seq) s
    union all select null, d.id, d.topic, d.dedup_key, d.created_at, 'scheduled', null,
                     d.deliver_at from outbox.scheduled d
    where d.id = $1::uuid and ($2::text is null or d.dedup_key is null) or d.dedup_key = $2::text)
  select f.id::text, f.seq, f.topic, coalesce(f.dedup_key, f.id::text), f.state, )" +
         utc("f.created_at") + ", " + utc("f.deliver_at") +
         R"(, f.deliver_at <= clock_timestamp(), f.batch, b.mode, )" + utc("b.opened_at") + ", " +
         utc("b.delivered_at") + R"(,
         ((extract(epoch from b.opened_at) * 1000000)::bigint / 1000), b.offsets is not null,
         (b.offsets -> f.topic)::text,
         (select l.holder from outbox.lease l
          where l.holder is not null and l.expires_at > clock_timestamp())
  from found f left join outbox.batch b on b.number = f.batch order by f.created_at, f.seq)";
}

std::string parked_sql() {
  return "select p.parked_for, " + utc("p.parked_at") +
         ", p.error_class, p.error_text, p.released_in, p.resolution, p.decided_by, " +
         utc("p.decided_at") +
         ", p.decided_why from outbox.parked p where p.seq = $1 order by p.parked_for";
}

// The range of a batch without offsets: after the records of older batches, before those of newer
// ones.
constexpr const char* neighbours_sql = R"(
  select p.key::integer, max((p.value ->> 1)::bigint) + 1, null::bigint
  from (select b.offsets -> $2::text as partitions from outbox.batch b
        where b.number < $1 order by b.number desc limit 1000) o
  cross join lateral jsonb_each(o.partitions) p group by p.key
  union all
  select p.key::integer, null, min((p.value ->> 0)::bigint) - 1
  from (select b.offsets -> $2::text as partitions from outbox.batch b
        where b.number > $1 order by b.number limit 1000) o
  cross join lateral jsonb_each(o.partitions) p group by p.key)";

Result<std::map<std::int32_t, OffsetRange>> between_neighbours(postgres::PqxxSession& control,
                                                               std::int64_t batch,
                                                               const std::string& topic) {
  auto rows = control.run("looking at the batches before and after", neighbours_sql, batch, topic);
  if (!rows) return rows.error();
  std::map<std::int32_t, OffsetRange> within;
  for (const auto& row : *rows) {
    auto& range = within
                      .try_emplace(row[0].as<std::int32_t>(),
                                   OffsetRange{0, std::numeric_limits<std::int64_t>::max()})
                      .first->second;
    if (!row[1].is_null()) range.first = row[1].as<std::int64_t>();
    if (!row[2].is_null()) range.last = row[2].as<std::int64_t>();
  }
  return within;
}

std::map<std::int32_t, OffsetRange> ranges_of(const pqxx::field& offsets) {
  std::map<std::int32_t, OffsetRange> within;
  if (offsets.is_null()) return within;
  const Json partitions = Json::parse(offsets.c_str()).value_or(Json::object());
  for (const auto& [partition, range] : partitions.members()) {
    within[std::stoi(partition)] = {range.begin()->integer(), range.back().integer()};
  }
  return within;
}

// The offsets in the journal are only a hint: a delivery report can lack the offset, and a topic
// can be created again. A record that is not at its offset is therefore searched for in the whole
// topic.
Result<RecordLookup> read_back(const kafka::Options& options, kafka::RecordQuery query) {
  auto found = kafka::find_record(options, query, Deadline(search_deadline));
  if (!found || found->verdict != Verdict::absent || (!query.exact && query.within.empty()))
    return found;
  query.within.clear();
  query.exact = false;
  return kafka::find_record(options, query, Deadline(search_deadline));
}

// Reads the message back from Kafka and adds the result as j["kafka"]; returns the exit code for
// it.
Result<int> add_kafka(const Config& config, postgres::PqxxSession& control, const pqxx::row& row,
                      Json& j) {
  kafka::RecordQuery query;
  query.topic = row[2].c_str();
  query.dedup_key = row[3].c_str();
  query.timestamp_ms = row[12].as<std::int64_t>();
  query.exact = row[13].as<bool>();
  if (query.exact) {
    query.within = ranges_of(row[14]);
  } else {
    auto within = between_neighbours(control, row[8].as<std::int64_t>(), query.topic);
    if (!within) return within.error();
    query.within = std::move(*within);
  }
  const auto found = read_back(kafka_options(config), query);
  Json& out = j["kafka"];
  if (!found) {
    out = Json::object({{"verdict", "unreachable"}, {"partition", nullptr}, {"offset", nullptr}});
    report(found.error());
    return exit_code(Fault::kafka);
  }
  out = Json::object(
      {{"verdict", to_string(found->verdict)}, {"partition", nullptr}, {"offset", nullptr}});
  if (found->verdict == Verdict::found) {
    out["partition"] = found->partition;
    out["offset"] = found->offset;
  }
  if (found->verdict == Verdict::undecided) return exit_code(Fault::kafka);
  const bool should_be_there = j["state"] == "delivered";
  const bool missing = found->verdict == Verdict::absent || found->verdict == Verdict::no_topic;
  return should_be_there && missing ? exit_code(Fault::absent) : 0;
}

Result<Json> parked_history(postgres::PqxxSession& control, std::int64_t seq) {
  auto rows = control.run("looking for the message among the parked ones", parked_sql(), seq);
  if (!rows) return rows.error();
  Json out = Json::array();
  for (const auto& row : *rows) {
    out.push_back(Json::object({{"parked_for", row[0].as<std::int64_t>()},
                                {"parked_at", row[1].c_str()},
                                {"error_class", row[2].c_str()},
                                {"error_text", row[3].c_str()},
                                {"released_in", integer_or_null(row[4])},
                                {"resolution", text_or_null(row[5])},
                                {"decided_by", text_or_null(row[6])},
                                {"decided_at", text_or_null(row[7])},
                                {"decided_why", text_or_null(row[8])}}));
  }
  return out;
}

Json batch_json(const pqxx::row& row) {
  if (row[8].is_null() || row[9].is_null()) return {};
  return Json::object({{"number", row[8].as<std::int64_t>()},
                       {"mode", row[9].c_str()},
                       {"opened_at", row[10].c_str()},
                       {"delivered_at", text_or_null(row[11])}});
}

}  // namespace

Result<pqxx::result> find_messages(postgres::PqxxSession& control,
                                   const TraceSelection& selection) {
  const auto text = [](const auto& value) { return value ? value->c_str() : nullptr; };
  const bool key_is_id = selection.key && Uuid::parse(*selection.key);
  const auto seq = selection.seq ? std::optional(std::to_string(*selection.seq)) : std::nullopt;
  auto rows = control.run("looking for the message", find_sql(),
                          key_is_id ? text(selection.key) : text(selection.id), text(selection.key),
                          text(seq));
  if (!rows) return for_operator(rows.error(), "outbox_observer");
  return rows;
}

Result<TracedMessage> look_up_message(const Config& config, postgres::PqxxSession& control,
                                      const pqxx::row& row) {
  TracedMessage out;
  out.due = !row[7].is_null() && row[7].as<bool>();
  out.holder = row[15].is_null() ? "" : row[15].c_str();
  Json& j = out.json;
  j["id"] = row[0].c_str();
  j["seq"] = integer_or_null(row[1]);
  j["topic"] = row[2].c_str();
  j["dedup_key"] = row[3].c_str();
  j["state"] = row[4].c_str();
  j["explanation"] = "";
  j["created_at"] = row[5].c_str();
  j["deliver_at"] = text_or_null(row[6]);
  j["batch"] = batch_json(row);
  j["kafka"] = nullptr;
  j["parked"] = Json::array();
  if (!row[1].is_null()) {
    auto parked = parked_history(control, row[1].as<std::int64_t>());
    if (!parked) return parked.error();
    j["parked"] = std::move(*parked);
  }
  if (j["state"] == "delivered" || j["state"] == "in_doubt") {
    const auto code = add_kafka(config, control, row, j);
    if (!code) return code.error();
    out.code = *code;
  }
  return out;
}

}  // namespace relay
