// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace outbox::effects {

// Digests as bytes; empty where OpenSSL's configuration forbids them, as FIPS does MD5.
std::string sha256(std::string_view bytes);
std::string md5(std::string_view bytes);

std::string base64(std::string_view bytes);

}  // namespace outbox::effects
