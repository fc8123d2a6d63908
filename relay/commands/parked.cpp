// SPDX-License-Identifier: Apache-2.0
// parked list and show: which messages wait for a decision, and why.
#include <cstdio>

#include "relay/base/escape.h"
#include "relay/commands/commands.h"
#include "relay/commands/context.h"
#include "relay/commands/output.h"

namespace outbox {
namespace {

// Only what the role outbox_observer may read: no key, headers or payload.
std::string columns() {
  return "p.parked_for, p.seq, p.id::text, p.topic, coalesce(p.dedup_key, p.id::text), " + utc("p.created_at") + ", " +
         utc("p.parked_at") + ", p.error_class, p.error_text, p.released_in, p.resolution, p.decided_by, " + utc("p.decided_at") +
         ", p.decided_why";
}
constexpr int column_count = 14;

Json json_of(const pqxx::row& row) {
  return Json{{"id", row[2].c_str()},
              {"seq", row[1].as<std::int64_t>()},
              {"topic", row[3].c_str()},
              {"dedup_key", row[4].c_str()},
              {"created_at", row[5].c_str()},
              {"parked_for", row[0].as<std::int64_t>()},
              {"parked_at", row[6].c_str()},
              {"error_class", row[7].c_str()},
              {"error_text", row[8].c_str()},
              {"released_in", integer_or_null(row[9])},
              {"resolution", text_or_null(row[10])},
              {"decided_by", text_or_null(row[11])},
              {"decided_at", text_or_null(row[12])},
              {"decided_why", text_or_null(row[13])}};
}

void print_details(const Json& j, bool payload) {
  const auto line = [&](const char* label, const char* name) {
    if (j[name].is_null()) return;
    std::printf("  %-12s%s\n", label, j[name].is_string() ? escape(j[name].get<std::string>()).c_str() : j[name].dump().c_str());
  };
  std::printf("message %s\n", j["id"].get<std::string>().c_str());
  line("topic", "topic");
  line("dedup key", "dedup_key");
  line("seq", "seq");
  line("written at", "created_at");
  line("parked at", "parked_at");
  line("of batch", "parked_for");
  line("reason", "error_class");
  line("", "error_text");
  line("decision", "resolution");
  line("by", "decided_by");
  line("at", "decided_at");
  line("why", "decided_why");
  line("released in", "released_in");
  if (!payload) return;
  std::printf("  %-12s%s\n", "key", shown_bytes(j, "key").c_str());
  std::printf("  %-12s%s\n", "headers", j["headers"].is_null() ? "-" : escape(j["headers"].dump()).c_str());
  std::printf("  %-12s%s\n", "payload", shown_bytes(j, "payload").c_str());
}

}  // namespace

int parked_list(const Config& config, const ParkedListOptions& options) {
  auto control = open_control(config);
  if (!control) return report(control.error());
  auto rows = (*control)->run("listing parked messages",
                              "select " + columns() + ", count(*) over () from outbox.parked p where p.released_in is null "
                              "and ($1 = '' or p.topic = $1) and ($2 = '' or p.error_class = $2) "
                              "order by p.parked_for, p.seq limit $3",
                              options.topic, options.error_class, options.limit);
  if (!rows) return report(for_person(rows.error(), "outbox_observer"));
  const auto total = rows->empty() ? 0 : (*rows)[0][column_count].as<std::int64_t>();
  if (options.json) {
    Json j = json_answer();
    j["total"] = total;
    j["parked"] = Json::array();
    for (const auto& row : *rows) j["parked"].push_back(json_of(row));
    print_json(j);
    return 0;
  }
  for (const auto& row : *rows) {
    std::printf("%s  %s  %s  %s: %s%s\n", row[2].c_str(), row[6].c_str(), shown(row[3]).c_str(), shown(row[7]).c_str(),
                shown(row[8]).c_str(), row[10].is_null() ? "" : (" [decided: " + shown(row[10]) + "]").c_str());
  }
  const auto listed = static_cast<std::int64_t>(rows->size());
  if (listed == total) std::printf("%lld parked\n", static_cast<long long>(total));
  else std::printf("%lld parked; the oldest %lld are listed, --limit shows more\n", static_cast<long long>(total), static_cast<long long>(listed));
  return 0;
}

int parked_show(const Config& config, const ParkedShowOptions& options) {
  if (const auto id = id_array({options.id}); !id) return report(id.error());
  auto control = open_control(config);
  if (!control) return report(control.error());
  const std::string bytes = options.payload ? ", encode(p.key, 'hex'), p.headers::text, encode(p.payload, 'hex')" : "";
  auto rows = (*control)->run("looking for the parked message",
                              "select " + columns() + bytes + " from outbox.parked p where p.id = $1::uuid order by p.parked_for",
                              options.id);
  if (!rows) return report(for_person(rows.error(), options.payload ? "outbox_operator" : "outbox_observer"));
  if (rows->empty() && !options.json) {
    return report({Fault::absent, "no parked message has the id " + options.id, "`outbox-relay trace` says where a message is"});
  }
  Json j = json_answer();
  j["parked"] = Json::array();
  for (const auto& row : *rows) {
    Json message = json_of(row);
    if (options.payload) {
      add_bytes(message, "key", row[column_count]);
      message["headers"] = row[column_count + 1].is_null() ? Json() : Json::parse(row[column_count + 1].c_str());
      add_bytes(message, "payload", row[column_count + 2]);
    }
    if (!options.json) print_details(message, options.payload);
    j["parked"].push_back(std::move(message));
  }
  if (options.json) print_json(j);
  return rows->empty() ? exit_code(Fault::absent) : 0;
}

}  // namespace outbox
