// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "relay/postgres/options.h"
#include "relay/postgres/pace.h"
#include "relay/postgres/pqxx_session.h"

namespace relay::postgres {

// Moves scheduled messages that are due into outbox.message, page by page in the order of their
// times. Used by the thread of PgMaintenance.
//
// Moved rows stay in the index as long as anybody has an old snapshot open. Each look therefore
// begins behind the last message that was moved; what was committed late, with an earlier time, is
// found by looks that begin some seconds before it, and at the very beginning. These are done as
// often as their duration allows.
class Scheduler {
 public:
  explicit Scheduler(const Options& options) : options_(options) {}
  // A session begins: the first look begins at the beginning.
  void start();
  // Moves a page of at most `rows`; returns how many. `epoch` and options.holder must hold the
  // lease, or none is moved. Rows that somebody else has locked are left out.
  Result<std::int64_t> move(PqxxSession& control, std::int64_t epoch, std::int64_t rows);
  // Whether the page was full: there may be more.
  bool more() const { return more_; }

 private:
  // A look begins behind this message, or at the first one not earlier than `less` before it.
  struct Place {
    std::string deliver_at = "-infinity";
    std::string less = "0";
    std::int64_t seq = 0;
  };
  Result<std::int64_t> move_behind(const Place& place, PqxxSession& control, std::int64_t epoch,
                                   std::int64_t rows);

  const Options& options_;
  Place last_;
  bool more_ = false;
  Pace near_{20, Millis{0}, Millis{10'000}};
  Pace whole_{200, Millis{0}, Millis{60'000}};
};

}  // namespace relay::postgres
