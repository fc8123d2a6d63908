// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "relay/core/message.h"

namespace outbox {

// Whether applications may not set this header: dedup-key, sent-at, outbox-* and effect-* are the relay's and the ledger's.
bool reserved_header(std::string_view name);

// Decodes the JSON text of outbox.message.headers into page.headers and sets the range, or the reason why it cannot be
// sent, in `message`.
void decode_headers(std::string_view json, Message& message, Page& page);

}  // namespace outbox
