// SPDX-License-Identifier: Apache-2.0
#include "client/consumer/course.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>

#include "outbox/inbox.h"

namespace outbox::consumer {
namespace {

constexpr std::chrono::milliseconds poll_wait{100};
constexpr std::chrono::seconds release_interval{1};
constexpr std::chrono::seconds release_put_off{30};
constexpr int release_failures_max = 3;  // before it is put off
constexpr int look_costs_at_most = 20;   // a twentieth of the time
constexpr int releases_at_once_max = 100;  // before messages from Kafka have their turn
constexpr std::chrono::minutes prune_interval{1};
constexpr int prune_rows_max = 10'000;
constexpr std::chrono::seconds parked_interval{10};
constexpr std::chrono::minutes summary_interval{1};
constexpr int conflicts_before_stalled = 5;
constexpr int inbox_version_min = 2;

const char* to_string(Course::State state) {
  switch (state) {
    case Course::State::starting: return "starting";
    case Course::State::consuming: return "consuming";
    case Course::State::stalled: return "stalled";
    case Course::State::stopped: return "stopped";
  }
  return "";
}

}  // namespace

Course::Course(const ConsumerOptions& options, const Consumer::BatchHandler& handler, Figures& figures, Events& events, std::stop_token stop)
    : options_(options), figures_(figures), events_(events), stop_(std::move(stop)), settlement_(options, handler, figures),
      releases_(options, handler, figures), parked_told_(figures.parked) {
  go_to(State::starting);
}

Course::~Course() {
  settlement_.drop();
  source_.reset();
  figures_.busy_since = 0;
  go_to(State::stopped);
}

void Course::step() {
  switch (state_) {
    case State::starting: return start();
    case State::consuming: return consume();
    case State::stalled: return probe();
    case State::stopped: return;
  }
}

// --- States ---------------------------------------------------------------------------------------------------------------

// The group is joined last: a member that cannot work would keep partitions from those that can.
void Course::start() {
  int version = 0;
  try {
    connect();
    pqxx::work tx(*connection_);
    version = tx.exec("select pg_catalog.max(v.number) from inbox.schema_version v")[0][0].as<int>();
    inbox::register_consumer(tx, options_.consumer, options_.keep, options_.span);
    tx.commit();
  } catch (...) {
    const Failure failure = judge(std::current_exception());
    if (failure.fault == Fault::message || failure.fault == Fault::database) {
      throw ConsumerSetupError("inbox: " + failure.what +
                               "\nHINT: create it by `outbox-relay init --schema inbox`, and grant inbox_consumer to the login of the consumer");
    }
    connection_.reset();
    if (backoff_.attempts() == 0) events_.tell(Level::warn, "database_away", {{"reason", failure.what}});
    return wait(backoff_.next());
  }
  if (version < inbox_version_min) {
    throw ConsumerSetupError("inbox: the schema has version " + std::to_string(version) + ", this program needs " +
                             std::to_string(inbox_version_min) + "\nHINT: upgrade it by `outbox-relay init --schema inbox`");
  }
  backoff_.reset();
  source_.emplace(options_, events_);
  prune_at_ = Clock::now() + prune_interval;
  go_to(State::consuming);
}

void Course::consume() {
  if (!settlement_.done()) {
    settle();
    return;
  }
  keep_up();
  if (state_ != State::consuming || stop_.stop_requested()) return;
  Batch batch = source_->poll(options_.batch_messages_max, Clock::now() < release_at_ ? poll_wait : std::chrono::milliseconds{0});
  if (batch.empty()) return;
  figures_.busy_since = Clock::now().time_since_epoch().count();
  settlement_.begin(std::move(batch));
}

// The transaction that failed is the probe. Kafka is polled meanwhile, and fetches until its queue is full.
void Course::probe() {
  wait(backoff_.next());
  if (stop_.stop_requested()) return;
  if (Clock::now() >= summary_at_) {
    events_.tell(Level::warn, "still_stalled", {{"attempts", std::to_string(backoff_.attempts())}, {"reason", trouble_}});
    summary_at_ = Clock::now() + summary_interval;
  }
  try {
    if (!connection_) connect();
    if (settlement_.done()) {
      pqxx::work tx(*connection_);
      tx.exec("select inbox.make_durable()");  // what a standby cannot do
      tx.commit();
    }
  } catch (...) {
    return failed(judge(std::current_exception()));
  }
  if (settlement_.done() || settle()) go_to(State::consuming);
}

// --- What they consist of -------------------------------------------------------------------------------------------------

void Course::connect() {
  connection_ = std::make_unique<pqxx::connection>(options_.dsn);
  connection_->set_client_encoding("UTF8");
}

// One transaction of the batch in hand; false: it failed.
bool Course::settle() {
  if (const auto failure = settlement_.step(*connection_)) {
    failed(*failure);
    return false;
  }
  backoff_.reset();
  if (settlement_.done()) {
    figures_.busy_since = 0;
    source_->handled(settlement_.batch());
    settlement_.drop();
  }
  return true;
}

void Course::keep_up() {
  if (Clock::now() >= release_at_) release();
  if (state_ == State::consuming && Clock::now() >= prune_at_) prune();
  tell_of_parked();
}

// A message that fails is passed over, and comes again when all others had their turn.
void Course::release() {
  int failures = 0;
  for (int n = 0; n < releases_at_once_max && !stop_.stop_requested(); ++n) {
    const auto began = Clock::now();
    const auto progress = releases_.step(*connection_);
    if (progress == Releases::Progress::one_more) continue;
    const Failure& failure = releases_.failure();
    release_at_ = Clock::now() + release_interval;
    if (progress == Releases::Progress::failed) {
      if (failure.fault == Fault::connection) return failed(failure);
      if (failure.fault != Fault::conflict && ++failures < release_failures_max) continue;
    }
    if (progress == Releases::Progress::none) {
      release_at_ = Clock::now() + std::clamp<Clock::duration>(look_costs_at_most * (Clock::now() - began), release_interval, release_put_off);
    }
    if (failures == 0) return;
    release_at_ = Clock::now() + release_put_off;
    return events_.tell(Level::warn, "release_put_off", {{"reason", failure.what}});
  }
}

void Course::prune() {
  try {
    pqxx::work tx(*connection_);
    // It waits for whoever accepts what it forgets, and there is no hurry.
    tx.exec("set local lock_timeout = '1s'");
    const auto rows = inbox::prune(tx, options_.consumer, prune_rows_max);
    tx.commit();
    figures_.forgotten += rows;
    if (rows < prune_rows_max) prune_at_ = Clock::now() + prune_interval;
  } catch (...) {
    prune_at_ = Clock::now() + prune_interval;
    const Failure failure = judge(std::current_exception());
    if (failure.fault == Fault::connection) failed(failure);
    else events_.tell(Level::debug, "prune_put_off", {{"reason", failure.what}});
  }
}

void Course::tell_of_parked() {
  const std::int64_t parked = figures_.parked;
  if (parked == parked_told_ || Clock::now() < parked_at_) return;
  events_.tell(Level::warn, "messages_parked", {{"count", std::to_string(parked - parked_told_)}});
  parked_told_ = parked;
  parked_at_ = Clock::now() + parked_interval;
}

// --- Trouble --------------------------------------------------------------------------------------------------------------

void Course::failed(const Failure& failure) {
  ++figures_.retries;
  if (failure.fault == Fault::connection) connection_.reset();
  if (state_ == State::stalled) return;
  if (failure.fault == Fault::conflict && backoff_.attempts() < conflicts_before_stalled) return wait(backoff_.next());
  backoff_.reset();
  trouble_ = failure.what;
  summary_at_ = Clock::now() + summary_interval;
  go_to(State::stalled, failure.what);
}

void Course::go_to(State state, const std::string& reason) {
  if (state == state_) return;
  std::vector<std::pair<std::string, std::string>> fields = {{"from", to_string(state_)}, {"to", to_string(state)}};
  if (!reason.empty()) fields.emplace_back("reason", reason);
  state_ = state;
  figures_.state = state;
  events_.tell(state == State::stalled ? Level::warn : Level::info, "state_changed", std::move(fields));
}

// Ends when it is asked to stop.
void Course::wait(std::chrono::milliseconds duration) {
  std::mutex mutex;
  std::unique_lock lock(mutex);
  std::condition_variable_any().wait_for(lock, stop_, duration, [] { return false; });
}

}  // namespace outbox::consumer
