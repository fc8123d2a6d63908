// SPDX-License-Identifier: Apache-2.0
#include "client/consumer/consumer_loop.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>

#include "outbox/inbox.h"

namespace outbox::consumer {
namespace {

// Longest wait for a record, and thus for noticing a requested stop.
constexpr std::chrono::milliseconds poll_wait{100};
constexpr std::chrono::seconds release_interval{1};
// After repeated failures, released messages wait this long.
constexpr std::chrono::seconds release_put_off{30};
constexpr int release_failures_max = 3;
// The query for released messages takes at most 1/20 of the time.
constexpr int release_query_interval_factor = 20;
// Released messages processed before Kafka is polled again.
constexpr int releases_at_once_max = 100;
constexpr std::chrono::minutes prune_interval{1};
constexpr int prune_rows_max = 10'000;
// Intervals of the events messages_parked and still_stalled.
constexpr std::chrono::seconds parked_interval{10};
constexpr std::chrono::minutes summary_interval{1};
// Consecutive conflicts that are repeated before the loop stalls.
constexpr int conflicts_before_stalled = 5;
constexpr int inbox_version_min = 1;

const char* to_string(ConsumerLoop::State state) {
  switch (state) {
    case ConsumerLoop::State::starting: return "starting";
    case ConsumerLoop::State::consuming: return "consuming";
    case ConsumerLoop::State::stalled: return "stalled";
    case ConsumerLoop::State::stopped: return "stopped";
  }
  return "";
}

}  // namespace

ConsumerLoop::ConsumerLoop(const ConsumerOptions& options, const Consumer::BatchHandler& handler,
                           ConsumerStatsCounter& stats, Events& events, std::stop_token stop)
    : options_(options),
      stats_(stats),
      events_(events),
      stop_(std::move(stop)),
      processor_(options, handler, stats),
      retrier_(options, handler, stats),
      parked_reported_(stats.parked) {
  go_to(State::starting);
}

// The batch points into memory of the Kafka client, and is freed before it.
ConsumerLoop::~ConsumerLoop() {
  processor_.drop();
  source_.reset();
  stats_.busy_since = 0;
  go_to(State::stopped);
}

void ConsumerLoop::step() {
  switch (state_) {
    case State::starting: return start();
    case State::consuming: return consume();
    case State::stalled: return probe();
    case State::stopped: return;
  }
}

// --- States ------------------------------------------------------------------------------------

// The group is joined last: a member without a database would hold partitions that others could
// process.
void ConsumerLoop::start() {
  int version = 0;
  try {
    connect();
    pqxx::work tx(*connection_);
    version =
        tx.exec("select pg_catalog.max(v.number) from inbox.schema_version v")[0][0].as<int>();
    inbox::register_consumer(tx, options_.consumer, options_.keep, options_.span);
    tx.commit();
  } catch (...) {
    const Failure failure = classify(std::current_exception());
    if (failure.fault == Fault::message || failure.fault == Fault::database) {
      throw ConsumerSetupError(
          "inbox: " + failure.what +
          "\nHINT: create it with `outbox-relay init --schema inbox`, and grant inbox_consumer "
          "to the login of the consumer");
    }
    connection_.reset();
    if (backoff_.attempts() == 0) {
      events_.emit(Level::warn, "database_away", {{"reason", failure.what}});
    }
    return wait(backoff_.next());
  }
  if (version < inbox_version_min) {
    throw ConsumerSetupError("inbox: the schema has version " + std::to_string(version) +
                             ", this program needs " + std::to_string(inbox_version_min) +
                             "\nHINT: upgrade it with `outbox-relay init --schema inbox`");
  }
  backoff_.reset();
  source_.emplace(options_, events_);
  prune_at_ = Clock::now() + prune_interval;
  go_to(State::consuming);
}

// Does not wait in poll() while released messages are due.
void ConsumerLoop::consume() {
  if (!processor_.done()) {
    process();
    return;
  }
  maintain();
  if (state_ != State::consuming || stop_.stop_requested()) return;
  Batch batch =
      source_->poll(options_.batch_messages_max,
                    Clock::now() < release_at_ ? poll_wait : std::chrono::milliseconds{0});
  if (batch.empty()) return;
  stats_.busy_since = Clock::now().time_since_epoch().count();
  processor_.begin(std::move(batch));
}

// The failed transaction is the probe. Meanwhile the group's thread keeps the membership, and
// librdkafka fetches until its queue is full.
void ConsumerLoop::probe() {
  wait(backoff_.next());
  if (stop_.stop_requested()) return;
  if (Clock::now() >= summary_at_) {
    events_.emit(Level::warn, "still_stalled",
                 {{"attempts", std::to_string(backoff_.attempts())}, {"reason", stall_reason_}});
    summary_at_ = Clock::now() + summary_interval;
  }
  try {
    if (!connection_) connect();
    if (processor_.done()) {
      pqxx::work tx(*connection_);
      tx.exec("select inbox.make_durable()");  // a write: a standby rejects it
      tx.commit();
    }
  } catch (...) {
    return failed(classify(std::current_exception()));
  }
  if (processor_.done() || process()) go_to(State::consuming);
}

// --- Parts of a step ---------------------------------------------------------------------------

void ConsumerLoop::connect() {
  connection_ = std::make_unique<pqxx::connection>(options_.dsn);
  connection_->set_client_encoding("UTF8");
}

// Runs one transaction of the current batch. Returns false if it failed.
bool ConsumerLoop::process() {
  if (const auto failure = processor_.step(*connection_)) {
    failed(*failure);
    return false;
  }
  backoff_.reset();
  if (processor_.done()) {
    stats_.busy_since = 0;
    source_->handled(processor_.batch());
    processor_.drop();
  }
  return true;
}

// Runs between batches only; each part keeps its own schedule.
void ConsumerLoop::maintain() {
  if (Clock::now() >= release_at_) release();
  if (state_ == State::consuming && source_->assignments() != reported_assignments_) {
    report_assignment();
  }
  if (state_ == State::consuming && Clock::now() >= prune_at_) prune();
  emit_parked();
}

// Processes released messages. A message that fails is skipped until all others were tried, so that
// it blocks none.
void ConsumerLoop::release() {
  int failures = 0;
  for (int n = 0; n < releases_at_once_max && !stop_.stop_requested(); ++n) {
    const auto started = Clock::now();
    const auto progress = retrier_.step(*connection_);
    if (progress == ParkedRetrier::Progress::one_more) continue;
    const Failure& failure = retrier_.failure();
    release_at_ = Clock::now() + release_interval;
    if (progress == ParkedRetrier::Progress::failed) {
      if (failure.fault == Fault::connection) return failed(failure);
      if (failure.fault != Fault::conflict && ++failures < release_failures_max) continue;
    }
    if (progress == ParkedRetrier::Progress::none) {
      release_at_ = Clock::now() + std::clamp<Clock::duration>(
                                       release_query_interval_factor * (Clock::now() - started),
                                       release_interval, release_put_off);
    }
    if (failures == 0) return;
    release_at_ = Clock::now() + release_put_off;
    return events_.emit(Level::warn, "release_put_off", {{"reason", failure.what}});
  }
}

void ConsumerLoop::report(pqxx::dbtransaction& tx) {
  const auto positions = source_->positions();
  std::vector<inbox::Position> views;
  views.reserve(positions.size());
  for (const auto& p : positions) views.push_back({p.topic, p.partition, p.read_to});
  inbox::report(tx, options_.consumer, views);
}

// At once: what the others have read must not expire what is in the new partitions.
void ConsumerLoop::report_assignment() {
  const int assignments = source_->assignments();
  try {
    pqxx::work tx(*connection_);
    report(tx);
    tx.commit();
    reported_assignments_ = assignments;
  } catch (...) {
    failed(classify(std::current_exception()));
  }
}

// A failure only postpones it; a lost connection stalls the loop.
void ConsumerLoop::prune() {
  try {
    pqxx::work tx(*connection_);
    report(tx);
    // Limits the wait for transactions that accept messages of the deleted period.
    tx.exec("set local lock_timeout = '1s'");
    const auto rows = inbox::prune(tx, options_.consumer, prune_rows_max);
    tx.commit();
    stats_.pruned += rows;
    if (rows < prune_rows_max) prune_at_ = Clock::now() + prune_interval;
  } catch (...) {
    prune_at_ = Clock::now() + prune_interval;
    const Failure failure = classify(std::current_exception());
    if (failure.fault == Fault::connection) failed(failure);
    else events_.emit(Level::warn, "prune_put_off", {{"reason", failure.what}});
  }
}

// One event for all messages parked since the last one.
void ConsumerLoop::emit_parked() {
  const std::int64_t parked = stats_.parked;
  if (parked == parked_reported_ || Clock::now() < parked_event_at_) return;
  events_.emit(Level::warn, "messages_parked",
               {{"count", std::to_string(parked - parked_reported_)}});
  parked_reported_ = parked;
  parked_event_at_ = Clock::now() + parked_interval;
}

// --- Failures ----------------------------------------------------------------------------------

// Reacts to a failure that is not a message's fault: repeats after conflicts and time-outs, else
// stalls.
void ConsumerLoop::failed(const Failure& failure) {
  ++stats_.retries;
  if (failure.fault == Fault::connection) connection_.reset();
  if (state_ == State::stalled) return;
  const bool repeats = failure.fault == Fault::conflict || failure.fault == Fault::timeout;
  if (repeats && backoff_.attempts() < conflicts_before_stalled) {
    return wait(backoff_.next());
  }
  backoff_.reset();
  stall_reason_ = failure.what;
  summary_at_ = Clock::now() + summary_interval;
  go_to(State::stalled, failure.what);
}

void ConsumerLoop::go_to(State state, const std::string& reason) {
  if (state == state_) return;
  std::vector<std::pair<std::string, std::string>> fields = {{"from", to_string(state_)},
                                                             {"to", to_string(state)}};
  if (!reason.empty()) fields.emplace_back("reason", reason);
  state_ = state;
  stats_.state = state;
  events_.emit(state == State::stalled ? Level::warn : Level::info, "state_changed",
               std::move(fields));
}

// Returns early when a stop is requested.
void ConsumerLoop::wait(std::chrono::milliseconds duration) {
  std::mutex mutex;
  std::unique_lock lock(mutex);
  std::condition_variable_any().wait_for(lock, stop_, duration, [] { return false; });
}

}  // namespace outbox::consumer
