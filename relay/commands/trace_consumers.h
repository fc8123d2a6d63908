// SPDX-License-Identifier: Apache-2.0
// Gathering for `trace`: what the consumers did with a message, from their database.
#pragma once

#include <memory>

#include "relay/commands/context.h"
#include "relay/commands/json.h"

namespace relay {

// The inbox and the effect ledger, as far as they exist and may be read.
class TraceConsumers {
 public:
  static Result<TraceConsumers> open(const Config& config);

  // Adds "consumed" and "effects" for the deduplication key of the message; they stay null where a
  // schema does not exist or may not be read.
  Result<void> add_to(Json& j) const;

 private:
  explicit TraceConsumers(std::unique_ptr<postgres::PqxxSession> control)
      : control_(std::move(control)) {}

  std::unique_ptr<postgres::PqxxSession> control_;
  bool inbox_ = false;
  bool effect_ = false;
};

}  // namespace relay
