// SPDX-License-Identifier: Apache-2.0
// The SQL by which the reader looks for messages. All of it is built from snapshots and numbers:
// nothing needs quoting.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "relay/core/message.h"
#include "relay/core/snapshot.h"

namespace relay::postgres {

// Which rows of a difference to read: those behind bounds.after_seq, at most `limit`.
struct PageQuery {
  PageBounds bounds = {};
  bool ends = false;                                    // a re-read: no row above bounds.upto_seq
  std::optional<std::int64_t> without_parked_for = {};  // a re-read leaves these out
  std::int64_t limit = 0;
  std::optional<std::int64_t> bytes_max =
      {};  // let the server stop at this many bytes: for large or unknown sizes
  std::int64_t message_bytes_max = 0;
  bool headers_counted =
      true;  // among bytes_max, for which the server prints those of `limit` rows
};

// Takes the next snapshot. Touches no table: what an empty poll costs depends on nothing that
// anybody keeps or holds open.
inline constexpr const char* poll_sql = "select pg_current_snapshot()::text";

// How many fresh rows there are, counting no further than `limit` + 1. Rows of running transactions
// are not looked at: an open one may have written any number. REQUIRES: transactions were begun
// since base and are finished in upto.
std::string count_fresh_sql(const Snapshot& base, const Snapshot& upto, std::int64_t limit);

// Smallest seq of the fresh rows less one, by an index-only scan of (txid, seq).
std::string fresh_from_sql(const Snapshot& base, const Snapshot& upto);

// The rows of the page, ordered by seq, without a bound on bytes: seq, id, topic, key, payload,
// headers and dedup_key.
std::string rows_sql(const PageQuery& query);

// The page, ordered by seq, as COPY … TO STDOUT (FORMAT binary), behind the same lock.
std::string page_sql(const PageQuery& query);

// The messages of a release batch as they are sent, without those that were parked for it again, in
// no order: all columns of outbox.message.
std::string released_rows_sql(std::int64_t batch);

// Reads the messages of a release batch, in order.
std::string release_sql(std::int64_t batch, std::int64_t message_bytes_max);

}  // namespace relay::postgres
