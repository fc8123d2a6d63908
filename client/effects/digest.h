// SPDX-License-Identifier: Apache-2.0
// Digests and Base64, for checksums and Message-IDs. Pure functions over OpenSSL; they never throw
// for bad data.
#pragma once

#include <string>
#include <string_view>

namespace outbox::effects {

// Digests as bytes; empty if the configuration of OpenSSL forbids the algorithm, as FIPS does MD5.
std::string sha256(std::string_view bytes);
std::string md5(std::string_view bytes);

std::string base64(std::string_view bytes);

}  // namespace outbox::effects
