// SPDX-License-Identifier: Apache-2.0
// The output of commands: JSON for programs, lines for operators.
#pragma once

#include <pqxx/pqxx>
#include <string>

#include "relay/base/error.h"
#include "relay/commands/json.h"

namespace relay {

// The beginning of every JSON answer: {"schema": 1}.
Json json_answer();

// Prints `answer` and a newline to standard output.
void print_json(const Json& answer, bool one_line = false);

// SQL for the timestamptz `column` as text, in UTC by ISO 8601 (with " BC" before the year 1);
// infinity and -infinity are those words, null stays null.
std::string utc(const std::string& column);

// The value as text or number, or null.
Json text_or_null(const pqxx::field& field);
Json integer_or_null(const pqxx::field& field);
Json number_or_null(const pqxx::field& field);

// The value for an operator, "-" for null; control characters are escaped.
std::string shown(const pqxx::field& field);
std::string shown(const Json& value);

// Prints "  label       value", the line format of one object.
void print_field(const char* label, const std::string& value);

// Adds `name` as text if the bytes are UTF-8, otherwise as hexadecimal digits; `name`_encoding says
// which.
void add_bytes(Json& j, const std::string& name, const pqxx::field& hex);
// What add_bytes() added, for an operator.
std::string shown_bytes(const Json& j, const std::string& name);

// A duration in seconds for an operator: "12 s", "3 min", "5.2 h".
std::string shown_seconds(double seconds);

// The same error; if a privilege is missing, with the hint for an operator's login.
Error for_operator(Error error, const char* role);

}  // namespace relay
