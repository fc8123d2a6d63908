// SPDX-License-Identifier: Apache-2.0
#include "relay/core/loop.h"

#include <algorithm>

#include "relay/base/check.h"
#include "relay/base/log.h"
#include "relay/base/sabotage.h"

namespace outbox {
namespace {

using log::Level;

constexpr Millis mark_alone_after{100};    // without a next batch to carry the mark
constexpr Millis standby_interval{100};
constexpr Millis topic_doubt_interval{200};
constexpr Millis busy_wait_max{50};        // an upper bound only: what is waited for wakes the loop
constexpr Millis calm_after{5'000};        // streaming for so long, a trouble is over even if there was nothing to send
constexpr std::size_t read_ahead_from = 1'000;  // messages in flight

}  // namespace

const char* to_string(State state) {
  switch (state) {
    case State::standby: return "standby";
    case State::recovering: return "recovering";
    case State::streaming: return "streaming";
    case State::stalled: return "stalled";
    case State::draining: return "draining";
    case State::stopped: return "stopped";
  }
  return "unknown";
}

const char* to_string(Phase phase) {
  static constexpr const char* names[] = {"leased", "initialised", "settled",  "parked",    "opening", "opened",
                                          "begun",  "sent",        "reported", "confirmed", "marking", "marked"};
  static_assert(std::size(names) == static_cast<std::size_t>(last_phase) + 1);
  return names[static_cast<std::size_t>(phase)];
}

Result<void> Loop::run() {
  enter(State::standby);
  while (state_ != State::stopped) {
    auto done = step();
    if (!done) done = on_error(done.error());
    if (!done) {
      enter(State::stopped, done.error().what);
      upkeep_.stop();
      publisher_.abandon();
      return done;
    }
  }
  return {};
}

Result<void> Loop::step() {
  switch (state_) {
    case State::standby: return stand_by();
    case State::recovering: return recover();
    case State::streaming:
    case State::draining: return stream();
    case State::stalled: return probe();
    case State::stopped: break;
  }
  return {};
}

// One line per transition; but while one trouble lasts, its fruitless recoveries are left to the summary.
void Loop::enter(State state, const std::string& why) {
  if (state == state_) return;
  state_ = state;
  if (state == State::streaming) streaming_since_ = wakeup_.now();
  if (state == shown_ || (breaker_.trouble() && state == State::recovering)) return;
  log::event(why.empty() ? Level::info : Level::warn, "state_changed",
             {{"from", to_string(shown_)}, {"to", to_string(state)}, {"epoch", epoch_}, {"reason", why}});
  shown_ = state;
}

// Standby --------------------------------------------------------------------------------------------------------------

Result<void> Loop::connect() {
  auto here = journal_.connect();
  if (!here) return here.error();
  here_ = *here;
  return {};
}

Result<void> Loop::stand_by() {
  if (wakeup_.stop_requested()) return finish();
  if (!here_) {
    if (auto r = connect(); !r) return r;
    session_fresh_ = true;
  }
  auto available = lease_.available();
  if (!available) return available.error();
  if (*available) {
    enter(State::recovering);
    return {};
  }
  breaker_.close();
  if (shown_ != State::standby) {
    state_ = shown_;
    enter(State::standby);
  }
  wakeup_.wait(standby_interval);
  return {};
}

// Recovery -------------------------------------------------------------------------------------------------------------

// The steps are those of docs/protocol.md, "Recovery", in its order. Whatever was under way before is forgotten: what counts is what
// PostgreSQL and Kafka remember.
Result<void> Loop::recover() {
  upkeep_.stop();
  publisher_.abandon();
  flight_.reset();
  next_.reset();
  reading_ = false;
  if (!here_ || !session_fresh_) {
    if (auto r = connect(); !r) return r;
  }
  session_fresh_ = false;

  // 1: look, before anybody is fenced
  auto before = publisher_.newest_progress(false);
  if (!before) return before.error();
  if (foreign(*here_, *before)) {
    // Or the record is younger than our session: a successor may have followed the database to another server meanwhile.
    if (auto r = connect(); !r) return r;
    if (auto error = foreign(*here_, *before)) return *error;
  }

  // 2: take the lease
  auto available = lease_.available();
  if (!available) return available.error();
  std::optional<Lease::Taken> taken;
  if (*available) {
    auto r = lease_.take();
    if (!r) return r.error();
    taken = *r;
  }
  if (!taken) {
    session_fresh_ = true;
    enter(State::standby);
    return {};
  }
  epoch_ = taken->epoch;  // after a fail-over that lost the tail it may be one that we had before
  if (!taken->continued) confirmed_since_take_ = false;
  at(Phase::leased);
  if (auto r = settle(*here_); !r) return r;
  if (state_ == State::stopped) return {};

  upkeep_.start(epoch_);
  look_again_at_ = wakeup_.now();
  enter(State::streaming);
  return {};
}

// Steps 3 to 5.
Result<void> Loop::settle(const Identity& here) {
  Evidence e;
  e.here = here;
  e.confirmed_since_take = confirmed_since_take_;
  auto newest = journal_.newest();
  if (!newest) return newest.error();
  e.newest = *newest;
  const bool in_doubt = e.newest && !e.newest->delivered;

  // 3: the mode in which a batch was opened decides how it is recovered
  if (!in_doubt) suspects_.clear();
  publisher_.limit_record_batches(suspects_.record_batch_max());
  if (auto r = renew_publisher(in_doubt ? e.newest->mode : options_.mode); !r) return r;
  at(Phase::initialised);

  // 4
  auto progress = publisher_.newest_progress(true);
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
  if (auto r = lease_.renew(); !r) return r;
  const Verdict verdict = decide(e);
  if (verdict.action == Verdict::Action::refuse) return *verdict.refusal;
  number_ = std::max(e.newest ? e.newest->number : 0, e.progress && !SABOTAGED(number_is_token) ? e.progress->number : 0);
  token_ = e.newest ? std::optional(e.newest->token) : std::nullopt;
  token_before_ = e.before ? std::optional(e.before->token) : std::nullopt;
  if (verdict.finding == Verdict::Finding::progress_lost) {
    log::event(Level::error, "progress_lost",
               {{"journal_batch", e.newest->number}, {"kafka_batch", e.progress ? e.progress->number : 0}, {"in_doubt", in_doubt}});
    if (in_doubt && options_.stop_on_lost_progress) {
      return Error{Fault::refused, "Kafka lost the progress record that would settle batch " + std::to_string(e.newest->number),
                   "delivery.on_lost_progress = \"resend\" sends it again; some of its messages may then be repeated"};
    }
  }
  if (verdict.finding == Verdict::Finding::database_went_back) {
    log::event(Level::error, "database_went_back",
               {{"journal_batch", e.newest ? e.newest->number : 0}, {"kafka_batch", e.progress->number},
                {"kafka_epoch", e.progress->epoch}, {"kafka_token", e.progress->token.text()}});
  }
  if (in_doubt) {
    log::event(Level::info, "batch_recovered", {{"batch", e.newest->number}, {"messages", e.newest->messages},
                                                {"found", verdict.action == Verdict::Action::mark ? "delivered" : "not_delivered"}});
  }
  source_.reset(e.newest ? e.newest->next() : Cursor{Snapshot::nothing(), std::nullopt, std::nullopt, 0});
  if (auto r = blocks_.reload(); !r) return r;

  if (verdict.action == Verdict::Action::mark) {
    const bool known = confirmed_ && e.newest_is_ours;
    if (auto r = journal_.mark(epoch_, known ? *confirmed_ : Confirmed{e.newest->number, {}}); !r) return r;
    at(Phase::settled);
  }
  confirmed_.reset();
  if (verdict.action == Verdict::Action::resend) return resend(*e.newest);
  return {};
}

// Kafka may take longer than the lease lasts, and two relays that lose it to each other for that would never get on.
Result<void> Loop::renew_publisher(Mode mode) {
  return publisher_.renew(mode, [this] { return keep_lease(); });
}

Result<void> Loop::keep_lease() { return lease_.due() ? lease_.renew() : Result<void>{}; }

// Sends a batch that the journal has already. What cannot be sent, or not any more, is parked first, so that every later re-read
// gives the same rows.
Result<void> Loop::resend(const Batch& batch) {
  auto page = source_.reread(batch);
  if (!page) {
    // A successor may have delivered the batch and deleted its rows.
    const auto ours = lease_.renew();
    return !ours && ours.error().fault == Fault::fenced ? ours.error() : page.error();
  }
  Publisher::Vetted vetted;
  while (true) {
    auto r = publisher_.vet(*page);
    if (!r) return r.error();
    vetted = std::move(*r);
    if (vetted.settled) break;
    if (wakeup_.stop_requested()) return finish();  // in doubt it is as well kept by the journal
    wakeup_.wait(topic_doubt_interval);
    if (auto kept = keep_lease(); !kept) return kept;
  }
  auto rejected = blocks_.extend(batch, *page, std::move(vetted.rejected));
  if (!rejected) return rejected.error();
  flight_ = Flight{batch, std::move(*page)};
  if (!rejected->empty()) {
    if (auto r = journal_.park(epoch_, batch, *rejected); !r) return r;
    at(Phase::parked);
    flight_->parked = indexes_of(flight_->page, *rejected);
    blocks_.parked(flight_->page, flight_->parked);
  }
  flight_->left_out = suspects_.left_out(flight_->page, flight_->parked);
  at(Phase::settled);
  // Kafka may have taken longer to answer than the lease lasts; as long as nobody else has it, it is still ours.
  if (auto r = keep_lease(); !r) return r;
  return publish();
}

// Streaming ------------------------------------------------------------------------------------------------------------

Result<void> Loop::stream() {
  if (state_ == State::streaming && wakeup_.stop_requested()) enter(State::draining);
  if (!lease_.held()) return Error{Fault::fenced, "the lease ran out by our own clock"};

  if (auto r = look_for_work(); !r) return r;
  if (flight_) {
    auto reported = publisher_.reported();
    if (!reported) return publisher_.refused().empty() ? reported.error() : on_refusal();
    if (*reported && flight_->trial()) {
      suspects_.acquit();
      enter(State::recovering);
      return {};
    }
    if (*reported) {
      at(Phase::reported);
      return confirm();
    }
  } else if (releasing_ && !reading_ && state_ == State::streaming && !(next_ && stream_is_next_)) {
    return open_release();
  } else if (next_ && state_ == State::streaming) {
    return open_next();
  } else if (confirmed_ && (state_ == State::draining || wakeup_.now() >= confirmed_at_ + mark_alone_after)) {
    return mark();
  } else if (state_ == State::draining) {
    return finish();
  }
  if (lease_.due()) return lease_.renew();
  pause();
  return {};
}

// Keeps one page read ahead; never blocks.
Result<void> Loop::look_for_work() {
  if (upkeep_.found_releasable()) releasing_ = true;
  if (next_) return {};
  auto news = source_.advance();
  if (!news) return news.error();
  if (*news) {
    reading_ = false;
    next_ = source_.take();
    if (next_) {
      idle_ = Millis{1};
    } else {
      look_again_at_ = wakeup_.now() + idle_;
      idle_ = std::min(idle_ * 2, options_.poll_idle);
    }
  }
  // Caught up, a snapshot taken after this batch shows more than one taken now, and costs less than it saves.
  const bool caught_up = flight_ && flight_->page.exhausted && flight_->page.messages.size() < read_ahead_from;
  if (next_ || reading_ || caught_up || state_ != State::streaming || wakeup_.now() < look_again_at_) return {};
  reading_ = true;
  return source_.want();
}

void Loop::pause() const {
  auto until = wakeup_.now() + busy_wait_max;
  if (!flight_ && !next_ && !reading_) until = std::min(until, look_again_at_);
  if (confirmed_) until = std::min(until, confirmed_at_ + mark_alone_after);
  const auto left = std::chrono::duration_cast<std::chrono::microseconds>(until - wakeup_.now());
  wakeup_.wait(std::max(left, std::chrono::microseconds{0}));
}

Result<void> Loop::ready_to_open() {
  CHECK(!flight_ && (!confirmed_ || confirmed_->number <= number_));  // at most one batch is in doubt
  if (publisher_.clean(options_.mode) || SABOTAGED(incarnation_rule_off)) return {};
  log::event(Level::info, "incarnation_renewed", {{"batch", number_}});
  return renew_publisher(options_.mode);
}

Result<void> Loop::open_next() {
  if (auto r = ready_to_open(); !r) return r;
  auto vetted = publisher_.vet(*next_);
  if (!vetted) return vetted.error();
  if (!vetted->settled) {
    wakeup_.wait(topic_doubt_interval);
    return keep_lease();
  }
  Flight flight{{}, std::move(*next_)};
  next_.reset();
  Batch& b = flight.batch;
  const Page& page = flight.page;
  b = Batch{number_ + 1,   epoch_,        Uuid::random(),  false,          options_.mode,
            page.base,     page.upto,     page.fresh_from, page.after_seq, page.upto_seq,
            page.exhausted, static_cast<std::int64_t>(page.messages.size()), page.bytes, {}, false};
  auto rejected = blocks_.extend(b, page, std::move(vetted->rejected));
  if (!rejected) return rejected.error();
  flight.parked = indexes_of(page, *rejected);
  at(Phase::opening);
  const bool renews = lease_.due();
  const auto sent = wakeup_.now();
  if (auto r = journal_.open(b, *rejected, confirmed_, renews); !r) return r;
  if (renews) lease_.extended(sent);
  flight_ = std::move(flight);
  blocks_.parked(flight_->page, flight_->parked);
  opened(flight_->batch);
  if (auto r = look_for_work(); !r) return r;  // the server reads while we produce
  return publish();
}

// The batch is in the journal, and with it the mark of the one before.
void Loop::opened(const Batch& batch) {
  confirmed_.reset();
  number_ = batch.number;
  token_before_ = std::exchange(token_, batch.token);
  stream_is_next_ = batch.release;
  at(Phase::opened);
}

// Unlike a page of the stream, a release is read after it is open: what an operator can still change is not part of it.
Result<void> Loop::open_release() {
  if (auto r = ready_to_open(); !r) return r;
  Batch b;
  b.number = number_ + 1;
  b.epoch = epoch_;
  b.token = Uuid::random();
  b.release = true;
  b.mode = options_.mode;
  at(Phase::opening);
  auto chosen = journal_.open_release(b, confirmed_);
  if (!chosen) return chosen.error();
  if (!*chosen) {
    releasing_ = false;
    return blocks_.reload();
  }
  opened(b);
  publisher_.doubt_barred_topics();
  return resend(b);
}

Result<void> Loop::publish() {
  if (!lease_.held()) return Error{Fault::fenced, "the lease ran out by our own clock"};
  if (auto r = publisher_.begin(); !r) return r;
  at(Phase::begun);
  const Progress progress{*here_, epoch_, flight_->batch.number, flight_->batch.token, token_before_};
  if (auto r = publisher_.send(flight_->batch, flight_->page, flight_->skip(), progress); !r) {
    if (publisher_.refused().empty()) return r;
    return {};  // reported() will say so as well: nobody but stream() answers a refusal
  }
  at(Phase::sent);
  if (SABOTAGED(mark_before_confirm)) return journal_.mark(epoch_, {flight_->batch.number, {}});
  return {};
}

Result<void> Loop::confirm() {
  auto offsets = publisher_.commit();
  if (!offsets) return offsets.error();
  confirmed_ = Confirmed{flight_->batch.number, std::move(*offsets)};
  confirmed_at_ = wakeup_.now();
  confirmed_since_take_ = true;
  confirmed_token_ = flight_->batch.token;
  if (SABOTAGED(mark_before_confirm)) confirmed_.reset();
  flight_.reset();
  suspects_.clear();
  publisher_.limit_record_batches(0);
  breaker_.reset();
  at(Phase::confirmed);
  return {};
}

Result<void> Loop::mark() {
  at(Phase::marking);
  if (auto r = journal_.mark(epoch_, *confirmed_); !r) return r;
  confirmed_.reset();
  at(Phase::marked);
  return {};
}

// Kafka refused messages of the batch in flight. What it took of the rest is void or in doubt, so the batch goes through
// recovery, which sends what is left of it under the same token; or, while it is not known who is to blame, tries the suspects.
Result<void> Loop::on_refusal() {
  std::vector<Rejection> refused = publisher_.refused();
  std::sort(refused.begin(), refused.end(), [](const auto& a, const auto& b) { return a.seq < b.seq; });
  const bool known = publisher_.culprits_known() || suspects_.convicts(refused);
  publisher_.abandon();
  if (!known) {
    suspects_.narrow(refused);
    enter(State::recovering, "Kafka refused " + std::to_string(refused.size()) + " messages together");
    return {};
  }
  suspects_.clear();
  auto rejected = blocks_.extend(flight_->batch, flight_->page, std::move(refused));
  if (!rejected) return rejected.error();
  for (const std::size_t i : flight_->parked) {
    std::erase_if(*rejected, [&](const Rejection& r) { return r.seq == flight_->page.messages[i].seq; });
  }
  if (auto r = journal_.park(epoch_, flight_->batch, *rejected); !r) return r;
  log::event(Level::warn, "messages_refused", {{"batch", flight_->batch.number}, {"parked", rejected->size()}});
  at(Phase::parked);
  enter(State::recovering);
  return {};
}

Result<void> Loop::finish() {
  upkeep_.stop();
  publisher_.abandon();
  if (here_ && lease_.held() && !wakeup_.restart_requested()) {
    if (auto r = lease_.release(); !r) return r;
  }
  enter(State::stopped);
  return {};
}

// Trouble --------------------------------------------------------------------------------------------------------------

// Whose fault decides the answer. The returned error, if any, is one that ends the process.
Result<void> Loop::on_error(const Error& error) {
  switch (error.fault) {
    case Fault::kafka:
    case Fault::postgres:
    case Fault::message:
    case Fault::topic:
      stall(error);
      return {};
    case Fault::fenced:
      // Not lost yet: it may have been our own late request. The lease knows, and recovery asks it.
      log::event(Level::warn, "fenced", {{"epoch", epoch_}, {"reason", error.what}});
      stall(error);
      return {};
    case Fault::usage:
    case Fault::refused:
    case Fault::absent: break;
  }
  return error;
}

void Loop::stall(const Error& error) {
  upkeep_.stop();
  publisher_.abandon();
  if (error.fault == Fault::postgres) here_.reset();
  const auto now = wakeup_.now();
  if (state_ == State::streaming && now - streaming_since_ > calm_after) breaker_.reset();
  if (breaker_.trip(error, now)) {
    enter(State::stalled, error.text());
  } else {
    state_ = State::stalled;  // the same trouble goes on: the summary tells
  }
}

// One probe at a time, and nothing else.
Result<void> Loop::probe() {
  if (wakeup_.stop_requested()) return finish();
  if (const auto wait = breaker_.before_probe(wakeup_.now()); wait > Clock::duration::zero()) {
    wakeup_.wait(std::chrono::ceil<std::chrono::microseconds>(wait));
    return {};
  }
  if (breaker_.trouble()->fault == Fault::postgres) {
    if (auto r = connect(); !r) return r;
    session_fresh_ = true;
  } else if (breaker_.trouble()->fault == Fault::kafka) {
    if (auto r = publisher_.probe(); !r) return r;
  }
  state_ = State::standby;
  return {};
}

}  // namespace outbox
