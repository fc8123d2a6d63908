// SPDX-License-Identifier: Apache-2.0
// A transactional producer in tests, and what a group has left to read behind it.
#pragma once

#include <librdkafka/rdkafka.h>

#include <cstdint>
#include <string>

#include "common/owned.h"

namespace relay::test {

// Sends records in transactions. Each function returns when the broker has answered, and throws
// std::runtime_error if it refuses.
class TransactionalSender {
 public:
  TransactionalSender(const std::string& brokers, const std::string& transactional_id);

  void begin();
  void commit();
  void abort();
  // One record with this deduplication key. Its time is the present.
  void send(const std::string& dedup_key, const std::string& topic, const std::string& key,
            int partition = 0);

 private:
  outbox::common::Owned<rd_kafka_t, rd_kafka_destroy> client_;
};

// How many offsets of partition 0 the group has not committed. Throws std::runtime_error.
std::int64_t group_lag(const std::string& brokers, const std::string& group,
                       const std::string& topic);

}  // namespace relay::test
