// SPDX-License-Identifier: Apache-2.0
// Decisions about parked messages, as far as the relay sees to them beside the stream: which of them can be carried out, and the
// one that it takes itself, about topics that were missing.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "relay/postgres/options.h"
#include "relay/postgres/session.h"

namespace outbox::postgres {

// Of these topics, those that exist and may be described. Used by the thread of PgUpkeep.
using TopicsThatExist = std::function<Result<std::vector<std::string>>(const std::vector<std::string>&)>;

// Whether a release would find something, which spares the stream to try.
Result<bool> any_releasable(Control& control, const Options& options);

// Topics for which messages are parked because they are missing, without a decision; at most `topics_max`.
Result<std::vector<std::string>> missing_topics(Control& control, std::int64_t topics_max);

// Decides that messages parked because `topic` was missing are released, at most `rows` of them; returns how many. Those that
// somebody else is changing are left out: the row of the lease is held meanwhile. `epoch` and options.holder must hold the lease,
// or nothing is done.
Result<std::int64_t> release_found_topic(Control& control, const Options& options, std::int64_t epoch, const std::string& topic,
                                         std::int64_t rows);

}  // namespace outbox::postgres
