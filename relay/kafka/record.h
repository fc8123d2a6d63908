// SPDX-License-Identifier: Apache-2.0
// What the relay hands to librdkafka: the configuration of its producer, and its records.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "relay/core/message.h"
#include "relay/core/ports.h"
#include "relay/kafka/handle.h"
#include "relay/kafka/topic.h"

namespace relay::kafka {

// How record batches are limited beside their usual size.
struct RecordBatchLimits {
  std::size_t messages_max = 0;  // 0: no limit
  std::optional<std::int64_t> bytes_max;
};

Result<Conf> producer_conf(const Options& options, Mode mode, const RecordBatchLimits& limits);

// Hands over the record of a message, without a copy of its key and value: the page must live until
// its delivery report has come, which carries `index`. `partition` can be RD_KAFKA_PARTITION_UA.
rd_kafka_resp_err_t produce(rd_kafka_t* client, const Topic& topic, const Page& page,
                            std::size_t index, std::int32_t partition, std::int64_t timestamp_ms);

rd_kafka_resp_err_t produce_progress(rd_kafka_t* client, rd_kafka_topic_t* topic,
                                     const std::string& relay, const Progress& progress);

}  // namespace relay::kafka
