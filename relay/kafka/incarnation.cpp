// SPDX-License-Identifier: Apache-2.0
// KafkaProducer's incarnations: how a producer is made, and how it ends. renew() ends the present
// one, makes a client, fetches metadata, and in exactly-once mode initialises its transactions,
// which fences every older producer. While Kafka takes its time, the loop's `meanwhile` keeps the
// lease. A failure leaves an incarnation that is not clean.
#include <algorithm>
#include <future>
#include <utility>

#include "relay/base/log.h"
#include "relay/kafka/cluster_check.h"
#include "relay/kafka/producer.h"
#include "relay/kafka/progress.h"
#include "relay/kafka/record.h"

namespace relay::kafka {
namespace {

constexpr Millis init_deadline{10'000};
constexpr Millis init_slice{1'000};
constexpr Millis metadata_deadline{5'000};
constexpr Millis metadata_slice{2'000};  // a question that is asked again, shorter than a lease
constexpr Millis meanwhile_interval{500};
constexpr Millis progress_patience_max{30'000};
constexpr Millis check_deadline{2'000};
constexpr Millis last_record_deadline{500};
constexpr Millis reason_deadline{1'000};  // until it is known why transactions cannot begin
constexpr int give_up_ms = 1;

}  // namespace

bool KafkaProducer::clean(Mode mode) const {
  return client_ && clean_ && mode == mode_ && record_batch_max_ == wanted_record_batch_max_ &&
         !topics_.cache_full();
}

// Every failure ends the incarnation: what is still under way may act later, and only a new epoch
// makes the broker refuse it.
Error KafkaProducer::failed(const char* doing, rd_kafka_resp_err_t code,
                            const std::string& detail) {
  clean_ = false;
  return error_of(doing, code, detail);
}

Error KafkaProducer::failed(const char* doing, KafkaError error, bool in_doubt) {
  Error e = failed(doing, rd_kafka_error_code(error.get()), rd_kafka_error_string(error.get()));
  // Of the transaction, not of one message.
  if (e.fault == Fault::message || e.fault == Fault::topic) e.fault = Fault::kafka;
  e.in_doubt = in_doubt;
  return e;
}

// The question is asked on a thread of its own, because far from Kafka it can outlast the lease.
// One that was in vain is given more time when it is asked again.
Result<std::optional<Progress>> KafkaProducer::newest_progress(bool to_the_end,
                                                               const Meanwhile& meanwhile) {
  const Deadline deadline(progress_patience_);
  auto asked = std::async([&, at_end = to_the_end && transactional()] {
    return read_progress(options_, at_end, deadline, &closer_);
  });
  while (asked.wait_for(meanwhile_interval) == std::future_status::timeout) {
    if (auto r = meanwhile(); !r) return r.error();  // when the question has ended
  }
  auto progress = asked.get();
  if (!progress && deadline.passed())
    progress_patience_ = std::min(2 * progress_patience_, progress_patience_max);
  if (progress && !progress_topic_checked_) {
    progress_topic_checked_ = true;
    const auto checked = check_progress_topic(options_, Deadline(check_deadline), &closer_);
    if (!checked) return checked.error();
  }
  return progress;
}

// Two defects of librdkafka (2.0.2 to 2.16) can end the process when a client is destroyed amid a
// transaction:
// * It is about to register partitions: the broker's thread then answers that request before the
// main
//   thread has counted it. An abort, even one that has no time, ends the registering. Should it
//   reach the broker, and however late, there is no later transaction of this epoch to act on.
// * The transaction has failed: its end frees the text of that error and keeps the pointer, and an
//   answer to a Produce request that comes later, and says that the producer was fenced, frees it
//   again. What is purged has no answer.
void KafkaProducer::give_up_transaction() {
  if (!std::exchange(in_transaction_, false) || reports_.missing() == 0) return;
  const KafkaError ignored(rd_kafka_abort_transaction(client_.get(), give_up_ms));
  rd_kafka_purge(client_.get(), RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
  clean_ = false;
}

void KafkaProducer::abandon() {
  give_up_transaction();
  // At-least-once, nobody has waited for the last progress record: it says whose records these are.
  if (clean_ && !transactional()) {
    rd_kafka_flush(client_.get(), static_cast<int>(last_record_deadline.count()));
  }
  topics_.detach();
  progress_topic_.reset();
  if (clean_ && reports_.missing() == 0) {
    closer_.take(std::move(client_));  // nothing of ours is under way in it
  }
  client_.reset();
  clean_ = false;
  later_.reset();
  reports_.none_will_come();
}

Result<void> KafkaProducer::renew(Mode mode, const std::function<Result<void>()>& meanwhile) {
  abandon();
  mode_ = mode;
  meanwhile_ = meanwhile;
  record_batch_max_ = wanted_record_batch_max_;
  if (auto r = make_incarnation(); !r) return r;
  // Metadata first: otherwise the first transaction waits for up to a second.
  if (auto r = fetch_metadata(); !r) return r;
  if (transactional()) {
    if (auto r = init_transactions(); !r) return r;
  }
  clean_ = true;
  return {};
}

Result<void> KafkaProducer::make_incarnation() {
  auto conf = producer_conf(options_, mode_, {record_batch_max_, topics_.record_batch_bytes_max()});
  if (!conf) return conf.error();
  in_flight_.attach(conf->get());
  rd_kafka_conf_set_opaque(conf->get(), this);
  rd_kafka_conf_set_dr_msg_cb(conf->get(), &on_report);
  auto client = make_client(RD_KAFKA_PRODUCER, std::move(*conf));
  if (!client) return client.error();
  client_ = std::move(*client);
  progress_offset_ = -1;
  intruded_ = false;
  const std::uint64_t one = 1;
  const Queue queue(rd_kafka_queue_get_main(client_.get()));
  rd_kafka_queue_io_event_enable(queue.get(), wake_, &one, sizeof one);
  progress_topic_.reset(
      rd_kafka_topic_new(client_.get(), options_.progress_topic.c_str(), nullptr));
  topics_.attach(client_.get());
  return {};
}

Result<void> KafkaProducer::fetch_metadata() {
  for (const Deadline deadline(metadata_deadline);;) {
    const rd_kafka_metadata_t* raw = nullptr;
    const auto code = rd_kafka_metadata(client_.get(), 0, nullptr, &raw,
                                        static_cast<int>(metadata_slice.count()));
    const Metadata metadata(raw);
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR) return {};
    if (deadline.passed()) return failed("fetching metadata", code);
    if (auto r = meanwhile_(); !r) return r;
  }
}

// The client goes on where it was when it is called again.
Result<void> KafkaProducer::init_transactions() {
  for (const Deadline deadline(init_deadline);;) {
    const auto called = Clock::now();
    KafkaError error(
        rd_kafka_init_transactions(client_.get(), static_cast<int>(init_slice.count())));
    if (!error) return {};
    // Its time was over; why it is not done yet can have any code.
    const bool goes_on =
        rd_kafka_error_is_retriable(error.get()) != 0 && Clock::now() - called >= init_slice / 2;
    if (goes_on && !deadline.passed()) {
      if (auto r = meanwhile_(); !r) return r;
      continue;
    }
    Error e = failed("initialising transactions", std::move(error), true);
    if (e.fault != Fault::kafka) return e;
    // The client says only that it waited in vain, though the brokers answered a moment ago.
    if (const auto why = inspect_transaction_log(client_.get(), Deadline(reason_deadline))) {
      e.what += "; " + why->what;
      e.hint = why->hint;
    }
    return e;
  }
}

Result<void> KafkaProducer::probe() {
  auto conf = make_conf(options_, {});
  if (!conf) return conf.error();
  auto client = make_client(RD_KAFKA_PRODUCER, std::move(*conf));
  if (!client) return client.error();
  const TopicHandle topic(
      rd_kafka_topic_new(client->get(), options_.progress_topic.c_str(), nullptr));
  const rd_kafka_metadata_t* raw = nullptr;
  const auto code = rd_kafka_metadata(client->get(), 0, topic.get(), &raw,
                                      static_cast<int>(metadata_deadline.count()));
  const Metadata metadata(raw);
  if (code == RD_KAFKA_RESP_ERR_NO_ERROR) return {};
  return error_of("asking whether the cluster is there", code);
}

}  // namespace relay::kafka
