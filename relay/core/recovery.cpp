// SPDX-License-Identifier: Apache-2.0
#include "relay/core/recovery.h"

#include "relay/base/log.h"
#include "relay/base/mutants.h"

namespace relay {
namespace {

using Action = Verdict::Action;
using Note = Verdict::Note;

// A batch is recovered as the mode says in which it was opened: at-least-once has no token in Kafka
// to look up, only what this process itself saw acknowledged.
Action of_doubt(const Evidence& e, bool kafka_has_it) {
  const bool delivered = e.newest->mode == Mode::exactly_once ? kafka_has_it : e.newest_is_ours;
  return delivered ? Action::mark : Action::resend;
}

Verdict delivered(const Evidence& e) {
  return {e.newest->delivered ? Action::go_on : of_doubt(e, true)};
}

// `before` says that Kafka has the record of the batch before the newest. At-least-once a record is
// no part of its batch: its producer can end before it is written, so that nothing is lost if it is
// missing.
Verdict not_delivered(const Evidence& e, bool before) {
  const auto missing = [](Mode mode) {
    return mode == Mode::exactly_once ? Note::progress_lost : Note::nothing_unusual;
  };
  if (e.newest->delivered) return {Action::go_on, missing(e.newest->mode)};
  return {of_doubt(e, false),
          before || !e.before ? Note::nothing_unusual : missing(e.before->mode)};
}

}  // namespace

std::optional<Error> foreign(const Identity& here, const std::optional<Progress>& progress,
                             bool any_batch) {
  if (!progress) return std::nullopt;
  const Identity there = progress->identity;
  const auto differ = [](std::int64_t a, std::int64_t b) { return a != 0 && b != 0 && a != b; };
  const bool other_cluster = differ(there.cluster, here.cluster);
  if (other_cluster || differ(there.database, here.database)) {
    const std::string hint = "set relay.name to a name that no other database uses";
    return Error{
        Fault::refused,
        "the relay name belongs to another database: the progress record in Kafka was written " +
            (other_cluster
                 ? "from the database cluster " + std::to_string(there.cluster) + ", this one is " +
                       std::to_string(here.cluster)
                 : "from the database with the object id " + std::to_string(there.database) +
                       " of this cluster, this one has " + std::to_string(here.database)),
        any_batch ? hint +
                        "; if this is a copy that takes the place of that database, stop the "
                        "relay of that database and run `outbox-relay adopt`"
                  : hint};
  }
  if (here.timeline != 0 && there.timeline > here.timeline && !MUTANT(no_timeline_fence)) {
    return Error{Fault::refused,
                 "the progress record in Kafka was written on timeline " +
                     std::to_string(there.timeline) + ", this server is on " +
                     std::to_string(here.timeline) + ": it is no longer the primary",
                 "point postgres.dsn at the server that was promoted"};
  }
  return std::nullopt;
}

Verdict decide(const Evidence& e) {
  if (auto error = foreign(e.here, e.progress, e.newest.has_value()))
    return {Action::refuse, Note::nothing_unusual, std::move(error)};
  if (e.progress && e.progress->number == 0) {  // the claim is of no batch
    Evidence of_batches = e;
    of_batches.progress.reset();
    return decide(of_batches);
  }
  if (!e.newest && !e.progress) return {Action::go_on};
  if (MUTANT(no_token_check) && e.newest) return not_delivered(e, true);

  if (MUTANT(number_is_token) && e.newest && e.progress && e.progress->number == e.newest->number)
    return delivered(e);
  if (e.newest && e.progress && e.progress->token == e.newest->token) return delivered(e);
  if (e.newest) {
    const bool at_previous =
        e.progress ? e.before && e.progress->token == e.before->token : !e.before;
    if (at_previous || !e.progress || e.progress_known) return not_delivered(e, at_previous);
  }
  // A record of an older timeline is of this database, before the fail-over that lost what it
  // records.
  const bool before_fail_over = e.here.timeline != 0 && e.progress->identity.timeline != 0 &&
                                e.progress->identity.timeline < e.here.timeline;
  if (e.confirmed_since_take && !e.progress_is_ours && !before_fail_over) {
    return {Action::refuse, Note::nothing_unusual,
            Error{Fault::refused,
                  "another relay writes progress records under our name, from another database",
                  "give each database a relay.name of its own"}};
  }
  if (!e.newest || e.newest->delivered) return {Action::go_on, Note::database_went_back};
  return {of_doubt(e, e.progress->previous == e.newest->token), Note::database_went_back};
}

Error undecidable(const Batch& batch) {
  return {Fault::refused,
          "Kafka lost the progress record that would decide about batch " +
              std::to_string(batch.number),
          "delivery.on_lost_progress = \"resend\" sends it again; some of its messages may then be "
          "repeated"};
}

void log_note(const Evidence& e, const Verdict& verdict) {
  const auto batch = e.newest ? e.newest->number : 0;
  if (verdict.note == Note::progress_lost) {
    log::event(log::Level::error, "progress_lost",
               {{"journal_batch", batch},
                {"kafka_batch", e.progress ? e.progress->number : 0},
                {"in_doubt", e.in_doubt()}});
  }
  if (verdict.note == Note::database_went_back) {
    log::event(log::Level::error, "database_went_back",
               {{"journal_batch", batch},
                {"kafka_batch", e.progress->number},
                {"kafka_epoch", e.progress->epoch},
                {"kafka_token", e.progress->token.text()}});
  }
}

void log_recovered(const Evidence& e, const Verdict& verdict) {
  log::event(log::Level::info, "batch_recovered",
             {{"batch", e.newest->number},
              {"messages", e.newest->messages},
              {"found", verdict.action == Action::mark ? "delivered" : "not_delivered"}});
}

}  // namespace relay
