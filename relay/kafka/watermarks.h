// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "relay/base/clock.h"
#include "relay/kafka/handle.h"

namespace relay::kafka {

// What a partition holds, as a client with this one's isolation level sees it.
struct Watermarks {
  std::int64_t low;  // of the first record
  std::int64_t end;  // behind the last one
};

// Asks the partition's leader.
//   kafka   no answer before the deadline, or an error: also of a topic that is gone, since it was
//   there a moment ago.
//
// Not by rd_kafka_query_watermark_offsets(): before librdkafka 2.3 that waits without end for a
// leader that is away.
Result<Watermarks> query_watermarks(rd_kafka_t* client, const std::string& topic,
                                    std::int32_t partition, const std::string& doing,
                                    Deadline deadline);

}  // namespace relay::kafka
