// SPDX-License-Identifier: Apache-2.0
// The configuration of the Kafka client, and which part of it a user may set.
#pragma once

#include "client/consumer/handle.h"
#include "outbox/consumer.h"

namespace outbox::consumer {

// Throws ConsumerSetupError, with all that is wrong in it, if an option is missing or out of range.
void check_options(const ConsumerOptions& options);

// Throws ConsumerSetupError for a property that the protocol owns, or that librdkafka does not take.
Conf make_conf(const ConsumerOptions& options);

}  // namespace outbox::consumer
