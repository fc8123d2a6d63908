// SPDX-License-Identifier: Apache-2.0
#include "relay/config/dsn.h"

#include <libpq-fe.h>

#include <algorithm>
#include <memory>

namespace relay::config {
namespace {

using Parsed = std::unique_ptr<PQconninfoOption, decltype(&PQconninfoFree)>;

Parsed parse(const std::string& dsn) {
  char* message = nullptr;
  Parsed parsed(PQconninfoParse(dsn.c_str(), &message), &PQconninfoFree);
  PQfreemem(message);
  return parsed;
}

}  // namespace

Result<void> check_dsn(std::string_view dsn) {
  // Between keywords, libpq takes a line break for a space; in a URI, for a part of the value.
  const bool uri = dsn.starts_with("postgresql://") || dsn.starts_with("postgres://");
  const auto is_control = [](unsigned char c) { return c < ' ' || c == '\x7f'; };
  if (uri && std::any_of(dsn.begin(), dsn.end(), is_control)) {
    return Error{Fault::usage, "is a URI that contains a line break or another control character",
                 "remove it; files and secrets often end with a line break. What is part of a "
                 "password is written as %0A."};
  }
  if (!dsn.empty() && parse(std::string(dsn))) return {};
  return Error{Fault::usage, "is not a connection string or URI of libpq",
               "write \"host=db1 dbname=shop user=relay\" or \"postgresql://relay@db1/shop\"; "
               "quote values with spaces in "
               "single quotes."};
}

bool has_password(const std::string& dsn) {
  const Parsed parsed = parse(dsn);
  for (const PQconninfoOption* option = parsed.get();
       option != nullptr && option->keyword != nullptr; ++option) {
    // "*" marks what psql would not echo: password, sslpassword, and whatever newer versions add.
    const bool hidden = option->dispchar != nullptr && std::string_view(option->dispchar) == "*";
    if (hidden && option->val != nullptr && option->val[0] != '\0') return true;
  }
  return false;
}

}  // namespace relay::config
