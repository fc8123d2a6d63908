// SPDX-License-Identifier: Apache-2.0
// Messages as they are read, and the page that owns their bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "relay/base/uuid.h"
#include "relay/core/snapshot.h"

namespace relay {

// Where the relay stands in the stream of messages; see docs/protocol.md: base, upto and after_seq
// decide which rows are next.
struct Cursor {
  Snapshot base;
  std::optional<Snapshot> upto =
      {};  // nullopt: the difference is exhausted, the next begins at base
  std::optional<std::int64_t> fresh_from = {};  // see PageBounds
  std::int64_t after_seq = 0;
};

// Which rows of which difference a page holds. The journal keeps it for each batch, so that the
// same rows can be read again.
struct PageBounds {
  Snapshot base;
  Snapshot upto;
  std::optional<std::int64_t> fresh_from =
      {};  // where fresh rows begin in seq; nullopt: few, found by transaction id
  std::int64_t after_seq = 0;  // the rows have a seq above this one
  std::int64_t upto_seq = 0;   // and up to this one
  bool exhausted = false;      // no row of the difference lies behind them

  // The cursor behind these rows.
  Cursor next() const {
    if (exhausted) return {.base = upto};
    return {.base = base, .upto = upto, .fresh_from = fresh_from, .after_seq = upto_seq};
  }
};

// One header of a message, as views into its page.
struct Header {
  std::string_view name;
  std::string_view value;
};

// One row of outbox.message. All views point into the page that holds the message.
struct Message {
  std::int64_t seq = 0;
  Uuid id;
  std::string_view topic;
  std::optional<std::string_view> key;
  std::optional<std::string_view> payload;  // nullopt: tombstone, or `oversize`
  std::optional<std::string_view> dedup_key;
  std::int64_t payload_bytes = 0;
  bool oversize = false;           // the payload was left in the database
  std::uint32_t headers_from = 0;  // its headers are page.headers()[headers_from, headers_to)
  std::uint32_t headers_to = 0;
  const char* bad_headers = nullptr;  // why `headers` cannot be sent; nullptr: they can
};

// Memory that a page keeps alive, each piece with the function that frees it.
using OwnedBytes = std::unique_ptr<char, void (*)(void*)>;

// A run of messages of one difference, ascending in seq.
//
// Owns every byte its messages point at; the producer sends from there, so a page lives until its
// batch is confirmed.
struct Page {
  PageBounds bounds = {};
  std::int64_t bytes = 0;
  std::vector<Message> messages = {};
  std::vector<Header> headers = {};
  std::vector<OwnedBytes> owned = {};
};

}  // namespace relay
