// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "relay/base/clock.h"
#include "relay/kafka/handle.h"

namespace relay::kafka {

// Asks the cluster again and again whether topics exist that were missing. Keeps its connection
// while there is something to ask, and renews it from time to time: librdkafka remembers each topic
// that was asked about as long as a client lives. Used by the thread of PgMaintenance.
class TopicLookup {
 public:
  // REQUIRES: `options` outlives this.
  explicit TopicLookup(const Options& options) : options_(options) {}

  // Of `topics`, those that exist and that the user may describe. Creates none, whatever the
  // brokers allow.
  //   kafka   not reachable: nothing is known.
  Result<std::vector<std::string>> existing(const std::vector<std::string>& topics,
                                            Deadline deadline);

 private:
  Result<std::vector<std::string>> ask(const std::vector<std::string>& topics, Deadline deadline);

  const Options& options_;
  std::optional<Client> client_;
  Clock::time_point made_at_{};
};

}  // namespace relay::kafka
