// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string>

#include "relay/base/secret.h"
#include "relay/core/mode.h"
#include "relay/postgres/pooler.h"

namespace relay::postgres {

// The text of an interval of PostgreSQL.
inline std::string interval_text(std::chrono::milliseconds t) {
  return std::to_string(t.count()) + " ms";
}

// What the sessions of one relay need to know.
struct Options {
  Secret dsn;       // may contain a password
  Secret password;  // empty: none, or found by libpq
  Pooler pooler = Pooler::none;
  std::string relay;   // name of the relay
  std::string holder;  // this process, in outbox.lease.holder
  Mode mode = Mode::exactly_once;
  std::chrono::milliseconds lease_ttl{5000};
  std::int64_t batch_messages_max = 20'000;
  std::int64_t batch_bytes_max = 8 << 20;
  std::int64_t message_bytes_max = 1 << 20;
  KeyOrder order = KeyOrder::key;
  bool allow_unverified_server = false;

  // Of one statement of the holder of the lease, beside the hot path: after three times the lease
  // it could not act on the answer.
  std::chrono::milliseconds statement_limit() const {
    return std::max<std::chrono::milliseconds>(3 * lease_ttl, std::chrono::seconds(10));
  }
};

}  // namespace relay::postgres
