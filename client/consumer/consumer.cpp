// SPDX-License-Identifier: Apache-2.0
// Consumer: checks its options at construction, and runs one ConsumerLoop per run().
//
// The thread of run() owns the loop, the database connection and all calls of the handler. stats()
// reads atomics and may be called by any thread. A second concurrent run() is a std::logic_error.
#include "outbox/consumer.h"

#include <atomic>
#include <stdexcept>

#include "client/consumer/consumer_loop.h"
#include "client/consumer/properties.h"

namespace outbox {
inline namespace v1 {

class Consumer::Impl {
 public:
  Impl(ConsumerOptions options, BatchHandler handler)
      : options_(std::move(options)), handler_(std::move(handler)), events_(options_.on_event) {
    consumer::check_options(options_);
    if (!handler_) throw ConsumerSetupError("the consumer has no handler. HINT: pass a function");
    consumer::make_conf(options_);  // validates options_.properties
    if (options_.consumer.empty()) options_.consumer = options_.group;
  }

  void run(std::stop_token stop) {
    if (running_.exchange(true)) {
      throw std::logic_error(
          "Consumer::run() is already running. HINT: use one Consumer for each thread");
    }
    struct Reset {
      std::atomic<bool>& running;
      ~Reset() { running = false; }
    } const reset{running_};
    consumer::ConsumerLoop loop(options_, handler_, stats_, events_, std::move(stop));
    while (!loop.over()) loop.step();
  }

  ConsumerStats stats() const { return stats_.snapshot(); }

 private:
  ConsumerOptions options_;
  const BatchHandler handler_;
  consumer::Events events_;
  consumer::ConsumerStatsCounter stats_;
  std::atomic<bool> running_{false};
};

namespace {

Consumer::BatchHandler one_by_one(Consumer::Handler handler) {
  if (!handler) return {};
  return [handle = std::move(handler)](pqxx::dbtransaction& tx, std::span<const Record> records) {
    for (const Record& record : records) handle(tx, record);
  };
}

}  // namespace

Consumer::Consumer(ConsumerOptions options, Handler handler)
    : impl_(std::make_unique<Impl>(std::move(options), one_by_one(std::move(handler)))) {}
Consumer::Consumer(ConsumerOptions options, BatchHandler handler)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(handler))) {}
Consumer::~Consumer() = default;

void Consumer::run(std::stop_token stop) { impl_->run(std::move(stop)); }
ConsumerStats Consumer::stats() const { return impl_->stats(); }

}  // namespace v1
}  // namespace outbox
