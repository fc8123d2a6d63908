// SPDX-License-Identifier: Apache-2.0
#include "relay/commands/json.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace relay {
namespace {

using LibraryJson = nlohmann::ordered_json;

}  // namespace

struct Json::Library {
  static LibraryJson from(const Json& json) {
    return std::visit([](const auto& value) { return of(value); }, json.value_);
  }

  static Json to(const LibraryJson& json) {
    switch (json.type()) {
      case LibraryJson::value_t::boolean: return json.get<bool>();
      case LibraryJson::value_t::number_integer:
      case LibraryJson::value_t::number_unsigned: return json.get<std::int64_t>();
      case LibraryJson::value_t::number_float: return json.get<double>();
      case LibraryJson::value_t::string: return json.get<std::string>();
      case LibraryJson::value_t::array: {
        Json out = array();
        for (const auto& element : json) out.push_back(to(element));
        return out;
      }
      case LibraryJson::value_t::object: {
        Json out = object();
        for (const auto& [name, value] : json.items()) out[name] = to(value);
        return out;
      }
      default: return {};
    }
  }

 private:
  static LibraryJson of(std::monostate) { return nullptr; }
  template <class T>
  static LibraryJson of(const T& value) {
    return value;
  }
  static LibraryJson of(const Array& array) {
    LibraryJson out = LibraryJson::array();
    for (const Json& element : array) out.push_back(from(element));
    return out;
  }
  static LibraryJson of(const Object& object) {
    LibraryJson out = LibraryJson::object();
    for (const auto& [name, value] : object) out[name] = from(value);
    return out;
  }
};

Json Json::object(std::initializer_list<std::pair<const char*, Json>> members) {
  Json out;
  auto& object = out.value_.emplace<Object>();
  for (const auto& [name, value] : members) object.emplace_back(name, value);
  return out;
}

Json Json::array() {
  Json out;
  out.value_.emplace<Array>();
  return out;
}

std::optional<Json> Json::parse(const std::string& text) {
  const LibraryJson parsed = LibraryJson::parse(text, nullptr, false);
  return parsed.is_discarded() ? std::nullopt : std::optional(Library::to(parsed));
}

Json& Json::operator[](std::string_view name) {
  if (is_null()) value_.emplace<Object>();
  auto& object = std::get<Object>(value_);
  const auto found =
      std::find_if(object.begin(), object.end(), [&](const Member& m) { return m.first == name; });
  return found == object.end() ? object.emplace_back(name, Json()).second : found->second;
}

const Json& Json::operator[](std::string_view name) const {
  static const Json null;
  const auto& object = members();
  const auto found =
      std::find_if(object.begin(), object.end(), [&](const Member& m) { return m.first == name; });
  return found == object.end() ? null : found->second;
}

bool Json::contains(std::string_view name) const {
  const auto& object = members();
  return std::any_of(object.begin(), object.end(),
                     [&](const Member& m) { return m.first == name; });
}

bool Json::empty() const { return is_object() ? members().empty() : begin() == end(); }

std::string Json::dump() const {
  return Library::from(*this).dump(-1, ' ', false, LibraryJson::error_handler_t::replace);
}

std::string Json::dump_indented() const {
  return Library::from(*this).dump(2, ' ', false, LibraryJson::error_handler_t::replace);
}

}  // namespace relay
