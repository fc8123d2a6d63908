// SPDX-License-Identifier: Apache-2.0
// HttpProvider: one HTTP request for each call() and lookup().
//
//   1. The constructor validates the options.
//   2. call() validates the request, sends it with the idempotency key, and reads the object's id.
//   3. lookup() sends a GET of lookup_path: 200 that shows the object is done, 404 is absent.
//
// Failure. Invalid options throw std::invalid_argument; everything else is an Outcome. Error texts
// contain no header values. Thread-safe: only constant state is shared.
#include "outbox/http_provider.h"

#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "client/effects/http_exchange.h"
#include "common/hex.h"

namespace outbox {
inline namespace v1 {
namespace {

using effects::HttpExchange;
using nlohmann::json;

const std::set<std::string> methods = {"POST", "PUT", "PATCH", "DELETE"};
// Set by libcurl; a second one would split or corrupt the request.
const std::set<std::string> framing_headers = {"host", "content-length", "transfer-encoding",
                                               "expect", "connection"};

std::string lower_case(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

bool valid_header_name(const std::string& name) {
  return !name.empty() &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~") ==
             std::string::npos;
}

[[noreturn]] void reject_http_options(const std::string& what) {
  throw std::invalid_argument("HTTP provider: " + what);
}

void check_pointer(const std::string& name, const std::string& pointer) {
  try {
    json::json_pointer{pointer};
  } catch (const json::exception&) {
    reject_http_options(
        name +
        " is not a JSON pointer. HINT: leave it empty, or begin it with \"/\", like /data/id");
  }
}

void check_header(const std::string& name, const std::string& value) {
  const std::string lower = lower_case(name);
  if (!valid_header_name(lower)) {
    reject_http_options("\"" + name +
                        "\" is not a header name. HINT: use letters, digits and \"-\"");
  }
  if (framing_headers.contains(lower)) {
    reject_http_options("header " + name + " is set by libcurl. HINT: remove it");
  }
  if (value.empty() || effects::has_control(value)) {
    reject_http_options(
        "the value of header " + name +
        " is empty or has a control character. HINT: check for a line feed at its end");
  }
}

// Throws std::invalid_argument for options that cannot work. Names the option, never its value.
HttpOptions checked(HttpOptions options) {
  const std::string origin = effects::origin_of(options.base_url);
  if (!origin.starts_with("http://") && !origin.starts_with("https://")) {
    reject_http_options(
        "base_url is not an http:// or https:// URL. HINT: use the form "
        "https://api.example.com/v1");
  }
  if (options.base_url.find_first_of("?#@") != std::string::npos ||
      effects::has_control(options.base_url)) {
    reject_http_options(
        "base_url has a user, a query or a fragment. HINT: put credentials into headers, and a "
        "query into the target's path");
  }
  while (options.base_url.ends_with('/')) options.base_url.pop_back();
  check_header(options.idempotency_header, "key");
  for (const auto& [name, value] : options.headers) {
    check_header(name, value);
    if (const std::string lower = lower_case(name);
        lower == "content-type" || lower == lower_case(options.idempotency_header)) {
      reject_http_options(
          "header " + name +
          " is set for each request. HINT: remove it; set the target's content-type");
    }
  }
  check_pointer("object_pointer", options.object_pointer);
  check_pointer("key_pointer", options.key_pointer);
  check_pointer("lookup_list_pointer", options.lookup_list_pointer);
  if (!options.lookup_path.empty() && options.key_pointer.empty() &&
      options.object_pointer.empty()) {
    reject_http_options(
        "lookup_path needs key_pointer or object_pointer: without one, any answer would show the "
        "object. HINT: set key_pointer to where the answer repeats the idempotency key");
  }
  if (!options.lookup_path.empty() && !options.lookup_path.starts_with('/')) {
    reject_http_options(
        "lookup_path does not begin with \"/\". HINT: use the form /charges?key={key}; it is "
        "appended to base_url");
  }
  return options;
}

// Why the request cannot be sent; empty: it can.
std::string http_request_error(const Request& request) {
  const std::string path = effects::target_value(request, "path", "");
  if (!path.starts_with('/')) {
    return "target path does not begin with \"/\". HINT: use the form /charges; it is appended to "
           "base_url";
  }
  if (effects::has_control(path) || path.find(' ') != std::string::npos) {
    return "target path has a space or a control character. HINT: percent-encode it";
  }
  if (effects::has_dot_segment(path)) {
    return "target path has a segment \".\" or \"..\", which could lead outside of base_url. HINT: "
           "write the path without it";
  }
  if (!methods.contains(effects::target_value(request, "method", "POST"))) {
    return "target method is unknown. HINT: use POST, PUT, PATCH or DELETE";
  }
  if (effects::has_control(effects::target_value(request, "content-type", ""))) {
    return "target content-type has a control character. HINT: remove it";
  }
  if (request.provider_key.find_first_not_of(' ') == std::string::npos ||
      effects::has_control(request.provider_key)) {
    return "the provider key is empty or has a control character. HINT: use letters and digits; it "
           "is sent as a header";
  }
  return {};
}

std::string percent_encoded(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (std::string_view("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
            .find(c) != std::string_view::npos) {
      out += c;
    } else {
      out += "%" + common::hex(std::string_view(&c, 1));
    }
  }
  return out;
}

// The string or number at `pointer`; empty: none.
std::string found_at(const json& answer, const std::string& pointer) {
  if (pointer.empty() || !answer.is_structured()) return {};
  try {
    const json& value = answer.at(json::json_pointer{pointer});
    if (value.is_string()) return value.get<std::string>();
    return value.is_number() ? value.dump() : "";
  } catch (const json::exception&) {
    return {};
  }
}

struct Hit {
  Answer answer = Answer::none;
  std::string object{};
  std::string error{};
};

// What the answer of a lookup, of status 200, shows of the request with this key.
Hit hit_in(const json& answer, const HttpOptions& options, const std::string& key) {
  json::array_t objects = {answer};
  if (!options.lookup_list_pointer.empty()) {
    const json::json_pointer list{options.lookup_list_pointer};
    if (!answer.is_structured() || !answer.contains(list) || !answer.at(list).is_array()) {
      return {.error = "the answer has no array at lookup_list_pointer. HINT: check the pointer"};
    }
    objects = answer.at(list).get<json::array_t>();
    if (objects.empty()) return {.answer = Answer::absent};
  }
  for (const json& object : objects) {
    const std::string id = found_at(object, options.object_pointer);
    const bool shown = options.key_pointer.empty() ? objects.size() == 1 && !id.empty()
                                                   : found_at(object, options.key_pointer) == key;
    if (shown) return {.answer = Answer::done, .object = id};
  }
  return {.error = options.key_pointer.empty()
                       ? "the answer does not show one object. HINT: check object_pointer, or set "
                         "key_pointer to where the answer repeats the idempotency key"
                       : "the answer shows no object with the idempotency key. HINT: check "
                         "key_pointer and lookup_path"};
}

effects::Route route_of(const HttpOptions& options, const std::string& path) {
  return {options.base_url + path, "http,https", options.ca_file, options.connect_timeout};
}

}  // namespace

HttpProvider::HttpProvider(HttpOptions options) : options_(checked(std::move(options))) {}

HttpProvider::~HttpProvider() = default;

Outcome HttpProvider::call(const Request& request, Deadline deadline) {
  if (const std::string fault = http_request_error(request); !fault.empty()) {
    return effects::refused_unsent(fault);
  }
  const effects::Route route = route_of(options_, request.target.at("path"));
  HttpExchange exchange(route, effects::target_value(request, "method", "POST"), request.body);
  for (const auto& [name, value] : options_.headers) exchange.add_header(name, value);
  exchange.add_header("Content-Type",
                      effects::target_value(request, "content-type", "application/json"));
  exchange.add_header(options_.idempotency_header, request.provider_key);
  Outcome outcome = exchange.run(deadline, options_.request_id_header);
  if (outcome.answer != Answer::done) return outcome;

  const json answer = json::parse(exchange.body(), nullptr, false);
  const std::string key = found_at(answer, options_.key_pointer);
  if (!key.empty() && key != request.provider_key) {
    outcome.answer = Answer::failing;
    outcome.error =
        "the provider answers another request: its idempotency key differs. HINT: check for a "
        "proxy that caches answers";
    return outcome;
  }
  outcome.object = found_at(answer, options_.object_pointer);
  return outcome;
}

Outcome HttpProvider::lookup(const Request& request, Deadline deadline) {
  if (!supports_lookup()) return Provider::lookup(request, deadline);
  std::string path = options_.lookup_path;
  const std::string key = percent_encoded(request.provider_key);
  for (std::size_t at = 0; (at = path.find("{key}", at)) != std::string::npos; at += key.size()) {
    path.replace(at, 5, key);
  }
  if (effects::has_dot_segment(path)) {
    Outcome refused;
    refused.error =
        "the provider key is a segment \".\" or \"..\" of lookup_path. HINT: use letters "
        "and digits, or lookup_path with the key in its query";
    return refused;
  }
  const effects::Route route = route_of(options_, path);
  HttpExchange exchange(route, "GET", {});
  for (const auto& [name, value] : options_.headers) exchange.add_header(name, value);
  Outcome outcome = exchange.run(deadline, options_.request_id_header);
  if (outcome.phase != Phase::answered) return outcome;
  if (outcome.status == 404) {
    outcome.answer = Answer::absent;
    outcome.error.clear();
  } else if (outcome.status == 200) {
    const Hit hit =
        hit_in(json::parse(exchange.body(), nullptr, false), options_, request.provider_key);
    outcome.answer = hit.answer;
    outcome.object = hit.object;
    if (!hit.error.empty()) outcome.error = hit.error;
  } else {
    outcome.answer = Answer::none;
    if (outcome.error.empty()) {
      outcome.error = "HTTP status " + std::to_string(outcome.status) +
                      " is no answer to a lookup. HINT: check lookup_path";
    }
  }
  return outcome;
}

}  // namespace v1
}  // namespace outbox
