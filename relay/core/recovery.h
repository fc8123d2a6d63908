// SPDX-License-Identifier: Apache-2.0
// What became of the newest batch? Decided from what PostgreSQL and Kafka remember, by one table.
#pragma once

#include <optional>

#include "relay/core/ports.h"

namespace relay {

// What is known at step 5 of recovery, after older producers were fenced.
struct Evidence {
  Identity here;
  std::optional<Batch> newest;        // of the journal
  std::optional<Predecessor> before;  // the batch before it
  bool newest_is_ours = false;        // this very process confirmed it
  std::optional<Progress> progress;   // newest committed record
  bool progress_known = false;        // its token is in the journal
  bool confirmed_since_take =
      false;                      // we confirmed a batch since we took the lease, without a break
  bool progress_is_ours = false;  // this very process confirmed the batch of that record

  // The newest batch may have been delivered, or not.
  bool in_doubt() const { return newest && !newest->delivered; }
};

struct Verdict {
  enum class Action {
    go_on,   // nothing is in doubt
    mark,    // the newest batch was delivered: say so in the journal
    resend,  // it was not, or nobody can know: send exactly the same rows again under the same
             // token
    refuse,  // see `refusal`
  };
  enum class Note {
    nothing_unusual,
    progress_lost,       // Kafka has an older record than the journal, or none
    database_went_back,  // Kafka has a record that the journal does not know
  };
  Action action;
  Note note = Note::nothing_unusual;
  std::optional<Error> refusal = {};
};

// Steps 1 and 5: whether a record of another database, or of a newer timeline, forbids to go on.
// `any_batch`: the journal here has one, so that this may be a copy of that database.
std::optional<Error> foreign(const Identity& here, const std::optional<Progress>& progress,
                             bool any_batch);

Verdict decide(const Evidence& evidence);

// Why a batch in doubt cannot be recovered when its progress records are lost and nothing may
// repeat.
Error undecidable(const Batch& batch);

// Logs what is unusual about it.
void log_note(const Evidence& evidence, const Verdict& verdict);
// Logs what became of the batch in doubt. REQUIRES: in_doubt().
void log_recovered(const Evidence& evidence, const Verdict& verdict);

}  // namespace relay
