// SPDX-License-Identifier: Apache-2.0
// KafkaProducer's batches: validated, begun, sent, reported, committed. Records are handed to
// librdkafka without copies of what they hold; delivery reports come while this thread polls. The
// first failure makes the incarnation unclean, and the loop renews it: see incarnation.cpp.
#include "relay/kafka/producer.h"

#include <set>
#include <utility>

#include "common/check.h"
#include "relay/base/log.h"
#include "relay/base/mutants.h"
#include "relay/kafka/record.h"
#include "relay/kafka/validation.h"

namespace relay::kafka {
namespace {

// Of a commit; less than the transaction's own time-out.
constexpr Millis commit_deadline{10'000};
constexpr Millis report_deadline{8'000};  // without a single delivery report
constexpr Millis reason_deadline{1'000};  // until the client says why it takes no more messages

}  // namespace

Result<Validation> KafkaProducer::validate(const Page& page, std::optional<Timestamp> stamp) {
  CHECK(client_);
  if (intruded_) {
    return Error{Fault::fenced, "another relay writes progress records under our name"};
  }
  return kafka::validate(page, age_of(stamp), topics_, client_.get(), options_);
}

Result<void> KafkaProducer::begin() {
  CHECK(clean(mode_) || MUTANT(incarnation_rule_off));
  topics_.begin_batch();
  if (!transactional()) return {};
  KafkaError error(rd_kafka_begin_transaction(client_.get()));
  if (error) return failed("beginning a transaction", std::move(error), false);
  in_transaction_ = true;
  return {};
}

// Send --------------------------------------------------------------------------------------------

Result<void> KafkaProducer::send_message(const Topic& topic, const Page& page, std::size_t index,
                                         std::int64_t timestamp_ms) {
  // Were it librdkafka that counts the partitions, one that was added meanwhile would get its first
  // record among others: see send_first_records().
  const Message& m = page.messages[index];
  const bool ours = m.key && !transactional();
  const auto partition = ours ? topic.writer.partition_of(*m.key) : RD_KAFKA_PARTITION_UA;
  const auto code = produce(client_.get(), topic, page, index, partition, timestamp_ms);
  if (code == RD_KAFKA_RESP_ERR_NO_ERROR) {
    reports_.sent();
    return {};
  }
  Error e = failed("sending a message", code);
  if (e.fault == Fault::message) reports_.not_taken(index, page.messages[index].seq, code);
  if (e.fault == Fault::topic) e.fault = Fault::kafka;  // looked up a moment ago: look it up again
  return e;
}

Result<void> KafkaProducer::send_progress() {
  reports_.sent();
  const auto code =
      produce_progress(client_.get(), progress_topic_.get(), options_.relay, progress_);
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) return failed("sending the progress record", code);
  return {};
}

Result<Delivery> KafkaProducer::send(const Batch& batch, const Page& page, const PageMask& masked,
                                     const Progress& progress) {
  reports_.begin(page, age_of(batch.opened_at));
  progress_ = progress;
  timestamp_ms_ = std::chrono::duration_cast<Millis>(batch.opened_at).count();
  later_.reset();
  const auto sent = send_records(masked);
  if (!sent && refused().empty()) return sent.error();
  return or_refused(false);
}

// Kafka has refused messages, or not.
Delivery KafkaProducer::or_refused(bool complete) const {
  if (!refused().empty()) return Delivery::refused;
  return complete ? Delivery::complete : Delivery::pending;
}

Result<void> KafkaProducer::send_records(const PageMask& masked) {
  if (!transactional()) {
    const auto waits = send_first_records(masked);
    if (!waits) return waits.error();
    if (*waits) return {};
  }
  return send_all_but(masked);
}

Result<void> KafkaProducer::send_all_but(const PageMask& masked) {
  const Page& page = *reports_.page();
  auto sent = topics_.visit(page, masked, client_.get(),
                            [&](const Topic& topic, const Message&, std::size_t index) {
                              return send_message(topic, page, index, timestamp_ms_);
                            });
  if (!sent) {
    poll_for_reason();
    return sent;
  }
  if (transactional()) return send_progress();
  return {};
}

// A broker takes the first record batch that it sees of a producer whatever its sequence number is.
// Had it refused the very first of a partition, it would take the next, and a key's later messages
// would come before its earlier ones. So the first record with a key goes alone to each partition
// that has acknowledged nothing to this incarnation; a transaction is aborted instead.
//
// True: there are such records; the others wait in later_.
Result<bool> KafkaProducer::send_first_records(const PageMask& masked) {
  const Page& page = *reports_.page();
  PageMask with_first = masked;
  std::set<std::pair<const Topic*, std::int32_t>> seen;
  const auto send_first = [&](const Topic& topic, const Message& m,
                              std::size_t index) -> Result<void> {
    if (!m.key || topic.writer.all_acknowledged()) return {};
    const auto partition = topic.writer.partition_of(*m.key);
    const bool first =
        !topic.writer.has_acknowledged(partition) && seen.emplace(&topic, partition).second;
    if (!first) return {};
    with_first.add(index);
    return send_message(topic, page, index, timestamp_ms_);
  };
  if (auto sent = topics_.visit(page, masked, client_.get(), send_first); !sent) {
    poll_for_reason();
    return sent.error();
  }
  if (seen.empty()) return false;
  later_ = std::move(with_first);
  return true;
}

// Once Kafka has refused a message, the client takes no more and purges what it has; why, it may
// say later.
void KafkaProducer::poll_for_reason() {
  for (const Deadline deadline(reason_deadline); !deadline.passed();) {
    if (reports_.failed() && !reports_.purged()) return;
    rd_kafka_poll(client_.get(), deadline.left_ms());
  }
}

// Reports -----------------------------------------------------------------------------------------

void KafkaProducer::on_report(rd_kafka_t*, const rd_kafka_message_t* m, void* self) {
  auto* const producer = static_cast<KafkaProducer*>(self);
  const bool arrived = producer->reports_.take(*m);
  if (arrived && DeliveryReports::is_progress(*m)) producer->progress_written(m->offset);
}

// At-least-once the broker fences nobody, but it numbers our records: a gap is a record of somebody
// else.
void KafkaProducer::progress_written(std::int64_t offset) {
  if (transactional()) return;
  intruded_ = intruded_ || (progress_offset_ >= 0 && offset > progress_offset_ + 1);
  progress_offset_ = offset;
}

Result<Delivery> KafkaProducer::reported() {
  const auto complete = poll_reports();
  if (!complete && refused().empty()) return complete.error();
  return or_refused(complete && *complete);
}

// True: all have come, and each is good.
Result<bool> KafkaProducer::poll_reports() {
  CHECK(client_);
  while (rd_kafka_poll(client_.get(), 0) > 0) {
  }
  if (reports_.purged()) {
    const auto why = transaction_error();
    const Fault fault = error_of({}, why).fault;
    if (fault == Fault::topic || fault == Fault::fenced) reports_.failed_because(why);
    else poll_for_reason();  // a refused message is named by its report
  }
  if (reports_.failed()) return delivery_failed();
  char why[512];
  const auto fatal = rd_kafka_fatal_error(client_.get(), why, sizeof why);
  if (fatal != RD_KAFKA_RESP_ERR_NO_ERROR) return failed("delivering messages", fatal, why);
  if (reports_.missing() == 0 && later_) {
    const auto masked = std::move(*later_);
    later_.reset();
    if (auto r = send_all_but(masked); !r) return r.error();
  }
  if (reports_.missing() == 0) return true;
  if (reports_.silent_for(report_deadline, Clock::now())) {
    return failed("delivering messages", RD_KAFKA_RESP_ERR__TIMED_OUT);
  }
  return false;
}

Error KafkaProducer::delivery_failed() {
  reports_.isolate();
  Error e = failed("delivering messages", reports_.failure());
  if (reports_.failure() == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED) find_unwritable_topics();
  if (e.fault == Fault::topic) e.fault = Fault::kafka;
  return e;
}

// Why librdkafka gave up the transaction: where the broker refused a partition of it, messages are
// only purged. A transaction cannot begin in that state, and the refusal to begin one carries the
// reason.
rd_kafka_resp_err_t KafkaProducer::transaction_error() {
  if (!transactional()) return RD_KAFKA_RESP_ERR_NO_ERROR;
  const KafkaError error(rd_kafka_begin_transaction(client_.get()));
  return error ? rd_kafka_error_code(error.get()) : RD_KAFKA_RESP_ERR_NO_ERROR;
}

Result<Offsets> KafkaProducer::commit() {
  if (transactional()) {
    in_transaction_ = false;
    KafkaError error(
        rd_kafka_commit_transaction(client_.get(), static_cast<int>(commit_deadline.count())));
    if (error) return failed("committing a transaction", std::move(error), true);
    if (!in_flight_.none()) {
      clean_ = false;
      log::event(log::Level::info, "transaction_disturbed", {{"batch", progress_.number}});
    }
  } else if (auto r = send_progress(); !r) {
    return r.error();
  }
  reports_.end();
  write_probe_.forget();
  return topics_.delivered();
}

// Probe -------------------------------------------------------------------------------------------

// Recovery parks the messages of the topics that are found.
void KafkaProducer::find_unwritable_topics() {
  if (topics_.mark_refused() > 0 || !transactional()) return;
  CHECK(reports_.page() != nullptr);
  write_probe_.search(*reports_.page(), *this);
  abandon();
  topics_.mark_refused();
}

bool KafkaProducer::begin_probe() {
  const auto meanwhile = meanwhile_;
  if (!renew(mode_, meanwhile)) return false;
  const KafkaError error(rd_kafka_begin_transaction(client_.get()));
  in_transaction_ = !error;
  reports_.forget_failure();
  return !error;
}

bool KafkaProducer::send_probe(const Page& page, std::size_t index) {
  const auto topic = topics_.get(page.messages[index].topic, client_.get());
  if (!topic) return false;
  if ((*topic)->info.state != TopicInfo::State::ready) return true;
  return static_cast<bool>(send_message(**topic, page, index, 0));
}

void KafkaProducer::await_probe(Deadline deadline) {
  while (reports_.missing() > 0 && !deadline.passed()) rd_kafka_poll(client_.get(), 50);
}

std::optional<rd_kafka_resp_err_t> KafkaProducer::probe_answer() {
  if (reports_.purged()) return transaction_error();
  if (reports_.missing() == 0) return reports_.failure();
  return std::nullopt;
}

void KafkaProducer::probe_refused(const Page& page, std::size_t index) {
  const auto topic = topics_.get(page.messages[index].topic, client_.get());
  if (topic) (*topic)->info.refused = true;
}

}  // namespace relay::kafka
