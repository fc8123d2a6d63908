// SPDX-License-Identifier: Apache-2.0
// Validates ConsumerOptions and builds the configuration of the Kafka client.
//
// make_conf() applies, in this order: our defaults, the user's properties, the properties that the
// exactly-once guarantee depends on. Errors never contain the value of a property: it may be a
// secret. Pure functions; they connect to nothing.
#pragma once

#include "client/consumer/handle.h"
#include "outbox/consumer.h"

namespace outbox::consumer {

// Throws ConsumerSetupError, listing every option that is missing or out of range.
void check_options(const ConsumerOptions& options);

// Throws ConsumerSetupError for a property that the consumer owns or librdkafka rejects.
Conf make_conf(const ConsumerOptions& options);

}  // namespace outbox::consumer
