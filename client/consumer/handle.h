// SPDX-License-Identifier: Apache-2.0
// Owners of librdkafka's objects.
#pragma once

#include <librdkafka/rdkafka.h>

#include "relay/base/owned.h"

namespace outbox::consumer {

using Conf = Owned<rd_kafka_conf_t, rd_kafka_conf_destroy>;
using Client = Owned<rd_kafka_t, rd_kafka_destroy>;
using Queue = Owned<rd_kafka_queue_t, rd_kafka_queue_destroy>;
using Message = Owned<rd_kafka_message_t, rd_kafka_message_destroy>;
using Partitions = Owned<rd_kafka_topic_partition_list_t, rd_kafka_topic_partition_list_destroy>;
using KafkaError = Owned<rd_kafka_error_t, rd_kafka_error_destroy>;

}  // namespace outbox::consumer
