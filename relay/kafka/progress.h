// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "relay/base/clock.h"
#include "relay/core/ports.h"
#include "relay/kafka/handle.h"

namespace relay::kafka {

// A progress record's value: {"cluster", "timeline", "database", "epoch", "number", "token",
// "previous"}, as JSON.
std::string progress_json(const Progress& progress);
std::optional<Progress> parse_progress(std::string_view json);

// Reads the newest committed progress record of options.relay; of those last written, the newest of
// the newest timeline.
//
// With `to_the_end`, the answer counts only when everything up to the end of the partition, open
// transactions included, has been decided: both the read and the watermarks of a read_committed
// handle stop at the last stable offset.
//   kafka     not reachable, or not decided in time: unknown, ask again.
//   refused   the progress topic is missing, has several partitions, or holds another relay's
//   record.
Result<std::optional<Progress>> read_progress(const Options& options, bool to_the_end,
                                              Deadline deadline, AsyncCloser* closer = nullptr);

// Refuses a progress topic that is not compacted, by its configuration: the newest record would be
// deleted in time.
Result<void> require_compaction(const Options& options,
                                const std::map<std::string, std::string>& topic_config);

// The same for the topic as it is in the cluster. Where nobody answers in time, or the relay may
// not describe the topic, it goes on: that must not stop a relay that can read and write. `check`
// reports it.
Result<void> check_progress_topic(const Options& options, Deadline deadline,
                                  AsyncCloser* closer = nullptr);

}  // namespace relay::kafka
