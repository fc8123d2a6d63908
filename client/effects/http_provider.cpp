// SPDX-License-Identifier: Apache-2.0
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
const std::set<std::string> framing_headers = {"host", "content-length", "transfer-encoding", "expect", "connection"};

std::string small_letters(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

bool valid_header_name(const std::string& name) {
  return !name.empty() && name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~") == std::string::npos;
}

[[noreturn]] void wrong(const std::string& what) { throw std::invalid_argument("HTTP provider: " + what); }

void check_pointer(const std::string& name, const std::string& pointer) {
  try {
    json::json_pointer{pointer};
  } catch (const json::exception&) {
    wrong(name + " is no JSON pointer. HINT: it is empty or begins with \"/\", like /data/id");
  }
}

void check_header(const std::string& name, const std::string& value) {
  const std::string small = small_letters(name);
  if (!valid_header_name(small)) wrong("\"" + name + "\" is no name of a header. HINT: use letters, digits and \"-\"");
  if (framing_headers.contains(small)) wrong("header " + name + " is set by libcurl. HINT: leave it out");
  if (value.empty() || effects::has_control(value)) {
    wrong("the value of header " + name + " is empty or has a control character. HINT: is there a line feed at the end of the secret?");
  }
}

HttpOptions checked(HttpOptions options) {
  const std::string origin = effects::origin_of(options.base_url);
  if (!origin.starts_with("http://") && !origin.starts_with("https://")) {
    wrong("base_url is no http:// or https:// URL. HINT: set it to something like https://api.example.com/v1");
  }
  if (options.base_url.find_first_of("?#@") != std::string::npos || effects::has_control(options.base_url)) {
    wrong("base_url has a user, a query or a fragment. HINT: put credentials into headers, and queries into the target's path");
  }
  while (options.base_url.ends_with('/')) options.base_url.pop_back();
  check_header(options.idempotency_header, "key");
  for (const auto& [name, value] : options.headers) {
    check_header(name, value);
    if (const std::string small = small_letters(name); small == "content-type" || small == small_letters(options.idempotency_header)) {
      wrong("header " + name + " is set for each request. HINT: leave it out; the type is target content-type");
    }
  }
  check_pointer("object_pointer", options.object_pointer);
  check_pointer("key_pointer", options.key_pointer);
  if (!options.lookup_path.empty() && !options.lookup_path.starts_with('/')) {
    wrong("lookup_path does not begin with \"/\". HINT: it is added to base_url, like /charges?key={key}");
  }
  return options;
}

std::string value_of(const Request& request, const std::string& name, const std::string& otherwise) {
  const auto found = request.target.find(name);
  return found == request.target.end() ? otherwise : found->second;
}

// Why the request can never be sent; empty: it can.
std::string fault_of(const Request& request) {
  const std::string path = value_of(request, "path", "");
  if (!path.starts_with('/')) return "target path does not begin with \"/\". HINT: set it to what follows base_url, like /charges";
  if (effects::has_control(path) || path.find(' ') != std::string::npos) {
    return "target path has a blank or a control character. HINT: percent-encode it";
  }
  if (!methods.contains(value_of(request, "method", "POST"))) return "target method is unknown. HINT: use POST, PUT, PATCH or DELETE";
  if (effects::has_control(value_of(request, "content-type", ""))) return "target content-type has a control character. HINT: take it out";
  if (request.provider_key.find_first_not_of(' ') == std::string::npos || effects::has_control(request.provider_key)) {
    return "the provider key is empty or has a control character. HINT: it is sent as a header; use letters and digits";
  }
  return {};
}

std::string percent_encoded(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (std::string_view("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~").find(c) != std::string_view::npos) {
      out += c;
    } else {
      out += "%" + common::hex(std::string_view(&c, 1));
    }
  }
  return out;
}

// What stands at `pointer`; empty: nothing that could be named.
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

effects::Route route_of(const HttpOptions& options, const std::string& path) {
  return {options.base_url + path, "http,https", options.ca_file, options.connect_timeout};
}

}  // namespace

HttpProvider::HttpProvider(HttpOptions options) : options_(checked(std::move(options))) {}

HttpProvider::~HttpProvider() = default;

Outcome HttpProvider::call(const Request& request, Deadline deadline) {
  if (const std::string fault = fault_of(request); !fault.empty()) return effects::refused_unsent(fault);
  const effects::Route route = route_of(options_, request.target.at("path"));
  HttpExchange exchange(route, value_of(request, "method", "POST"), request.body);
  for (const auto& [name, value] : options_.headers) exchange.add_header(name, value);
  exchange.add_header("Content-Type", value_of(request, "content-type", "application/json"));
  exchange.add_header(options_.idempotency_header, request.provider_key);
  Outcome outcome = exchange.run(deadline, options_.request_id_header);
  if (outcome.answer != Answer::done) return outcome;

  const json answer = json::parse(exchange.body(), nullptr, false);
  const std::string key = found_at(answer, options_.key_pointer);
  if (!key.empty() && key != request.provider_key) {
    outcome.answer = Answer::failing;
    outcome.error = "the provider answers another request: its idempotency key is not ours. HINT: does a proxy between mix up answers?";
    return outcome;
  }
  outcome.object = found_at(answer, options_.object_pointer);
  return outcome;
}

Outcome HttpProvider::lookup(const Request& request, Deadline deadline) {
  if (!supports_lookup()) return Provider::lookup(request, deadline);
  std::string path = options_.lookup_path;
  const std::string key = percent_encoded(request.provider_key);
  for (std::size_t at = 0; (at = path.find("{key}", at)) != std::string::npos; at += key.size()) path.replace(at, 5, key);
  const effects::Route route = route_of(options_, path);
  HttpExchange exchange(route, "GET", {});
  for (const auto& [name, value] : options_.headers) exchange.add_header(name, value);
  Outcome outcome = exchange.run(deadline, options_.request_id_header);
  if (outcome.phase != Phase::answered) return outcome;
  if (outcome.status == 404) {
    outcome.answer = Answer::absent;
    outcome.error.clear();
  } else if (outcome.status == 200) {
    outcome.object = found_at(json::parse(exchange.body(), nullptr, false), options_.object_pointer);
  } else {
    outcome.answer = Answer::none;
    if (outcome.error.empty()) outcome.error = "HTTP status " + std::to_string(outcome.status) + " tells nothing. HINT: check lookup_path";
  }
  return outcome;
}

}  // namespace v1
}  // namespace outbox
