// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

#include "common/backoff.h"
#include "relay/base/clock.h"
#include "relay/base/error.h"

namespace relay {

// Keeps the loop from overloading a dependency that is sick: while there is trouble, one probe at a
// time, with exponential backoff, and one summary a minute in the log. What a probe is, and when
// the trouble is over, the loop knows. Used by the loop's thread.
class Breaker {
 public:
  explicit Breaker(std::uint32_t jitter_seed)
      : backoff_(outbox::common::Backoff::with_jitter(shortest_wait, longest_wait, shortest_wait,
                                                      jitter_seed)) {}

  // Why nothing is done; nullopt: no trouble.
  const std::optional<Error>& trouble() const { return trouble_; }
  // False: the trouble that there was goes on.
  bool trip(const Error& error, Clock::time_point now);
  // The trouble is over for now; should it come back, the waits between probes are as long as they
  // were.
  void close() { trouble_.reset(); }
  // It is over for good.
  void reset();

  // How long to wait until the next probe; zero: now, and it counts as made.
  Clock::duration before_probe(Clock::time_point now);

 private:
  static constexpr Millis shortest_wait{50};
  static constexpr Millis longest_wait{1'000};

  std::optional<Error> trouble_;
  Clock::time_point probe_at_{};
  Clock::time_point summary_at_{};
  std::int64_t probes_ = 0;
  outbox::common::Backoff backoff_;
};

}  // namespace relay
