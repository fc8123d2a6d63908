// SPDX-License-Identifier: Apache-2.0
// Owning types for the objects of librdkafka. A Client must outlive its queues and messages.
#pragma once

#include <librdkafka/rdkafka.h>

#include "common/owned.h"

namespace outbox::consumer {

using Conf = common::Owned<rd_kafka_conf_t, rd_kafka_conf_destroy>;
using Client = common::Owned<rd_kafka_t, rd_kafka_destroy>;
using Queue = common::Owned<rd_kafka_queue_t, rd_kafka_queue_destroy>;
using Message = common::Owned<rd_kafka_message_t, rd_kafka_message_destroy>;
using Partitions =
    common::Owned<rd_kafka_topic_partition_list_t, rd_kafka_topic_partition_list_destroy>;
using KafkaError = common::Owned<rd_kafka_error_t, rd_kafka_error_destroy>;

}  // namespace outbox::consumer
