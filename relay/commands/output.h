// SPDX-License-Identifier: Apache-2.0
// How commands print what they found: JSON for programs, lines for people.
#pragma once

#include <nlohmann/json.hpp>
#include <pqxx/pqxx>
#include <string>

#include "relay/base/error.h"

namespace outbox {

using Json = nlohmann::ordered_json;

// The beginning of every JSON answer: {"schema": 1}.
Json json_answer();

// Prints `answer` and a newline to standard output. Bytes that are no UTF-8 are replaced.
void print_json(const Json& answer, bool one_line = false);

// SQL that gives the timestamptz `column` as text, in UTC by ISO 8601; null stays null.
std::string utc(const std::string& column);

// The value as text or number, or null.
Json text_or_null(const pqxx::field& field);
Json integer_or_null(const pqxx::field& field);
Json number_or_null(const pqxx::field& field);

// The value for a person, "-" for null; what could confuse a terminal is escaped.
std::string shown(const pqxx::field& field);

// Adds `name` as text where the bytes are UTF-8, otherwise as hexadecimal digits; `name`_encoding tells which.
void add_bytes(Json& j, const std::string& name, const pqxx::field& hex);
// What add_bytes() added, for a person.
std::string shown_bytes(const Json& j, const std::string& name);

// What a person reads of a duration in seconds: "12 s", "3 min", "5.2 h".
std::string shown_seconds(double seconds);

// The same error, but where a right is missing, with the remedy for a person's login instead of the relay's.
Error for_person(Error error, const char* role);

}  // namespace outbox
