// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "client/consumer/handle.h"
#include "outbox/record.h"

namespace outbox::consumer {

// Records as Kafka gave them, in the order of each partition, with the memory that they lie in.
struct Batch {
  std::vector<Message> messages;
  std::vector<Record> records;
  // Why the record cannot be accepted, for each: it has no usable deduplication key or time. Empty: it can.
  std::vector<std::string> faults;

  bool empty() const { return records.empty(); }
  // REQUIRES: the message is a record, not an error.
  void add(Message message);
};

}  // namespace outbox::consumer
