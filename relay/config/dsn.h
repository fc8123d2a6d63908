// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "relay/base/error.h"

namespace relay::config {

// An error if libpq cannot parse `dsn`. The message of libpq is not passed on: it quotes parts of
// the string, which contain the password if that was not quoted properly.
Result<void> check_dsn(std::string_view dsn);

// Whether `dsn` contains a password of any kind. REQUIRES: check_dsn() accepted it.
bool has_password(const std::string& dsn);

}  // namespace relay::config
