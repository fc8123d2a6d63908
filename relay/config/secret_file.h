// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "relay/base/error.h"
#include "relay/base/secret.h"

namespace relay::config {

// Reads a file that holds one secret and nothing else; one newline at its end is not part of it.
// The path becomes the origin of the secret.
//
// An error (Fault::usage) if the file cannot be read, is not a regular file, is readable or
// writable by every user, is empty, or is longer than 64 KiB. No error quotes the content.
Result<Secret> read_secret_file(const std::string& path);

}  // namespace relay::config
