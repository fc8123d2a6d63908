// SPDX-License-Identifier: Apache-2.0
// JSON values of commands. The JSON library, which is slow to compile, is known to json.cpp alone.
#pragma once

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace relay {

// A value, null by default. Members of an object keep the order in which they were added.
class Json {
 public:
  using Member = std::pair<std::string, Json>;

  Json() = default;
  Json(std::nullptr_t) {}
  Json(std::string text) : value_(std::move(text)) {}
  Json(std::string_view text) : value_(std::string(text)) {}
  Json(const char* text) : value_(std::string(text)) {}
  Json(double number) : value_(number) {}
  template <std::integral T>
  Json(T number) {
    if constexpr (std::same_as<T, bool>) value_ = number;
    else value_ = static_cast<std::int64_t>(number);
  }

  static Json object(std::initializer_list<std::pair<const char*, Json>> members = {});
  static Json array();
  // nullopt: `text` is not JSON.
  static std::optional<Json> parse(const std::string& text);

  bool is_null() const { return value_.index() == 0; }
  bool is_text() const { return std::holds_alternative<std::string>(value_); }
  bool is_object() const { return std::holds_alternative<Object>(value_); }
  bool is_true() const { return std::holds_alternative<bool>(value_) && std::get<bool>(value_); }

  // REQUIRES: the value has that type.
  const std::string& text() const { return std::get<std::string>(value_); }
  std::int64_t integer() const { return std::get<std::int64_t>(value_); }
  double number() const { return std::get<double>(value_); }
  const std::vector<Member>& members() const { return std::get<Object>(value_); }

  // Of an object, or of null, which becomes one. A member that is missing is added as null.
  Json& operator[](std::string_view name);
  // Of an object; null if the member is missing.
  const Json& operator[](std::string_view name) const;
  bool contains(std::string_view name) const;

  // Of an array.
  void push_back(Json element) { std::get<Array>(value_).push_back(std::move(element)); }
  auto begin() const { return std::get<Array>(value_).begin(); }
  auto end() const { return std::get<Array>(value_).end(); }
  const Json& back() const { return std::get<Array>(value_).back(); }

  // Of an object or an array: whether it has no members or elements.
  bool empty() const;

  friend bool operator==(const Json& value, const char* text) {
    return value.is_text() && value.text() == text;
  }

  // On one line, or on several, indented. Bytes that are not UTF-8 are replaced.
  std::string dump() const;
  std::string dump_indented() const;

 private:
  using Array = std::vector<Json>;
  using Object = std::vector<Member>;
  using Value =
      std::variant<std::monostate, bool, std::int64_t, double, std::string, Array, Object>;
  struct Library;  // conversion to and from the library's values

  Value value_;
};

}  // namespace relay
