// SPDX-License-Identifier: Apache-2.0
// The statements of the relay that do not vary: sql/relay/NAME.sql, embedded at build time. Each
// file says what it does and what its parameters are.
#pragma once

namespace relay::postgres::sql {

extern const char* const any_releasable;
extern const char* const batch_columns;
extern const char* const blocked_keys;
extern const char* const check_position;
extern const char* const check_rights;
extern const char* const count_prunable;
extern const char* const fence;
extern const char* const find_due;
extern const char* const find_horizon;
extern const char* const find_prunable;
extern const char* const horizon;
extern const char* const look_at_lease;
extern const char* const mark_delivered;
extern const char* const missing_topics;
extern const char* const move_due;
extern const char* const newest_batch;
extern const char* const open_release;
extern const char* const prune_batches;
extern const char* const prune_messages;
extern const char* const prune_released;
extern const char* const release_found_topic;
extern const char* const release_too_old;
extern const char* const renew_lease;
extern const char* const resign_lease;
extern const char* const take_lease;
extern const char* const topics_with_blocked_keys;
extern const char* const unneeded_batch;
extern const char* const working_backend;

}  // namespace relay::postgres::sql
