// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <vector>

#include "relay/base/clock.h"
#include "relay/kafka/handle.h"

namespace relay::kafka {

enum class ConfigOf { topic, broker };

// Effective configuration of a topic, or of the broker with this id.
//   absent    the user may not describe it.
//   topic     it does not exist.
//   kafka     not reachable.
//   refused   the broker is too old to describe anything, and to do transactions.
Result<std::map<std::string, std::string>> describe_config(rd_kafka_t* client, ConfigOf kind,
                                                           const std::string& name,
                                                           Deadline deadline);

// Creates the progress topic as the protocol needs it: one partition, compacted, never deleted by
// time. Returns when a broker shows it. A request that fails is repeated until the deadline.
//   true: created; false: it was there.
Result<bool> create_progress_topic(const Options& options, Deadline deadline);

}  // namespace relay::kafka
