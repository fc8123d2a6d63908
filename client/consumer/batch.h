// SPDX-License-Identifier: Apache-2.0
// A batch of Kafka records, with the memory that they point into.
//
// RecordSource fills a batch; BatchProcessor processes it. For each record, add()
//   1. sets position, key and payload, as views into librdkafka's message,
//   2. reads the headers, the deduplication key and the time,
//   3. notes why the record cannot be accepted, if it cannot. It never throws for bad data.
// Used by the thread of run().
#pragma once

#include <string>
#include <vector>

#include "client/consumer/handle.h"
#include "client/consumer/offsets.h"
#include "outbox/record.h"

namespace outbox::consumer {

// Records in Kafka's order within each partition. The first three vectors have equal length.
struct Batch {
  std::vector<Message> messages;
  std::vector<Record> records;
  // For each record, why it cannot be accepted (no valid deduplication key or time); empty: it can.
  std::vector<std::string> faults;

  // Ends of partitions that were reached behind these records.
  std::vector<PartitionEnd> ends;

  bool empty() const { return records.empty(); }
  // REQUIRES: `message` is a record, not an error.
  void add(Message message);
};

}  // namespace outbox::consumer
