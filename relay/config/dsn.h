// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "relay/base/error.h"

namespace outbox::config {

// An error if libpq cannot read `dsn`. Its own message is not passed on: it quotes pieces of the string, and with a
// password that was not quoted properly such a piece is the password.
Result<void> check_dsn(std::string_view dsn);

// Whether `dsn` carries a password of any kind. REQUIRES: check_dsn() took it.
bool carries_password(const std::string& dsn);

}  // namespace outbox::config
