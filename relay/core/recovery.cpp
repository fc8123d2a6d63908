// SPDX-License-Identifier: Apache-2.0
#include "relay/core/recovery.h"

#include "relay/base/sabotage.h"

namespace outbox {
namespace {

using Action = Verdict::Action;
using Finding = Verdict::Finding;

// A batch is recovered as the mode says in which it was opened: at-least-once has no token to believe.
Verdict delivered(const Batch& newest) {
  if (newest.delivered) return {Action::go_on};
  return {newest.mode == Mode::exactly_once ? Action::mark : Action::resend};
}

Verdict not_delivered(const Batch& newest, Finding finding) {
  if (!newest.delivered) return {Action::resend, finding};
  // At-least-once does not wait for its progress record before it goes on.
  return {Action::go_on, newest.mode == Mode::exactly_once ? Finding::progress_lost : Finding::nothing_unusual};
}

}  // namespace

std::optional<Error> foreign(const Identity& here, const std::optional<Progress>& progress) {
  if (!progress) return std::nullopt;
  const Identity there = progress->identity;
  if (here.cluster != 0 && there.cluster != 0 && there.cluster != here.cluster) {
    return Error{Fault::refused, "the progress record in Kafka was written from another database cluster (" +
                                     std::to_string(there.cluster) + ", here " + std::to_string(here.cluster) + ")",
                 "two databases must not share a relay name; after a restore elsewhere run `outbox-relay rebase`"};
  }
  if (here.timeline != 0 && there.timeline > here.timeline && !SABOTAGED(no_timeline_fence)) {
    return Error{Fault::refused, "the progress record in Kafka was written on timeline " + std::to_string(there.timeline) +
                                     ", this server is on " + std::to_string(here.timeline) + ": it is no longer the primary",
                 "point postgres.dsn at the server that was promoted"};
  }
  return std::nullopt;
}

Verdict decide(const Evidence& e) {
  if (auto error = foreign(e.here, e.progress)) return {Action::refuse, Finding::nothing_unusual, std::move(error)};
  if (!e.newest && !e.progress) return {Action::go_on};
  if (SABOTAGED(no_token_check) && e.newest) return not_delivered(*e.newest, Finding::nothing_unusual);

  if (SABOTAGED(number_is_token) && e.newest && e.progress && e.progress->number == e.newest->number) return delivered(*e.newest);
  if (e.newest && e.progress && e.progress->token == e.newest->token) return delivered(*e.newest);
  if (e.newest) {
    const bool at_previous = e.progress ? e.token_before && e.progress->token == *e.token_before : !e.token_before;
    if (at_previous) return not_delivered(*e.newest, Finding::nothing_unusual);
    if (!e.progress || e.progress_known) return not_delivered(*e.newest, Finding::progress_lost);
  }
  // A record of an older timeline is of this database, before the fail-over that lost what it tells of.
  const bool before_fail_over = e.here.timeline != 0 && e.progress->identity.timeline != 0 && e.progress->identity.timeline < e.here.timeline;
  if (e.confirmed_since_take && !e.progress_is_ours && !before_fail_over) {
    return {Action::refuse, Finding::nothing_unusual,
            Error{Fault::refused, "another relay writes progress records under our name, from another database",
                  "give each database a relay.name of its own"}};
  }
  if (!e.newest || e.newest->delivered) return {Action::go_on, Finding::database_went_back};
  const bool was_delivered = e.newest->mode == Mode::exactly_once && e.progress->previous == e.newest->token;
  return {was_delivered ? Action::mark : Action::resend, Finding::database_went_back};
}

}  // namespace outbox
