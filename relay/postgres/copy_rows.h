// SPDX-License-Identifier: Apache-2.0
// PostgreSQL's binary COPY format, row by row, decoded where it lies in libpq's buffers.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "relay/base/error.h"
#include "relay/core/message.h"

namespace relay::postgres {

// The columns that the reader selects, in the order in which decode_row() expects them.
// `message_bytes_max` is the size above which a payload stays in the database.
std::string copied_columns(std::int64_t message_bytes_max);

// Bytes of a row beside its values of variable length: counts of columns and lengths, seq and id.
inline constexpr int copied_row_overhead = 2 + 8 * 4 + 8 + 16;

// Decodes one CopyData message. The views of the result point into `data`, which the caller keeps
// alive.
//   nullopt   the trailer, or the header of an empty COPY: no row.
//   refused   bytes that no server sends.
Result<std::optional<Message>> decode_row(std::string_view data, Page& page);

}  // namespace relay::postgres
