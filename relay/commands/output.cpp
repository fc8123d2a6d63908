// SPDX-License-Identifier: Apache-2.0
#include "relay/commands/output.h"

#include <cstdio>

#include "common/hex.h"
#include "common/utf8.h"
#include "relay/base/escape.h"

namespace relay {

Json json_answer() { return Json::object({{"schema", 1}}); }

void print_json(const Json& answer, bool one_line) {
  std::puts((one_line ? answer.dump() : answer.dump_indented()).c_str());
  std::fflush(stdout);
}

std::string utc(const std::string& column) {
  const std::string local = column + " at time zone 'UTC'";
  return "case when isfinite(" + column + ") then to_char(" + local +
         ", 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') || case when extract(year from " + local +
         ") < 0 then ' BC' else '' end else " + column + "::text end";
}

Json text_or_null(const pqxx::field& field) {
  return field.is_null() ? Json() : Json(field.c_str());
}

Json integer_or_null(const pqxx::field& field) {
  return field.is_null() ? Json() : Json(field.as<std::int64_t>());
}

Json number_or_null(const pqxx::field& field) {
  return field.is_null() ? Json() : Json(field.as<double>());
}

std::string shown(const pqxx::field& field) {
  return field.is_null() ? "-" : escape(field.c_str());
}

std::string shown(const Json& value) {
  if (value.is_null()) return "-";
  return value.is_text() ? escape(value.text()) : value.dump();
}

void print_field(const char* label, const std::string& value) {
  std::printf("  %-12s%s\n", label, value.c_str());
}

void add_bytes(Json& j, const std::string& name, const pqxx::field& hex) {
  if (hex.is_null()) {
    j[name] = nullptr;
    return;
  }
  const std::string bytes = outbox::common::unhex(hex.c_str());
  const bool text = outbox::common::is_utf8(bytes);
  j[name] = text ? bytes : std::string(hex.c_str());
  j[name + "_encoding"] = text ? "utf-8" : "hex";
}

std::string shown_bytes(const Json& j, const std::string& name) {
  if (j[name].is_null()) return "-";
  const std::string& text = j[name].text();
  return j[name + "_encoding"] == "hex" ? "\\x" + text : escape(text, Escape::lines);
}

std::string shown_seconds(double seconds) {
  char out[32];
  if (seconds < 1) std::snprintf(out, sizeof out, "%.0f ms", seconds * 1000);
  else if (seconds < 120) std::snprintf(out, sizeof out, "%.1f s", seconds);
  else if (seconds < 7200) std::snprintf(out, sizeof out, "%.1f min", seconds / 60);
  else std::snprintf(out, sizeof out, "%.1f h", seconds / 3600);
  return out;
}

Error for_operator(Error error, const char* role) {
  const std::string name = role;
  if (error.what.find("permission denied") != std::string::npos) {
    error.hint = "grant the role " + name + " to your login";
  } else if (!name.starts_with("outbox_") && error.fault == Fault::refused) {
    error.hint = "run `outbox-relay init --schema " + name.substr(0, name.find('_')) +
                 "` in this database, or see consumer.dsn";
  }
  return error;
}

}  // namespace relay
