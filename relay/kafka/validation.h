// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "relay/core/ports.h"
#include "relay/kafka/handle.h"
#include "relay/kafka/topic_directory.h"

namespace relay::kafka {

// Returns the messages of `page` that cannot be sent, ordered by index; see Producer::validate().
// Looks up topics that are not known yet, in turns of a second. `age` is that of the time which the
// records will bear.
//   kafka   the cluster did not answer: nothing is known.
Result<Validation> validate(const Page& page, Millis age, TopicDirectory& topics,
                            rd_kafka_t* client, const Options& options);

// How long ago it was, by the clock of this machine; nullopt: no time at all.
Millis age_of(std::optional<Timestamp> stamp);

// The bytes of the message's record, generously.
std::int64_t record_bytes(const Message& m, const Page& page);
// Why a message cannot be sent to a topic that can be written to: its size, by the relay's limit or
// the topic's, or its headers.
//   nullopt   it can.
std::optional<Rejection> message_error(const Message& m, std::size_t index, const Page& page,
                                       const TopicInfo& topic, const Options& options);

}  // namespace relay::kafka
