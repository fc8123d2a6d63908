// SPDX-License-Identifier: Apache-2.0
// Adopting a database that was copied, restored or upgraded: its journal refers to transaction ids
// of another cluster, or to another relay name. See docs/runbook.md, "Adopting a copy".
#pragma once

#include <optional>
#include <string>

#include "relay/core/ports.h"
#include "relay/postgres/options.h"
#include "relay/postgres/pqxx_session.h"

namespace relay::postgres {

// How the rows of outbox.message were copied.
enum class CopyKind {
  physical,  // with their transaction ids (pg_upgrade, a copy of the files): the position of the
             // journal is still valid
  logical,   // as new rows (dump and restore, logical replication): it is not, and messages are
             // inserted again
};

// An outbox as it was found. Messages are counted by the journal: a message that it covers was
// sent.
struct Copy {
  Identity here;
  std::optional<std::int64_t> cluster;  // of the lease
  std::optional<std::string> relay;     // of the lease
  std::int64_t epoch = 0;
  CopyKind kind = CopyKind::physical;
  bool adopted = false;  // journal and database match: only the record in Kafka may be foreign
  bool sequence_behind = false;  // it would repeat numbers
  std::int64_t newest_seq = 0;   // of all messages, the parked ones included
  std::int64_t delivered = 0;
  std::int64_t pending = 0;            // not covered, since_copy included
  std::int64_t since_copy = 0;         // logical: written here, after own_txid was made
  std::int64_t in_doubt_messages = 0;  // of the batch in doubt, without those parked for it
  std::optional<Batch> newest;         // of the journal
  std::optional<Uuid> token_before;    // of the batch before it

  const Batch* in_doubt() const { return newest && !newest->delivered ? &*newest : nullptr; }
};

// Reads only.
//   refused    there is no outbox, or a relay is active.
Result<Copy> inspect_copy(PqxxSession& control, const Options& options);

// What the operator decides about the batch in doubt.
enum class OperatorDecision { resend, delivered };

// Number and epoch of the newest record in Kafka: new batches get higher ones.
struct HighWater {
  std::int64_t number = 0;
  std::int64_t epoch = 0;
};

// Assigns the outbox to this database and this relay, in one transaction. Afterwards the progress
// record in Kafka must name the newest batch of the journal or, if that batch is sent again, the
// batch before.
//   refused    the outbox has changed since `copy` was read, or a relay is active; nothing was
//   changed.
// REQUIRES: a decision if there is a batch in doubt.
Result<void> adopt_copy(PqxxSession& control, const Options& options, const Copy& copy,
                        std::optional<OperatorDecision> decision, HighWater high_water);

}  // namespace relay::postgres
