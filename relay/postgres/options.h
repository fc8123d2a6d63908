// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "relay/base/secret.h"
#include "relay/core/mode.h"

namespace outbox::postgres {

// What the sessions of one relay need to know.
struct Options {
  Secret dsn;          // may contain a password
  Secret password;     // empty: none, or found by libpq
  std::string relay;   // name of the relay
  std::string holder;  // this process, in outbox.lease.holder
  Mode mode = Mode::exactly_once;
  std::chrono::milliseconds lease_ttl{5000};
  std::int64_t batch_messages_max = 20'000;
  std::int64_t batch_bytes_max = 8 << 20;
  std::int64_t message_bytes_max = 1 << 20;
  bool allow_unguarded = false;
};

}  // namespace outbox::postgres
