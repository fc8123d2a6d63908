// SPDX-License-Identifier: Apache-2.0
// The statements of the journal. The one of open_sql() is the protocol's: see docs/protocol.md.
#pragma once

#include <span>
#include <string>

#include "relay/core/ports.h"

namespace relay::postgres {

// Appends a batch; see Journal::open(). Returns when it was opened, and the number of batches
// marked delivered and of rows parked. No row: the lease is not ours, or the session is not what it
// should be.
//
//   fence      the lease is ours
//   durable    and the commit will wait until it is on disk, in the backend that read the page
//   marked     the batch before is delivered
//   parked     messages that cannot be sent
std::string open_sql(bool parks, bool renews);

// Chooses parked messages, and appends a batch of them; see Journal::open_release(). Returns the
// number of batches marked delivered, and the columns of sql/relay/batch_columns.sql. No row: there
// is nothing to release, or the lease is not ours.
//
//   fence, durable   as above
//   chosen           the messages that outbox.releasable() names
//   unlocked         if nobody is changing one of them
//   followers        leaders of the next release get their decision
//   released         the others are of this batch
std::string open_release_sql();

// $1 epoch $2 holder $3 number $4 offsets. No row: the lease is not ours, or the batch is marked.
std::string mark_delivered_sql();
// $1 epoch $2 holder $3 number $4 seqs $5 classes $6 texts. Returns whether the lease is ours, and
// the rows parked.
std::string park_sql(const Batch& batch);

// Arrays of PostgreSQL, as literals: of a text of each, of the seq of each.
std::string array_text(std::span<const Rejection> parked, const std::string Rejection::*field);
std::string seq_array(std::span<const Rejection> parked);

}  // namespace relay::postgres
