// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "relay/base/clock.h"
#include "relay/core/ports.h"
#include "relay/kafka/handle.h"

namespace relay::kafka {

// Which record, and where it can be.
struct RecordQuery {
  std::string topic;
  std::string dedup_key;  // its header dedup-key
  std::int64_t timestamp_ms =
      0;  // its timestamp, or its header sent-at where the topic keeps a time of its own
  // Offsets between which it is, both included.
  std::map<std::int32_t, OffsetRange> within;
  // True: `within` is what the delivery reports said, so other partitions cannot hold it. False:
  // `within` only narrows the search, and partitions that it does not name are read from their
  // first record to their end.
  bool exact = false;
};

// What reading the topic back has shown.
struct RecordLookup {
  enum class Verdict {
    found,
    expired,    // not there, and the topic has removed records from where it can have been
    absent,     // not there, and nothing was removed from the front: never sent, compacted, or the
                // topic was created again
    no_topic,   // the topic does not exist
    undecided,  // not seen in time, or an open transaction hides the end of a partition
  };
  Verdict verdict = Verdict::undecided;
  std::int32_t partition = -1;  // when found
  std::int64_t offset = -1;
};
const char* to_string(RecordLookup::Verdict verdict);

// Reads the topic with read_committed until the record is found or cannot come any more. Uses no
// consumer group and changes nothing in Kafka. Of several copies (at-least-once), one is found.
//   kafka, topic, refused   unreachable, or not authorized to read the topic.
Result<RecordLookup> find_record(const Options& options, const RecordQuery& query,
                                 Deadline deadline);

}  // namespace relay::kafka
