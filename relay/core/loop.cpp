// SPDX-License-Identifier: Apache-2.0
// The protocol: docs/protocol.md as code, in the order of that page.
//
//   recover()  takes the lease, fences older producers, finds out what became of the newest batch
//              (gather, decide, apply), and sends it again if it was not delivered.
//   stream()   does what next_action() says: read, open, produce, confirm, mark.
//
// Both are steps of the loop of states in loop_states.cpp: they do one thing and return, and
// nothing in them blocks for longer than one bounded call of a port. An error that they return ends
// what is under way; what follows is recovery, or the end of the process. All of it runs on one
// thread.
#include "relay/core/loop.h"

#include <algorithm>

#include "common/check.h"
#include "relay/base/log.h"
#include "relay/base/mutants.h"

namespace relay {
namespace {

using log::Level;

constexpr Millis topic_doubt_interval{200};
constexpr std::size_t read_ahead_from = 1'000;  // messages in flight

Error lease_ran_out() { return {Fault::fenced, "the lease ran out by our own clock"}; }

}  // namespace

// Recovery ----------------------------------------------------------------------------------------

// The steps of docs/protocol.md, "Recovery".
Result<void> Loop::recover() {
  forget_all();
  if (!here_ || !session_fresh_) {
    if (auto r = connect(); !r) return r;
  }
  session_fresh_ = false;

  if (auto r = refuse_foreign_progress(); !r) return r;  // 1
  auto taken = take_lease();                             // 2
  if (!taken) return taken.error();
  if (!*taken) {
    session_fresh_ = true;
    enter(State::standby);
    return {};
  }
  epoch_ = (*taken)->epoch;  // after a fail-over that lost the tail, maybe one that we had before
  if (!(*taken)->continued) confirmed_since_take_ = false;
  at(Phase::leased);
  if (auto r = recover_batch(); !r) return r;  // 3 to 5
  if (state_ == State::stopped) return {};

  maintenance_.start(epoch_);
  ahead_.start();
  enter(State::streaming);
  return {};
}

// Whatever was under way before: what counts is what PostgreSQL and Kafka remember.
void Loop::forget_all() {
  maintenance_.stop();
  producer_.abandon();
  flight_.reset();
  ahead_.forget();
}

// Step 1 looks before anybody is fenced.
Result<void> Loop::refuse_foreign_progress() {
  const auto progress = newest_progress(false);
  if (!progress) return progress.error();
  if (!foreign(*here_, *progress, false)) return {};
  // Or the record is younger than our session: a successor may have followed a fail-over.
  if (auto r = connect(); !r) return r;
  const auto newest = journal_.newest();
  if (!newest) return newest.error();
  if (auto error = foreign(*here_, *progress, newest->has_value())) return *error;
  return {};
}

Result<std::optional<Lease::Taken>> Loop::take_lease() {
  auto available = lease_.available();
  if (!available) return available.error();
  return *available ? lease_.take() : std::optional<Lease::Taken>{};
}

Result<void> Loop::recover_batch() {
  auto evidence = gather_evidence();
  if (!evidence) return evidence.error();
  if (!evidence->newest && !evidence->progress) {
    if (auto r = claim_name(); !r || state_ == State::stopped) return r;
  }
  return apply(decide(*evidence), *evidence);
}

Result<Evidence> Loop::gather_evidence() {
  Evidence e;
  e.here = *here_;
  e.confirmed_since_take = confirmed_since_take_;
  auto newest = journal_.newest();
  if (!newest) return newest.error();
  e.newest = *newest;

  // 3: the mode in which a batch was opened decides how it is recovered
  if (!e.in_doubt()) poison_.clear();
  producer_.limit_record_batches(poison_.record_batch_max());
  if (auto r = renew_producer(e.in_doubt() ? e.newest->mode : options_.mode); !r) return r.error();
  at(Phase::initialised);

  // 4
  auto progress = newest_progress(true);
  if (!progress) return progress.error();
  e.progress = *progress;
  if (e.newest) {
    auto before = journal_.before(e.newest->number);
    if (!before) return before.error();
    e.before = *before;
    e.newest_is_ours = e.newest->token == confirmed_token_;
  }
  if (e.progress) {
    auto known = journal_.knows(e.progress->token);
    if (!known) return known.error();
    e.progress_known = *known;
    e.progress_is_ours = e.progress->token == confirmed_token_;
  }

  // 5: still ours, so nobody else has written since step 2, and what was read belongs together
  if (auto r = lease_.renew(); !r) return r.error();
  return e;
}

Result<void> Loop::apply(const Verdict& verdict, const Evidence& e) {
  if (verdict.action == Verdict::Action::refuse) return *verdict.refusal;
  const auto in_kafka = e.progress && !MUTANT(number_is_token) ? e.progress->number : 0;
  number_ = std::max(e.newest ? e.newest->number : 0, in_kafka);
  token_ = e.newest ? std::optional(e.newest->token) : std::nullopt;
  token_before_ = e.before ? std::optional(e.before->token) : std::nullopt;
  log_note(e, verdict);
  const bool lost = verdict.note == Verdict::Note::progress_lost;
  if (lost && e.in_doubt() && options_.stop_on_lost_progress) return undecidable(*e.newest);
  if (e.in_doubt()) log_recovered(e, verdict);
  reader_.reset(e.newest ? e.newest->bounds.next() : Cursor{.base = Snapshot::nothing()});
  if (auto r = blocks_.reload(); !r) return r;
  if (auto r = keep_lease(); !r) return r;

  if (verdict.action == Verdict::Action::mark) {
    const bool offsets_known = confirmed_ && e.newest_is_ours;
    const auto delivered = offsets_known ? *confirmed_ : Confirmed{e.newest->number, {}};
    if (auto r = journal_.mark_delivered(epoch_, delivered); !r) return r;
    at(Phase::recovered);
  }
  confirmed_.reset();
  return verdict.action == Verdict::Action::resend ? send_from_journal(*e.newest) : Result<void>{};
}

// Sends a batch that stands in the journal and was not read ahead: recovery sends one in doubt, and
// a release is read only once it is open. What cannot be sent, or not any more, is parked first, so
// that every later re-read gives the same rows.
Result<void> Loop::send_from_journal(const Batch& batch) {
  auto page = reread(batch);
  if (!page) return page.error();
  auto validation = validate(*page, batch.opened_at);
  if (!validation) return validation.error();
  if (!*validation) return finish();  // in doubt it is as well kept by the journal
  auto rejected = blocks_.extend(batch, *page, std::move((*validation)->rejected));
  if (!rejected) return rejected.error();
  flight_ = Flight{.batch = batch, .page = std::move(*page), .parked = {}};
  if (!rejected->empty()) {
    if (auto r = journal_.park(epoch_, batch, *rejected); !r) return r;
    at(Phase::parked);
    flight_->parked = mask_of(*rejected);
    blocks_.parked(flight_->page, flight_->parked);
  }
  at(Phase::recovered);
  // Kafka may have taken longer than the lease lasts; while nobody else has it, it is ours.
  if (auto r = keep_lease(); !r) return r;
  return publish();
}

Result<Page> Loop::reread(const Batch& batch) {
  auto page = reader_.reread(batch);
  if (page) return page;
  // A successor may have delivered the batch and deleted its rows.
  const auto ours = lease_.renew();
  return !ours && ours.error().fault == Fault::fenced ? ours.error() : page.error();
}

// Waits until it is known of each topic whether it is missing; nullopt: asked to stop meanwhile.
Result<std::optional<Validation>> Loop::validate(const Page& page, Timestamp stamp) {
  while (true) {
    auto validation = producer_.validate(page, stamp);
    if (!validation) return validation.error();
    if (validation->complete) return std::optional(std::move(*validation));
    if (poller_.stop_requested()) return std::optional<Validation>{};
    poller_.wait(topic_doubt_interval);
    if (auto kept = keep_lease(); !kept) return kept.error();
  }
}

// Streaming ---------------------------------------------------------------------------------------

Result<void> Loop::stream() {
  if (state_ == State::streaming && poller_.stop_requested()) enter(State::draining);
  if (!lease_.held()) return lease_ran_out();
  if (auto r = look_for_work(); !r) return r;
  switch (next_action(status())) {
    case NextAction::await_delivery: return await_delivery();
    case NextAction::open_release: return open_release();
    case NextAction::open_page: return open_next();
    case NextAction::mark_delivered: return mark_delivered();
    case NextAction::finish: return finish();
    case NextAction::wait: break;
  }
  return wait_or_renew();
}

StreamStatus Loop::status() const {
  return {.draining = state_ == State::draining,
          .in_flight = flight_.has_value(),
          .reading = ahead_.reading(),
          .page_ready = ahead_.ready(),
          .release_wanted = releasing_,
          .stream_is_next = stream_is_next_,
          .unmarked = confirmed_.has_value(),
          .mark_is_due = confirmed_ && poller_.now() >= confirmed_at_ + mark_alone_after};
}

// Keeps one page read ahead; never blocks.
Result<void> Loop::look_for_work() {
  if (maintenance_.found_releasable()) releasing_ = true;
  if (auto r = ahead_.advance(); !r) return r;
  // Caught up, a snapshot taken after this batch shows more than one taken now, and costs less than
  // it saves.
  const bool caught_up =
      flight_ && flight_->page.bounds.exhausted && flight_->page.messages.size() < read_ahead_from;
  return caught_up || state_ != State::streaming ? Result<void>{} : ahead_.want();
}

Result<void> Loop::ready_to_open() {
  // At most one batch is in doubt.
  CHECK(!flight_ && (!confirmed_ || confirmed_->number <= number_));
  if (producer_.clean(options_.mode) || MUTANT(incarnation_rule_off)) return {};
  log::event(Level::info, "incarnation_renewed", {{"batch", number_}});
  return renew_producer(options_.mode);
}

Batch Loop::next_batch() const {
  return {.number = number_ + 1, .epoch = epoch_, .token = Uuid::random(), .mode = options_.mode};
}

// open: the page that was read ahead.
Result<void> Loop::open_next() {
  if (auto r = ready_to_open(); !r) return r;
  auto validation = producer_.validate(ahead_.page(), std::nullopt);
  if (!validation) return validation.error();
  if (!validation->complete) {
    poller_.wait(topic_doubt_interval);
    return keep_lease();
  }
  Flight flight{.batch = next_batch(), .page = ahead_.take(), .parked = {}};
  flight.batch.bounds = flight.page.bounds;
  flight.batch.messages = static_cast<std::int64_t>(flight.page.messages.size());
  flight.batch.bytes = flight.page.bytes;
  auto rejected = blocks_.extend(flight.batch, flight.page, std::move(validation->rejected));
  if (!rejected) return rejected.error();
  flight.parked = mask_of(*rejected);
  at(Phase::opening);
  const bool renews = lease_.due();
  const auto sent = poller_.now();
  if (auto r = journal_.open(flight.batch, *rejected, confirmed_, renews); !r) return r;
  if (renews) lease_.extended(sent);
  flight_ = std::move(flight);
  blocks_.parked(flight_->page, flight_->parked);
  opened(flight_->batch);
  if (auto r = look_for_work(); !r) return r;  // the server reads while we produce
  return publish();
}

// open: messages that were parked and decided about. Unlike a page of the stream, a release is read
// after it is open: what an operator can still change is not part of it.
Result<void> Loop::open_release() {
  if (auto r = ready_to_open(); !r) return r;
  Batch batch = next_batch();
  batch.release = true;
  at(Phase::opening);
  auto chosen = journal_.open_release(batch, confirmed_);
  if (!chosen) return chosen.error();
  if (!*chosen) {
    releasing_ = false;
    return blocks_.reload();
  }
  opened(batch);
  producer_.recheck_unwritable();
  return send_from_journal(batch);
}

// The batch is in the journal, and with it the mark of the one before.
void Loop::opened(const Batch& batch) {
  confirmed_.reset();
  number_ = batch.number;
  token_before_ = std::exchange(token_, batch.token);
  stream_is_next_ = batch.release;
  at(Phase::opened);
}

// produce
Result<void> Loop::publish() {
  if (!lease_.held()) return lease_ran_out();
  if (auto r = producer_.begin(); !r) return r;
  at(Phase::begun);
  const Batch& batch = flight_->batch;
  const Progress progress{*here_, epoch_, batch.number, batch.token, token_before_};
  const auto attempt = poison_.next(flight_->page, flight_->parked);
  flight_->probe = attempt.probe;
  const auto sent = producer_.send(batch, flight_->page, attempt.masked, progress);
  if (!sent) return sent.error();
  if (*sent == Delivery::refused)
    return {};  // await_delivery() answers it, with all that is refused
  at(Phase::sent);
  if (MUTANT(mark_before_confirm)) return journal_.mark_delivered(epoch_, {batch.number, {}});
  return {};
}

Result<void> Loop::await_delivery() {
  const auto delivery = producer_.reported();
  if (!delivery) return delivery.error();
  switch (*delivery) {
    case Delivery::pending: return wait_or_renew();
    case Delivery::refused: return on_refusal();
    case Delivery::complete: break;
  }
  if (flight_->probe) {
    poison_.passed();
    enter(State::recovering);
    return {};
  }
  at(Phase::reported);
  return confirm();
}

// Kafka refused messages of the batch in flight. What it took of the rest is void or in doubt, so
// the batch goes through recovery, which sends what is left of it under the same token; or, while
// the cause is not isolated, probes the suspected messages.
Result<void> Loop::on_refusal() {
  std::vector<Rejection> refused = producer_.refused();
  std::sort(refused.begin(), refused.end(),
            [](const auto& a, const auto& b) { return a.index < b.index; });
  const bool isolated = producer_.isolated() || poison_.isolates(refused);
  producer_.abandon();
  if (!isolated) {
    poison_.split(refused);
    enter(State::recovering,
          "Kafka refused " + std::to_string(refused.size()) + " messages together");
    return {};
  }
  poison_.clear();
  auto rejected = blocks_.extend(flight_->batch, flight_->page, std::move(refused));
  if (!rejected) return rejected.error();
  std::erase_if(*rejected, [&](const Rejection& r) { return flight_->parked.contains(r.index); });
  if (auto r = journal_.park(epoch_, flight_->batch, *rejected); !r) return r;
  log::event(Level::warn, "messages_refused",
             {{"batch", flight_->batch.number}, {"parked", rejected->size()}});
  at(Phase::parked);
  enter(State::recovering);
  return {};
}

Result<void> Loop::confirm() {
  auto offsets = producer_.commit();
  if (!offsets) return offsets.error();
  confirmed_ = Confirmed{flight_->batch.number, std::move(*offsets)};
  confirmed_at_ = poller_.now();
  confirmed_since_take_ = true;
  confirmed_token_ = flight_->batch.token;
  if (MUTANT(mark_before_confirm)) confirmed_.reset();
  flight_.reset();
  poison_.clear();
  producer_.limit_record_batches(0);
  breaker_.reset();
  at(Phase::confirmed);
  return {};
}

Result<void> Loop::mark_delivered() {
  at(Phase::marking);
  if (auto r = journal_.mark_delivered(epoch_, *confirmed_); !r) return r;
  confirmed_.reset();
  at(Phase::marked);
  return {};
}

}  // namespace relay
