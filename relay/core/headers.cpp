// SPDX-License-Identifier: Apache-2.0
#include "relay/core/headers.h"

#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>

#include "common/names.h"

namespace relay {
namespace {

std::string_view keep(const std::string& text, Page& page) {
  char* const copy = static_cast<char*>(std::malloc(text.size() + 1));
  if (copy == nullptr) throw std::bad_alloc();
  std::memcpy(copy, text.data(), text.size());
  page.owned.emplace_back(copy, &std::free);
  return {copy, text.size()};
}

}  // namespace

void decode_headers(std::string_view json, Message& message, Page& page) {
  const auto object = nlohmann::json::parse(json, nullptr, false);
  message.headers_from = message.headers_to = static_cast<std::uint32_t>(page.headers.size());
  if (!object.is_object()) {
    message.bad_headers = "headers is no JSON object";
    return;
  }
  for (const auto& [name, value] : object.items()) {
    if (!value.is_string()) {
      message.bad_headers = "headers has a value that is no string";
      return;
    }
    if (outbox::common::reserved_header(name) &&
        name != "outbox-replay") {  // a constraint of outbox.message says who may set that one
      message.bad_headers = "headers sets a reserved name (dedup-key, sent-at, outbox-*, effect-*)";
      return;
    }
    page.headers.push_back({keep(name, page), keep(value.get_ref<const std::string&>(), page)});
  }
  message.headers_to = static_cast<std::uint32_t>(page.headers.size());
}

}  // namespace relay
