// SPDX-License-Identifier: Apache-2.0
// Adopting a database that was copied, restored or upgraded: its journal speaks of transaction ids
// of another cluster, or of another relay's name. See docs/runbook.md, "Adopting a copy".
#pragma once

#include <optional>
#include <string>

#include "relay/core/ports.h"
#include "relay/postgres/options.h"
#include "relay/postgres/pqxx_session.h"

namespace outbox::postgres {

// How the rows of outbox.message came here.
enum class Lineage {
  physical,  // with their transaction ids (pg_upgrade, a copy of the files): the position of the
             // journal still holds
  logical,   // written anew (dump and restore, logical replication): it does not, and messages are
             // inserted once more
};

// An outbox as it was found. `message` counts are as of the journal: a message that it covers was
// sent.
struct Copy {
  Identity here;
  std::optional<std::int64_t> cluster;  // that the lease names
  std::optional<std::string> relay;     // that the lease names
  std::int64_t epoch = 0;
  Lineage lineage = Lineage::physical;
  bool adopted =
      false;  // journal and database belong together: only the record in Kafka may be foreign
  bool sequence_behind = false;  // it would give numbers again
  std::int64_t newest_seq = 0;   // of all messages, the parked ones included
  std::int64_t delivered = 0;
  std::int64_t pending = 0;            // not covered, since_copy included
  std::int64_t since_copy = 0;         // logical: written here, after own_txid was made
  std::int64_t in_doubt_messages = 0;  // of the batch in doubt, without those parked for it
  std::optional<Batch> newest;         // of the journal
  std::optional<Uuid> token_before;    // of the batch before it

  const Batch* in_doubt() const { return newest && !newest->delivered ? &*newest : nullptr; }
};

// Looks; changes nothing.
//   refused    there is no outbox, or a relay is active.
Result<Copy> inspect_copy(PqxxSession& control, const Options& options);

// What a person says of the batch in doubt.
enum class Settle { resend, delivered };

// Where Kafka's newest record stands: numbers and epochs go on above it.
struct Beyond {
  std::int64_t number = 0;
  std::int64_t epoch = 0;
};

// Makes the outbox this database's and this relay's, in one transaction. Afterwards the newest
// batch of the journal, or if that is to be sent again the one before it, is what the progress
// record in Kafka must say.
//   refused    the outbox is not as `copy` says any more, or a relay is active; nothing was
//   changed.
// REQUIRES: a settlement if there is a batch in doubt.
Result<void> adopt_copy(PqxxSession& control, const Options& options, const Copy& copy,
                        std::optional<Settle> settle, Beyond beyond);

}  // namespace outbox::postgres
