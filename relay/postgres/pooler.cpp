// SPDX-License-Identifier: Apache-2.0
#include "relay/postgres/pooler.h"

#include <algorithm>

#include "common/check.h"
#include "relay/base/mutants.h"

namespace relay::postgres {
namespace {

// Whatever can end a statement, or change what it does or how it is executed. A role or a database
// can hand down all of these.
struct Setting {
  const char* name;
  const char* value;
  bool everywhere = true;  // false: newer than PostgreSQL 13
};
constexpr Setting settings[] = {
    {"client_encoding", "UTF8"},  // where pages are cut, sizes are compared across it
    {"row_security", "off"},
    {"statement_timeout", "10min"},
    {"lock_timeout", "30s"},
    {"idle_in_transaction_session_timeout", "30s"},
    {"idle_session_timeout", "0", false},
    {"transaction_timeout", "0", false},
    {"exit_on_error", "off"},
    {"bytea_output", "hex"},
    {"DateStyle", "ISO, YMD"},
    {"TimeZone", "UTC"},
    {"IntervalStyle", "postgres"},
    {"extra_float_digits", "1"},
    {"array_nulls", "on"},
    {"transform_null_equals", "off"},
    {"restrict_nonsystem_relation_kind", "", false},
    {"default_table_access_method", "heap"},
    {"enable_seqscan", "off"},
    {"enable_bitmapscan", "off"},
    {"enable_indexscan", "on"},
    {"enable_indexonlyscan", "on"},
    {"enable_nestloop", "on"},
    {"enable_sort", "on"},
    {"plan_cache_mode", "auto"},
    {"jit", "off"},
    {"client_min_messages", "warning"},
    {"max_parallel_workers_per_gather", "0"},
    {"standard_conforming_strings", "on"},
};

std::string settings_sql(const std::string& only_here) {
  std::string sql = "select ";
  for (const Setting& s : settings) {
    const std::string name = std::string("'") + s.name + "'";
    const std::string set = "set_config(" + name + ", '" + s.value + "', " + only_here + ")";
    sql += s.everywhere
               ? set + ", "
               : "case when current_setting(" + name + ", true) is not null then " + set + " end, ";
  }
  // remote_apply is higher than on: it stays.
  return sql +
         "case when current_setting('synchronous_commit') <> 'remote_apply' then "
         "set_config('synchronous_commit', 'on', " +
         only_here + ") end";
}

constexpr const char* replaced = "outbox-relay: the backend that read before is gone";

std::string started_us(const char* of) {
  return std::string("(extract(epoch from ") + of + ".backend_start) * 1000000)::bigint";
}

std::string literal(const Parameter& value) {
  if (!value) return "null";
  // As PQescapeLiteral() does it, which needs a connection.
  std::string out = value->find('\\') == std::string::npos ? "'" : " E'";
  for (const char c : *value) {
    if (c == '\'' || c == '\\') out += c;
    out += c;
  }
  return out + "'";
}

bool is_name(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || (c & 0x80) != 0;
}
bool is_digit(char c) { return c >= '0' && c <= '9'; }

// The end of what begins at `at` and begins with `open`, behind the next `close`.
std::size_t behind(const std::string& sql, std::size_t at, std::string_view open,
                   const std::string& close) {
  const auto end = sql.find(close, at + open.size());
  return end == std::string::npos ? sql.size() : end + close.size();
}

// The end of the string with backslashes whose quote stands at `at`.
std::size_t behind_escapes(const std::string& sql, std::size_t at) {
  for (++at; at < sql.size() && sql[at] != '\''; ++at) {
    if (sql[at] == '\\') ++at;
  }
  return std::min(at + 1, sql.size());
}

std::size_t behind_comment(const std::string& sql, std::size_t at) {
  int depth = 0;
  do {
    const std::string_view two = std::string_view(sql).substr(at, 2);
    depth += two == "/*" ? 1 : two == "*/" ? -1 : 0;
    at += two == "/*" || two == "*/" ? 2 : 1;
  } while (depth > 0 && at < sql.size());
  return at;
}

// The end of the string, quoted name, comment or word that begins at `at`; `at` if none does.
std::size_t behind_quoted(const std::string& sql, std::size_t at) {
  const std::string_view rest = std::string_view(sql).substr(at);
  if (rest.starts_with("'")) return behind(sql, at, "'", "'");
  if (rest.starts_with("e'") || rest.starts_with("E'")) return behind_escapes(sql, at + 1);
  if (rest.starts_with('"')) return behind(sql, at, "\"", "\"");
  if (rest.starts_with("--")) return behind(sql, at, "--", "\n");
  if (rest.starts_with("/*")) return behind_comment(sql, at);
  if (is_name(rest[0])) {  // a word may hold $, so that a$1 is a name
    return at +
           static_cast<std::size_t>(std::find_if(rest.begin(), rest.end(),
                                                 [](char c) { return !is_name(c) && c != '$'; }) -
                                    rest.begin());
  }
  if (rest[0] != '$' || rest.size() < 2 || is_digit(rest[1])) return at;
  const auto tag = std::find_if(rest.begin() + 1, rest.end(), [](char c) { return !is_name(c); });
  if (tag == rest.end() || *tag != '$') return at;
  const std::string quote(rest.begin(), tag + 1);
  return behind(sql, at, quote, quote);
}

}  // namespace

std::string session_settings() {
  return "set search_path = pg_catalog; set default_transaction_isolation = 'read committed'; set "
         "default_transaction_read_only = off; " +
         settings_sql("false");
}

std::string transaction_settings() {
  if (MUTANT(no_transaction_settings)) return {};
  return "set transaction isolation level read committed, read write; set local search_path = "
         "pg_catalog; " +
         settings_sql("true") + "; ";
}

std::string with_literals(const std::string& sql, const std::vector<Parameter>& parameters) {
  std::string out;
  for (std::size_t at = 0; at < sql.size();) {
    if (const auto end = behind_quoted(sql, at); end != at) {
      out.append(sql, at, end - at);
      at = end;
    } else if (sql[at] == '$' && at + 1 < sql.size() && is_digit(sql[at + 1])) {
      std::size_t number = 0;
      for (++at; at < sql.size() && is_digit(sql[at]); ++at)
        number = 10 * number + static_cast<std::size_t>(sql[at] - '0');
      CHECK(number >= 1 && number <= parameters.size());
      out += literal(parameters[number - 1]);
    } else {
      out += sql[at++];
    }
  }
  return out;
}

const char* const backend_column = "outbox_relay_backend";

std::string serving_backend_sql(const std::vector<Backend>& before,
                                const std::string& backend_tag) {
  std::string there = "false";
  for (const Backend& b : before) {
    there += " or exists (select from pg_stat_get_activity(" + b.pid + ") w where " +
             started_us("w") + " = " + b.started_us + ")";
  }
  if (before.empty() || MUTANT(any_backend)) there = "true";
  // A cast, because a statement without a function of its own can raise an error in no other way.
  return std::string("select a.pid as ") + backend_column + ", " + started_us("a") +
         ", cast(case when " + there + " then '0' else '" + replaced +
         "' end as integer), set_config('outbox_relay.session', '" + backend_tag +
         "', true) from pg_stat_get_activity(pg_backend_pid()) a; ";
}

bool is_replaced(const std::string& message) { return message.find(replaced) != std::string::npos; }

}  // namespace relay::postgres
