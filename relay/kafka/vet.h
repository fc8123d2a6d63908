// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "relay/core/ports.h"
#include "relay/kafka/handle.h"
#include "relay/kafka/topics.h"

namespace outbox::kafka {

// What of a page can be known not to be sendable; see Publisher::vet(). Looks up topics that are not known yet.
//   kafka   the cluster did not answer: nothing is known.
Result<Publisher::Vetted> vet(const Page& page, Topics& topics, rd_kafka_t* client, const Options& options);

}  // namespace outbox::kafka
