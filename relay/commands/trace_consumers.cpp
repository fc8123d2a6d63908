// SPDX-License-Identifier: Apache-2.0
#include "relay/commands/trace_consumers.h"

#include <tuple>

#include "relay/commands/output.h"

namespace relay {
namespace {

// Whether the schema exists and may be used.
Result<bool> usable(postgres::PqxxSession& consumer, const char* schema) {
  auto rows = consumer.run("looking for the schemas of the consumers",
                           "select exists (select from pg_catalog.pg_namespace n where n.nspname = "
                           "$1 and has_schema_privilege(n.oid, 'usage'))",
                           schema);
  if (!rows) return rows.error();
  return (*rows)[0][0].as<bool>();
}

Result<Json> consumed(postgres::PqxxSession& consumer, const Json& message) {
  auto rows =
      consumer.run("looking at the inbox",
                   "select c.name, " + utc("a.accepted_at") +
                       ", p.error_class, p.error_text, p.resolution, " + utc("p.handled_at") + R"(
    from inbox.consumer c join inbox.accepted a on a.consumer = c.id and a.dedup_key = $1
         and a.topic in (0, (select t.id from inbox.topic t where t.name = $2))
    left join lateral (
      select k.error_class, k.error_text, k.resolution, k.handled_at from inbox.parked k
      where k.consumer = c.id and k.dedup_key = $1 and k.topic = $2
      order by k.id desc limit 1) p on true
    order by a.accepted_at)",
                   message["dedup_key"].text(), message["topic"].text());
  if (!rows) return for_operator(rows.error(), "inbox_observer");
  Json out = Json::array();
  for (const auto& row : *rows) {
    const bool waits = !row[2].is_null() && row[5].is_null();
    out.push_back(Json::object(
        {{"consumer", row[0].c_str()},
         {"accepted_at", row[1].c_str()},
         {"state", !waits                                                         ? "handled"
                   : row[4].is_null() || row[4].c_str() != std::string("discard") ? "parked"
                                                                                  : "discarded"},
         {"reason", waits ? Json(std::string(row[2].c_str()) + ": " + row[3].c_str()) : Json()}}));
  }
  return out;
}

Result<Json> effects(postgres::PqxxSession& consumer, const Json& message) {
  auto rows = consumer.run("looking at the effect ledger",
                           "select e.id, e.provider, e.summary, e.state, e.evidence, e.object, " +
                               utc("e.settled_at") + R"(, a.request_id, e.attempts
    from effect.effect e left join lateral (select t.request_id from effect.attempt t
      where t.effect = e.id and t.request_id is not null order by t.epoch desc limit 1) a on true
    where e.dedup_key = $1 order by e.id)",
                           message["dedup_key"].text());
  if (!rows) return for_operator(rows.error(), "effect_observer");
  Json out = Json::array();
  for (const auto& row : *rows) {
    out.push_back(Json::object({{"id", row[0].as<std::int64_t>()},
                                {"provider", row[1].c_str()},
                                {"summary", text_or_null(row[2])},
                                {"state", row[3].c_str()},
                                {"evidence", text_or_null(row[4])},
                                {"object", text_or_null(row[5])},
                                {"settled_at", text_or_null(row[6])},
                                {"request_id", text_or_null(row[7])},
                                {"attempts", row[8].as<std::int64_t>()}}));
  }
  return out;
}

bool may_not(const Error& e) { return e.what.find("permission denied") != std::string::npos; }

}  // namespace

Result<TraceConsumers> TraceConsumers::open(const Config& config) {
  auto control = open_consumer_control(config);
  if (!control) return control.error();
  TraceConsumers consumers(std::move(*control));
  for (const auto& [schema, there] :
       {std::pair{"inbox", &consumers.inbox_}, {"effect", &consumers.effect_}}) {
    auto found = usable(*consumers.control_, schema);
    if (!found) return found.error();
    *there = *found;
  }
  return consumers;
}

Result<void> TraceConsumers::add_to(Json& j) const {
  for (const auto& [there, name, look] :
       {std::tuple{inbox_, "consumed", &consumed}, {effect_, "effects", &effects}}) {
    if (!there) continue;
    auto found = look(*control_, j);
    if (found) j[name] = std::move(*found);
    else if (!may_not(found.error())) return found.error();
  }
  return {};
}

}  // namespace relay
