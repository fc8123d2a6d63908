// SPDX-License-Identifier: Apache-2.0
// trace: where one message is. PostgreSQL says what was decided about it; what was delivered is read back from Kafka.
#include <algorithm>
#include <cstdio>
#include <limits>
#include <tuple>

#include "relay/base/escape.h"
#include "relay/base/uuid.h"
#include "relay/commands/commands.h"
#include "relay/commands/context.h"
#include "relay/commands/output.h"
#include "relay/kafka/find_record.h"

namespace outbox {
namespace {

using kafka::RecordFinding;
using Verdict = RecordFinding::Verdict;

constexpr Millis search_deadline{30'000};
constexpr int exit_absent = 1;
constexpr int exit_kafka = 4;

// $1 id, $2 deduplication key, $3 seq; those that are null select nothing. An id that is given with a key is the same key: it
// then names those messages only that have no key of their own. Reads only what outbox_observer may.
std::string find_sql() {
  return R"(
  with wanted as materialized (
    select m.seq, m.id, m.dedup_key, m.created_at from outbox.message m
    where m.id = $1::uuid and ($2::text is null or m.dedup_key is null)
    union all select m.seq, m.id, m.dedup_key, m.created_at from outbox.message m where m.dedup_key = $2::text
    union all select m.seq, m.id, m.dedup_key, m.created_at from outbox.message m where m.seq = $3::bigint),
  kept as (
    select distinct p.seq, p.id, p.dedup_key, p.created_at from outbox.parked p
    where (p.id = $1::uuid and ($2::text is null or p.dedup_key is null) or p.dedup_key = $2::text or p.seq = $3::bigint)
      and not exists (select from outbox.message m where m.seq = p.seq)),
  found as (
    select w.seq, w.id, s.topic, w.dedup_key, w.created_at, s.state, s.batch, null::timestamptz as deliver_at
    from (select m.seq, m.id, m.dedup_key, m.created_at from wanted m union all select k.* from kept k) w
    cross join lateral outbox.status_of_seq(w.seq) s
    union all select null, d.id, d.topic, d.dedup_key, d.created_at, 'scheduled', null, d.deliver_at from outbox.scheduled d
    where d.id = $1::uuid and ($2::text is null or d.dedup_key is null) or d.dedup_key = $2::text)
  select f.id::text, f.seq, f.topic, coalesce(f.dedup_key, f.id::text), f.state, )" + utc("f.created_at") + ", " + utc("f.deliver_at") +
         R"(, f.deliver_at <= clock_timestamp(), f.batch, b.mode, )" + utc("b.opened_at") + ", " + utc("b.delivered_at") + R"(,
         ((extract(epoch from b.opened_at) * 1000000)::bigint / 1000), b.offsets is not null, (b.offsets -> f.topic)::text,
         (select l.holder from outbox.lease l where l.holder is not null and l.expires_at > clock_timestamp())
  from found f left join outbox.batch b on b.number = f.batch order by f.created_at, f.seq)";
}

std::string parked_sql() {
  return "select p.parked_for, " + utc("p.parked_at") + ", p.error_class, p.error_text, p.released_in, p.resolution, p.decided_by, " +
         utc("p.decided_at") + ", p.decided_why from outbox.parked p where p.seq = $1 order by p.parked_for";
}

// Where a batch without offsets can lie in its topic: behind what older batches wrote, before what newer ones did.
constexpr const char* neighbours_sql = R"(
  select p.key::integer, max((p.value ->> 1)::bigint) + 1, null::bigint
  from (select b.offsets -> $2::text as partitions from outbox.batch b where b.number < $1 order by b.number desc limit 1000) o
  cross join lateral jsonb_each(o.partitions) p group by p.key
  union all
  select p.key::integer, null, min((p.value ->> 0)::bigint) - 1
  from (select b.offsets -> $2::text as partitions from outbox.batch b where b.number > $1 order by b.number limit 1000) o
  cross join lateral jsonb_each(o.partitions) p group by p.key)";

Result<std::map<std::int32_t, OffsetRange>> between_neighbours(postgres::PqxxSession& control, std::int64_t batch, const std::string& topic) {
  auto rows = control.run("looking at the batches before and after", neighbours_sql, batch, topic);
  if (!rows) return rows.error();
  std::map<std::int32_t, OffsetRange> within;
  for (const auto& row : *rows) {
    auto& range = within.try_emplace(row[0].as<std::int32_t>(), OffsetRange{0, std::numeric_limits<std::int64_t>::max()}).first->second;
    if (!row[1].is_null()) range.first = row[1].as<std::int64_t>();
    if (!row[2].is_null()) range.last = row[2].as<std::int64_t>();
  }
  return within;
}

std::map<std::int32_t, OffsetRange> ranges_of(const pqxx::field& offsets) {
  std::map<std::int32_t, OffsetRange> within;
  if (offsets.is_null()) return within;
  const Json partitions = Json::parse(offsets.c_str());
  for (const auto& [partition, range] : partitions.items()) {
    within[std::stoi(partition)] = {range[0].get<std::int64_t>(), range[1].get<std::int64_t>()};
  }
  return within;
}

// What the journal says is a hint only: a delivery report can come without an offset, and a topic can be made anew. So what is
// not there is looked for everywhere, before it is called absent.
Result<RecordFinding> read_back(const kafka::Options& options, kafka::RecordQuery query) {
  auto found = kafka::find_record(options, query, Deadline(search_deadline));
  if (!found || found->verdict != Verdict::absent || (!query.exact && query.within.empty())) return found;
  query.within.clear();
  query.exact = false;
  return kafka::find_record(options, query, Deadline(search_deadline));
}

std::string kafka_sentence(const Json& j, bool in_doubt) {
  const std::string verdict = j["kafka"]["verdict"].get<std::string>();
  if (verdict == "found") {
    if (!in_doubt) return "It was read back from Kafka just now.";
    return j["batch"]["mode"] == "exactly-once" ? "Kafka has it: its transaction was committed, and the next relay marks it delivered."
                                                : "Kafka has this message already.";
  }
  if (verdict == "expired") return "It expired from the topic: the topic's retention has removed what was written then.";
  if (verdict == "undecided") return "Whether Kafka has it could not be seen in time: an open transaction hides the end of the topic. Ask again.";
  if (verdict == "no_topic") return "The topic does not exist any more.";
  if (verdict == "unreachable") return "Kafka could not be asked.";
  return in_doubt ? "A read_committed consumer does not see it."
                  : "The topic does not have it, although nothing was removed from its front: it was compacted, or made anew.";
}

std::string parked_sentence(const Json& parked) {
  if (parked.empty()) return "It was released just now.";  // between two looks
  const Json& last = parked.back();
  std::string text = "It could not be sent, and is parked: " + last["error_class"].get<std::string>() + ", " +
                     last["error_text"].get<std::string>() + ". ";
  if (last["resolution"].is_null()) return text + "It waits for a decision.";
  return text + "The decision is to " + last["resolution"].get<std::string>() + " it.";
}

// What the state means, for a person.
std::string explain(const Json& j, const std::string& holder, bool due) {
  const std::string state = j["state"].get<std::string>();
  const std::string nobody = "No relay is running: it goes on when one is started.";
  if (state == "pending") {
    return "It is committed, and no batch has taken it yet. " + (holder.empty() ? nobody : "The relay " + holder + " will read it.");
  }
  if (state == "scheduled") {
    if (!due) return "It is committed, and not to be delivered before " + j["deliver_at"].get<std::string>() + ".";
    return "It is due, and has not been moved into the outbox yet. " + (holder.empty() ? nobody : "The relay " + holder + " will move it.");
  }
  if (state == "sending") return "Its batch is being sent by the relay " + holder + ", and not confirmed yet.";
  if (state == "parked") return parked_sentence(j["parked"]);
  if (state == "discarded") {
    const Json& last = j["parked"].back();
    return "It could not be sent, and " + last["decided_by"].get<std::string>() + " decided to discard it" +
           (last["decided_why"].is_null() ? "." : ": " + last["decided_why"].get<std::string>() + ".");
  }
  if (state == "delivered") return kafka_sentence(j, false);
  const bool exactly_once = j["batch"]["mode"] == "exactly-once";
  return std::string("Its batch is in doubt: the relay that sent it ended before it knew whether Kafka has it. The next relay ") +
         (exactly_once ? "finds out by its progress record, and sends the batch again only if Kafka has not got it. "
                       : "sends the batch again, with the same deduplication keys. ") +
         kafka_sentence(j, true);
}

// Reads the message back from Kafka and adds what was found as j["kafka"]; returns the exit code that it deserves.
Result<int> add_kafka(const Config& config, postgres::PqxxSession& control, const pqxx::row& row, Json& j) {
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
    out = {{"verdict", "unreachable"}, {"partition", nullptr}, {"offset", nullptr}};
    report(found.error());
    return exit_kafka;
  }
  out = {{"verdict", to_string(found->verdict)}, {"partition", nullptr}, {"offset", nullptr}};
  if (found->verdict == Verdict::found) {
    out["partition"] = found->partition;
    out["offset"] = found->offset;
  }
  if (found->verdict == Verdict::undecided) return exit_kafka;
  const bool should_be_there = j["state"] == "delivered";
  const bool missing = found->verdict == Verdict::absent || found->verdict == Verdict::no_topic;
  return should_be_there && missing ? exit_absent : 0;
}

Result<Json> parked_history(postgres::PqxxSession& control, std::int64_t seq) {
  auto rows = control.run("looking for the message among the parked ones", parked_sql(), seq);
  if (!rows) return rows.error();
  Json out = Json::array();
  for (const auto& row : *rows) {
    out.push_back({{"parked_for", row[0].as<std::int64_t>()}, {"parked_at", row[1].c_str()}, {"error_class", row[2].c_str()},
                   {"error_text", row[3].c_str()}, {"released_in", integer_or_null(row[4])}, {"resolution", text_or_null(row[5])},
                   {"decided_by", text_or_null(row[6])}, {"decided_at", text_or_null(row[7])}, {"decided_why", text_or_null(row[8])}});
  }
  return out;
}

// Whether the schema is there, and may be used.
Result<bool> usable(postgres::PqxxSession& consumer, const char* schema) {
  auto rows = consumer.run("looking for the consumers' schemas",
                           "select exists (select from pg_catalog.pg_namespace n where n.nspname = $1 and has_schema_privilege(n.oid, 'usage'))",
                           schema);
  if (!rows) return rows.error();
  return (*rows)[0][0].as<bool>();
}

Result<Json> consumed(postgres::PqxxSession& consumer, const std::string& dedup_key) {
  auto rows = consumer.run("looking at the inbox", "select c.name, " + utc("a.accepted_at") + ", p.error_class, p.error_text, p.resolution, " +
                                                       utc("p.handled_at") + R"(
    from inbox.consumer c join inbox.accepted a on a.consumer = c.id and a.dedup_key = $1
    left join lateral (select k.error_class, k.error_text, k.resolution, k.handled_at from inbox.parked k
                       where k.consumer = c.id and k.dedup_key = $1 order by k.id desc limit 1) p on true order by a.accepted_at)",
                           dedup_key);
  if (!rows) return for_person(rows.error(), "inbox_observer");
  Json out = Json::array();
  for (const auto& row : *rows) {
    const bool waits = !row[2].is_null() && row[5].is_null();
    out.push_back({{"consumer", row[0].c_str()}, {"accepted_at", row[1].c_str()},
                   {"state", !waits ? "handled" : row[4].is_null() || row[4].c_str() != std::string("discard") ? "parked" : "discarded"},
                   {"reason", waits ? Json(std::string(row[2].c_str()) + ": " + row[3].c_str()) : Json()}});
  }
  return out;
}

Result<Json> effects(postgres::PqxxSession& consumer, const std::string& dedup_key) {
  auto rows = consumer.run("looking at the effect ledger", "select e.id, e.provider, e.summary, e.state, e.evidence, e.object, " +
                                                               utc("e.settled_at") + R"(, a.request_id, e.attempts
    from effect.effect e left join lateral (select t.request_id from effect.attempt t
      where t.effect = e.id and t.request_id is not null order by t.epoch desc limit 1) a on true
    where e.dedup_key = $1 order by e.id)",
                           dedup_key);
  if (!rows) return for_person(rows.error(), "effect_observer");
  Json out = Json::array();
  for (const auto& row : *rows) {
    out.push_back({{"id", row[0].as<std::int64_t>()}, {"provider", row[1].c_str()}, {"summary", text_or_null(row[2])}, {"state", row[3].c_str()},
                   {"evidence", text_or_null(row[4])}, {"object", text_or_null(row[5])}, {"settled_at", text_or_null(row[6])},
                   {"request_id", text_or_null(row[7])}, {"attempts", row[8].as<std::int64_t>()}});
  }
  return out;
}

bool may_not(const Error& e) { return e.what.find("permission denied") != std::string::npos; }

// The database of the consumers, as far as it can be looked at.
class Consumers {
 public:
  static Result<Consumers> open(const Config& config) {
    auto control = open_consumer_control(config);
    if (!control) return control.error();
    Consumers consumers(std::move(*control));
    for (const auto& [schema, there] : {std::pair{"inbox", &consumers.inbox_}, {"effect", &consumers.effect_}}) {
      auto found = usable(*consumers.control_, schema);
      if (!found) return found.error();
      *there = *found;
    }
    return consumers;
  }

  // Adds what became of the message there; null: the schemas are not there, or may not be read.
  Result<void> add_to(Json& j) const {
    const std::string key = j["dedup_key"].get<std::string>();
    for (const auto& [there, name, look] : {std::tuple{inbox_, "consumed", &consumed}, {effect_, "effects", &effects}}) {
      if (!there) continue;
      auto found = look(*control_, key);
      if (found) j[name] = std::move(*found);
      else if (!may_not(found.error())) return found.error();
    }
    return {};
  }

 private:
  explicit Consumers(std::unique_ptr<postgres::PqxxSession> control) : control_(std::move(control)) {}

  std::unique_ptr<postgres::PqxxSession> control_;
  bool inbox_ = false;
  bool effect_ = false;
};

struct Traced {
  Json json;
  int code = 0;
};

Result<Traced> trace_row(const Config& config, postgres::PqxxSession& control, const Consumers* consumers, const pqxx::row& row) {
  Traced out;
  Json& j = out.json;
  j["id"] = row[0].c_str();
  j["seq"] = integer_or_null(row[1]);
  j["topic"] = row[2].c_str();
  j["dedup_key"] = row[3].c_str();
  j["state"] = row[4].c_str();
  j["explanation"] = "";
  j["created_at"] = row[5].c_str();
  j["deliver_at"] = text_or_null(row[6]);
  j["batch"] = nullptr;
  if (!row[8].is_null() && !row[9].is_null()) {
    j["batch"] = {{"number", row[8].as<std::int64_t>()}, {"mode", row[9].c_str()}, {"opened_at", row[10].c_str()},
                  {"delivered_at", text_or_null(row[11])}};
  }
  j["kafka"] = nullptr;
  j["parked"] = Json::array();
  if (!row[1].is_null()) {
    auto parked = parked_history(control, row[1].as<std::int64_t>());
    if (!parked) return parked.error();
    j["parked"] = std::move(*parked);
  }
  if (j["state"] == "delivered" || j["state"] == "in_doubt") {
    auto code = add_kafka(config, control, row, j);
    if (!code) return code.error();
    out.code = *code;
  }
  j["consumed"] = j["effects"] = nullptr;
  // What the consumers did is beside the question: if they cannot be asked, the rest is said all the same.
  if (consumers != nullptr) {
    if (auto added = consumers->add_to(j); !added) out.code = std::max(out.code, report(added.error()));
  }
  j["explanation"] = explain(j, row[15].is_null() ? std::string() : row[15].c_str(), !row[7].is_null() && row[7].as<bool>());
  return out;
}

void print_consumers(const Json& j) {
  const auto text = [](const Json& value) { return value.is_string() ? escape(value.get<std::string>()) : value.dump(); };
  if (!j["consumed"].is_null()) {
    for (const Json& c : j["consumed"]) {
      std::printf("  %-12sby %s at %s, %s%s\n", "consumed", text(c["consumer"]).c_str(), text(c["accepted_at"]).c_str(), text(c["state"]).c_str(),
                  c["reason"].is_null() ? "" : (": " + text(c["reason"])).c_str());
    }
  }
  if (j["effects"].is_null()) return;
  for (const Json& e : j["effects"]) {
    std::printf("  %-12s%s at %s: %s", "effect", text(e["id"]).c_str(), text(e["provider"]).c_str(), text(e["state"]).c_str());
    if (!e["settled_at"].is_null()) std::printf(" at %s", text(e["settled_at"]).c_str());
    if (!e["request_id"].is_null()) std::printf(", request %s", text(e["request_id"]).c_str());
    if (!e["object"].is_null()) std::printf(", object %s", text(e["object"]).c_str());
    std::printf("\n");
  }
}

void print_message(const Json& j) {
  const auto line = [](const char* label, const std::string& value) { std::printf("  %-12s%s\n", label, escape(value).c_str()); };
  std::printf("message %s: %s\n", j["id"].get<std::string>().c_str(), j["state"].get<std::string>().c_str());
  line("topic", j["topic"].get<std::string>());
  line("dedup key", j["dedup_key"].get<std::string>());
  if (!j["seq"].is_null()) line("seq", j["seq"].dump());
  line("written at", j["created_at"].get<std::string>());
  if (!j["deliver_at"].is_null()) line("due at", j["deliver_at"].get<std::string>());
  if (const Json& b = j["batch"]; !b.is_null()) {
    line("batch", b["number"].dump() + ", " + b["mode"].get<std::string>() + ", opened at " + b["opened_at"].get<std::string>());
    if (!b["delivered_at"].is_null() && j["state"] != "parked") line("delivered", b["delivered_at"].get<std::string>());
  }
  for (const Json& p : j["parked"]) {
    line("parked", p["parked_at"].get<std::string>() + ", " + p["error_class"].get<std::string>() + ", of batch " + p["parked_for"].dump() +
                       (p["released_in"].is_null() ? "" : ", released in batch " + p["released_in"].dump()));
  }
  if (const Json& k = j["kafka"]; !k.is_null() && k["verdict"] == "found") {
    line("Kafka", "partition " + k["partition"].dump() + ", offset " + k["offset"].dump());
  } else if (!k.is_null()) {
    line("Kafka", k["verdict"] == "expired" ? "expired from the topic" : k["verdict"].get<std::string>());
  }
  print_consumers(j);
  std::printf("  %s\n", escape(j["explanation"].get<std::string>()).c_str());
}

std::string described(const TraceOptions& options) {
  if (options.id) return "the id " + *options.id;
  if (options.key) return "the deduplication key \"" + escape(*options.key) + "\"";
  return "the seq " + std::to_string(*options.seq);
}

Result<pqxx::result> find(postgres::PqxxSession& control, const TraceOptions& options) {
  const auto text = [](const auto& value) { return value ? value->c_str() : nullptr; };
  const bool key_is_id = options.key && Uuid::parse(*options.key);
  const std::optional<std::string> seq = options.seq ? std::optional(std::to_string(*options.seq)) : std::nullopt;
  auto rows = control.run("looking for the message", find_sql(), key_is_id ? text(options.key) : text(options.id), text(options.key),
                          text(seq));
  if (!rows) return for_person(rows.error(), "outbox_observer");
  return rows;
}

}  // namespace

int trace(const Config& config, const TraceOptions& options) {
  if (options.id && !Uuid::parse(*options.id)) {
    return report({Fault::usage, "\"" + escape(*options.id) + "\" is no message id",
                   "an id is a UUID of 36 characters; --key looks for a deduplication key, --seq for a number"});
  }
  auto control = open_control(config);
  if (!control) return report(control.error());
  auto rows = find(**control, options);
  if (!rows) return report(rows.error());
  int code = rows->empty() ? exit_absent : 0;
  std::optional<Consumers> consumers;
  if (!rows->empty()) {
    auto opened = Consumers::open(config);
    if (opened) consumers.emplace(std::move(*opened));
    else code = report(opened.error());
  }
  Json answer = json_answer();
  answer["messages"] = Json::array();
  for (const auto& row : *rows) {
    auto traced = trace_row(config, **control, consumers ? &*consumers : nullptr, row);
    if (!traced) return report(traced.error());
    if (!options.json) print_message(traced->json);
    code = std::max(code, traced->code);
    answer["messages"].push_back(std::move(traced->json));
  }
  if (options.json) {
    print_json(answer);
  } else if (rows->empty()) {
    return report({Fault::absent, "no committed message has " + described(options),
                   "its transaction was rolled back or is still open, or retention (retention.keep) has removed the message"});
  }
  return code;
}

}  // namespace outbox
