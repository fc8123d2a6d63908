// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "relay/core/message.h"

namespace relay {

// Decodes the JSON text of outbox.message.headers into page.headers and sets the range, or the
// reason why it cannot be sent, in `message`.
void decode_headers(std::string_view json, Message& message, Page& page);

}  // namespace relay
