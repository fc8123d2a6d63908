// SPDX-License-Identifier: Apache-2.0
#include "relay/kafka/producer.h"

#include <algorithm>
#include <set>
#include <unordered_set>
#include <utility>

#include "relay/base/check.h"
#include "relay/base/log.h"
#include "relay/base/names.h"
#include "relay/base/sabotage.h"
#include "relay/kafka/inspect.h"
#include "relay/kafka/vet.h"

namespace outbox::kafka {
namespace {

constexpr int transaction_timeout_ms = 15'000;
constexpr Millis call_deadline{10'000};      // of one transactional call; less than the transaction's own time-out
constexpr Millis report_deadline{8'000};     // without a single delivery report
constexpr Millis metadata_deadline{5'000};
constexpr Millis metadata_slice{2'000};       // a question that is asked again, shorter than a lease
constexpr Millis init_slice{1'000};
constexpr Millis progress_deadline{4'000};   // shorter than a lease; unanswered, the question is asked again
constexpr Millis guard_deadline{2'000};
constexpr Millis trial_deadline{1'500};   // between two looks at the lease
constexpr Millis search_deadline{2'000};  // of as many trials as there is time for
constexpr Millis last_record_deadline{500};
constexpr Millis reason_deadline{1'000};     // until the client says why it takes no more messages
constexpr int give_up_ms = 1;
constexpr std::int64_t beside_payload_max = key_bytes_max + headers_bytes_max + 256 * 1024;
// Of librdkafka's queue: the most that it takes. A page bounds what is in it, and a batch in doubt can be larger than pages are now.
constexpr const char* queue_unbounded = "2147483647";

}  // namespace

Result<Conf> Producer::producer_conf() {
  Properties ours = {{"enable.idempotence", "true"},
                     {"partitioner", "murmur2_random"},
                     {"linger.ms", "0"},
                     {"queue.buffering.max.messages", queue_unbounded},
                     {"queue.buffering.max.kbytes", queue_unbounded},
                     {"message.max.bytes", std::to_string(options_.message_bytes_max + beside_payload_max)}};
  if (const auto bytes = topics_.narrowest()) ours.emplace_back("batch.size", std::to_string(*bytes));
  if (record_batch_max_ != 0) ours.emplace_back("batch.num.messages", std::to_string(record_batch_max_));
  if (transactional()) {
    ours.emplace_back("transactional.id", options_.transactional_id());
    ours.emplace_back("transaction.timeout.ms", std::to_string(transaction_timeout_ms));
  } else {
    ours.emplace_back("message.timeout.ms", "0");  // a timed-out message would leave the next one of its key delivered
    // What follows a refused record batch must wait: its other messages are good, and come before.
    ours.emplace_back("enable.gapless.guarantee", "true");
  }
  return make_conf(options_, ours);
}

// Every failure ends the incarnation: what is still under way may act later, and only a new epoch makes the broker refuse it.
Error Producer::failed(const char* doing, rd_kafka_resp_err_t code, const std::string& detail) {
  clean_ = false;
  return error_of(doing, code, detail);
}

Error Producer::failed(const char* doing, KafkaError error, bool in_doubt) {
  Error e = failed(doing, rd_kafka_error_code(error.get()), rd_kafka_error_string(error.get()));
  if (e.fault == Fault::message || e.fault == Fault::topic) e.fault = Fault::kafka;  // of the transaction, not of one message
  e.in_doubt = in_doubt;
  return e;
}

Result<std::optional<Progress>> Producer::newest_progress(bool settled) {
  auto progress = read_progress(options_, settled && transactional(), Deadline(progress_deadline), &reaper_);
  if (progress && !progress_topic_guarded_) {
    progress_topic_guarded_ = true;
    if (auto r = guard_progress_topic(options_, Deadline(guard_deadline), &reaper_); !r) return r.error();
  }
  return progress;
}

// Two defects of librdkafka (2.0.2 to 2.16) can end the process when a client is destroyed amid a transaction:
// * It is about to register partitions: the broker's thread then answers that request before the main thread has counted it. An abort,
//   even one that has no time, ends the registering. Should it reach the broker, and however late, there is no later transaction of
//   this epoch to act on.
// * The transaction has failed: its end frees the text of that error and keeps the pointer, and an answer to a Produce request that
//   comes later, and says that the producer was fenced, frees it again. What is purged has no answer.
void Producer::give_up_transaction() {
  if (!std::exchange(in_transaction_, false) || reports_.missing() == 0) return;
  const KafkaError ignored(rd_kafka_abort_transaction(client_.get(), give_up_ms));
  rd_kafka_purge(client_.get(), RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
  clean_ = false;
}

void Producer::abandon() {
  give_up_transaction();
  // At-least-once, nobody has waited for the last progress record: it tells whose records these are.
  if (clean_ && !transactional()) rd_kafka_flush(client_.get(), static_cast<int>(last_record_deadline.count()));
  topics_.detach();
  progress_topic_.reset();
  if (clean_ && reports_.missing() == 0) {
    reaper_.take(std::move(client_));  // nothing of ours is under way in it
  }
  client_.reset();
  clean_ = false;
  later_.reset();
  reports_.none_will_come();
}

Result<void> Producer::renew(Mode mode, const std::function<Result<void>()>& meanwhile) {
  abandon();
  mode_ = mode;
  meanwhile_ = meanwhile;
  record_batch_max_ = wanted_record_batch_max_;
  auto conf = producer_conf();
  if (!conf) return conf.error();
  balance_.attach(conf->get());
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

  // Metadata first: otherwise the first transaction waits for up to a second.
  progress_topic_.reset(rd_kafka_topic_new(client_.get(), options_.progress_topic.c_str(), nullptr));
  topics_.attach(client_.get());
  if (auto r = fetch_metadata(meanwhile); !r) return r;
  if (transactional()) {
    if (auto r = init_transactions(meanwhile); !r) return r;
  }
  clean_ = true;
  return {};
}

Result<void> Producer::fetch_metadata(const std::function<Result<void>()>& meanwhile) {
  for (const Deadline deadline(metadata_deadline);;) {
    const rd_kafka_metadata_t* raw = nullptr;
    const auto code = rd_kafka_metadata(client_.get(), 0, nullptr, &raw, static_cast<int>(metadata_slice.count()));
    const Metadata metadata(raw);
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR) return {};
    if (deadline.passed()) return failed("fetching metadata", code);
    if (auto r = meanwhile(); !r) return r;
  }
}

// The client goes on where it was when it is called again.
Result<void> Producer::init_transactions(const std::function<Result<void>()>& meanwhile) {
  for (const Deadline deadline(call_deadline);;) {
    const auto called = Clock::now();
    KafkaError error(rd_kafka_init_transactions(client_.get(), static_cast<int>(init_slice.count())));
    if (!error) return {};
    // Its time was over; why it is not done yet can have any code.
    const bool goes_on = rd_kafka_error_is_retriable(error.get()) != 0 && Clock::now() - called >= init_slice / 2;
    if (goes_on && !deadline.passed()) {
      if (auto r = meanwhile(); !r) return r;
      continue;
    }
    Error e = failed("initialising transactions", std::move(error), true);
    // The client says only that it waited in vain, though the brokers answered a moment ago.
    if (const auto why = e.fault == Fault::kafka ? inspect_transaction_log(client_.get(), Deadline(reason_deadline)) : std::nullopt) {
      e.what += "; " + why->what;
      e.hint = why->hint;
    }
    return e;
  }
}

Result<Publisher::Vetted> Producer::vet(const Page& page) {
  CHECK(client_);
  if (intruded_) return Error{Fault::fenced, "another relay writes progress records under our name"};
  return kafka::vet(page, topics_, client_.get(), options_);
}

Result<void> Producer::begin() {
  CHECK(clean(mode_) || SABOTAGED(incarnation_rule_off));
  topics_.begin_batch();
  if (!transactional()) return {};
  KafkaError error(rd_kafka_begin_transaction(client_.get()));
  if (error) return failed("beginning a transaction", std::move(error), false);
  in_transaction_ = true;
  return {};
}

Result<void> Producer::send_message(const Topic& topic, const Message& m, const Page& page, std::size_t index,
                                    std::int64_t timestamp_ms) {
  Headers headers(rd_kafka_headers_new(1 + (m.headers_to - m.headers_from)));
  char id[36];
  if (!m.dedup_key) m.id.write(id);
  const std::string_view dedup = m.dedup_key ? *m.dedup_key : std::string_view(id, sizeof id);
  rd_kafka_header_add(headers.get(), "dedup-key", 9, dedup.data(), static_cast<ssize_t>(dedup.size()));
  for (auto i = m.headers_from; i < m.headers_to; ++i) {
    const Header& h = page.headers[i];
    rd_kafka_header_add(headers.get(), h.name.data(), static_cast<ssize_t>(h.name.size()), h.value.data(), static_cast<ssize_t>(h.value.size()));
  }
  if (topic.log_append_time) {
    const std::string sent_at = std::to_string(timestamp_ms);
    rd_kafka_header_add(headers.get(), "sent-at", 7, sent_at.data(), static_cast<ssize_t>(sent_at.size()));
  }
  const auto bytes = [](const std::optional<std::string_view>& v) { return v ? const_cast<char*>(v->data()) : nullptr; };
  const auto size = [](const std::optional<std::string_view>& v) { return v ? v->size() : std::size_t{0}; };
  const auto code = rd_kafka_producev(client_.get(), RD_KAFKA_V_RKT(topic.handle.get()), RD_KAFKA_V_KEY(bytes(m.key), size(m.key)),
                                      RD_KAFKA_V_VALUE(bytes(m.payload), size(m.payload)), RD_KAFKA_V_TIMESTAMP(timestamp_ms),
                                      RD_KAFKA_V_HEADERS(headers.get()), RD_KAFKA_V_OPAQUE(Reports::opaque(index)), RD_KAFKA_V_END);
  if (code == RD_KAFKA_RESP_ERR_NO_ERROR) {
    static_cast<void>(headers.release());  // librdkafka owns them now
    reports_.sent();
    return {};
  }
  Error e = failed("sending a message", code);
  if (e.fault == Fault::message) reports_.not_taken(m.seq, code);
  if (e.fault == Fault::topic) e.fault = Fault::kafka;  // looked up a moment ago: look it up again
  return e;
}

Result<void> Producer::send_progress() {
  const std::string value = progress_json(progress_);
  reports_.sent();
  const auto code = rd_kafka_producev(client_.get(), RD_KAFKA_V_RKT(progress_topic_.get()), RD_KAFKA_V_PARTITION(0),
                                      RD_KAFKA_V_KEY(options_.relay.data(), options_.relay.size()),
                                      RD_KAFKA_V_VALUE(const_cast<char*>(value.data()), value.size()),
                                      RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_OPAQUE(nullptr), RD_KAFKA_V_END);
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) return failed("sending the progress record", code);
  return {};
}

Result<void> Producer::send(const Batch& batch, const Page& page, std::span<const std::size_t> skip, const Progress& progress) {
  reports_.begin(page);
  progress_ = progress;
  timestamp_ms_ = std::chrono::duration_cast<Millis>(batch.opened_at).count();
  later_.reset();
  if (!transactional()) {
    auto first = send_first_records(skip);
    if (!first) return first.error();
    if (!first->empty()) {
      later_.emplace(skip.begin(), skip.end());
      later_->insert(later_->end(), first->begin(), first->end());
      std::sort(later_->begin(), later_->end());
      return {};
    }
  }
  return send_all_but(skip);
}

Result<void> Producer::send_all_but(std::span<const std::size_t> skip) {
  auto sent = topics_.visit(*reports_.page(), skip, client_.get(), [&](const Topic& topic, const Message& m, std::size_t index) {
    return send_message(topic, m, *reports_.page(), index, timestamp_ms_);
  });
  if (!sent) {
    poll_for_reason();
    return sent;
  }
  if (transactional()) return send_progress();
  return {};
}

// A broker takes the first record batch that it sees of a producer whatever its sequence number is. Had it refused the very first
// of a partition, it would take the next, and a key's later messages would come before its earlier ones. So the first record with
// a key goes alone to each partition that has acknowledged nothing to this incarnation; a transaction is aborted instead.
Result<std::vector<std::size_t>> Producer::send_first_records(std::span<const std::size_t> skip) {
  std::vector<std::size_t> first;
  std::set<std::pair<const Topic*, std::int32_t>> seen;
  auto sent = topics_.visit(*reports_.page(), skip, client_.get(), [&](const Topic& topic, const Message& m, std::size_t index) -> Result<void> {
    if (!m.key || topic.all_acknowledged()) return {};
    const auto partition = topic.partition_of(*m.key);
    if (topic.has_acknowledged(partition) || !seen.emplace(&topic, partition).second) return {};
    first.push_back(index);
    return send_message(topic, m, *reports_.page(), index, timestamp_ms_);
  });
  if (!sent) {
    poll_for_reason();
    return sent.error();
  }
  return first;
}

// Once Kafka has refused a message, the client takes no more and purges what it has; why, it may say later.
void Producer::poll_for_reason() {
  for (const Deadline deadline(reason_deadline); !deadline.passed();) {
    if (reports_.failed() && !reports_.purged()) return;
    rd_kafka_poll(client_.get(), deadline.left_ms());
  }
}

void Producer::on_report(rd_kafka_t*, const rd_kafka_message_t* m, void* self) {
  auto* const producer = static_cast<Producer*>(self);
  if (producer->reports_.take(*m) && Reports::is_progress(*m)) producer->progress_written(m->offset);
}

// At-least-once the broker fences nobody, but it numbers our records: a gap is a record of somebody else.
void Producer::progress_written(std::int64_t offset) {
  if (transactional()) return;
  intruded_ = intruded_ || (progress_offset_ >= 0 && offset > progress_offset_ + 1);
  progress_offset_ = offset;
}

Result<bool> Producer::reported() {
  CHECK(client_);
  while (rd_kafka_poll(client_.get(), 0) > 0) {
  }
  if (reports_.purged()) {
    const auto why = transaction_error();
    const Fault fault = error_of({}, why).fault;
    if (fault == Fault::topic || fault == Fault::fenced) reports_.failed_because(why);
    else poll_for_reason();  // a refused message is named by its report
  }
  if (reports_.failed()) {
    reports_.name_culprits();
    Error e = failed("delivering messages", reports_.failure());
    if (reports_.failure() == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED) bar_unwritable_topics();
    if (e.fault == Fault::topic) e.fault = Fault::kafka;
    return e;
  }
  char why[512];
  const auto fatal = rd_kafka_fatal_error(client_.get(), why, sizeof why);
  if (fatal != RD_KAFKA_RESP_ERR_NO_ERROR) return failed("delivering messages", fatal, why);
  if (reports_.missing() == 0 && later_) {
    const auto skip = std::move(*later_);
    later_.reset();
    if (auto r = send_all_but(skip); !r) return r.error();
  }
  if (reports_.missing() == 0) return true;
  if (reports_.silent_for(report_deadline, Clock::now())) return failed("delivering messages", RD_KAFKA_RESP_ERR__TIMED_OUT);
  return false;
}

// Why librdkafka gave up the transaction: where the broker refused a partition of it, messages are only purged. A transaction cannot
// begin in that state, and the refusal to begin one carries the reason.
rd_kafka_resp_err_t Producer::transaction_error() {
  if (!transactional()) return RD_KAFKA_RESP_ERR_NO_ERROR;
  const KafkaError error(rd_kafka_begin_transaction(client_.get()));
  return error ? rd_kafka_error_code(error.get()) : RD_KAFKA_RESP_ERR_NO_ERROR;
}

// Metadata shows a topic to whoever may describe it; that we may not write to it shows only when we try. Delivery reports name
// the topic. In a transaction nothing does, so one message of each topic is tried, in transactions that are never committed: of several
// topics, fewer after each that failed. What is barred here is parked by recovery. What there was no time for is tried by the next
// attempt, which leaves out those that may be written to.
void Producer::bar_unwritable_topics() {
  if (topics_.bar_refused() > 0 || !transactional()) return;
  CHECK(reports_.page() != nullptr);
  const Page& page = *reports_.page();
  const Deadline deadline(search_deadline);
  std::vector<std::size_t> untried;  // indexes into the page, one of each topic
  std::unordered_set<std::string_view> seen;
  for (std::size_t i = 0; i < page.messages.size(); ++i) {
    const Message& m = page.messages[i];
    if (!m.oversize && seen.insert(m.topic).second && !writable_.contains(std::string(m.topic))) untried.push_back(i);
  }
  while (!untried.empty() && !deadline.passed() && meanwhile_()) {
    const std::span<const std::size_t> some(untried.data(), std::min(trial_topics_, untried.size()));
    const Trial trial = try_topics(page, some);
    if (!trial.answer) {
      if (trial.topics > 0) trial_topics_ = std::max<std::size_t>(1, trial.topics / 2);  // too many for the time there is
      break;
    }
    const bool bad = *trial.answer != RD_KAFKA_RESP_ERR_NO_ERROR;
    if (bad && trial.topics > 1) {
      trial_topics_ = trial.topics / 2;
      continue;
    }
    for (const std::size_t i : some.first(trial.topics)) {
      if (!bad) writable_.emplace(page.messages[i].topic);
    }
    if (*trial.answer == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED) {
      if (const auto topic = topics_.get(page.messages[some.front()].topic, client_.get())) (*topic)->refused = true;
    }
    if (!bad && trial.quick) trial_topics_ *= 2;
    untried.erase(untried.begin(), untried.begin() + static_cast<std::ptrdiff_t>(trial.topics));
  }
  if (untried.empty()) forget_trials();
  abandon();
  topics_.bar_refused();
}

// One message of each of these topics, or of as many of the first as there is time to look up, in a transaction that is given up.
Producer::Trial Producer::try_topics(const Page& page, std::span<const std::size_t> messages) {
  const auto meanwhile = meanwhile_;
  if (!renew(mode_, meanwhile)) return {};
  const KafkaError error(rd_kafka_begin_transaction(client_.get()));
  in_transaction_ = !error;
  reports_.forget_failure();
  if (error) return {};
  const Deadline look_ups(trial_deadline / 2);
  const Deadline deadline(trial_deadline);
  Trial trial;
  while (trial.topics < messages.size() && (trial.topics == 0 || !look_ups.passed())) {
    const std::size_t i = messages[trial.topics++];
    const auto topic = topics_.get(page.messages[i].topic, client_.get());
    if (!topic) return trial;
    if ((*topic)->state == Topic::State::ready && !send_message(**topic, page.messages[i], page, i, 0)) return trial;
  }
  while (reports_.missing() > 0 && !deadline.passed()) rd_kafka_poll(client_.get(), 50);
  trial.quick = deadline.left() > trial_deadline / 2;
  if (reports_.purged()) trial.answer = transaction_error();
  else if (reports_.missing() == 0) trial.answer = reports_.failure();
  return trial;
}

void Producer::forget_trials() {
  writable_.clear();
  trial_topics_ = trial_topics_first;
}

Result<Offsets> Producer::commit() {
  if (transactional()) {
    in_transaction_ = false;
    KafkaError error(rd_kafka_commit_transaction(client_.get(), static_cast<int>(call_deadline.count())));
    if (error) return failed("committing a transaction", std::move(error), true);
    if (!balance_.even()) {
      clean_ = false;
      log::event(log::Level::info, "transaction_disturbed", {{"batch", progress_.number}});
    }
  } else if (auto r = send_progress(); !r) {
    return r.error();
  }
  reports_.end();
  forget_trials();
  return topics_.delivered();
}

Result<void> Producer::probe() {
  auto conf = make_conf(options_, {});
  if (!conf) return conf.error();
  auto client = make_client(RD_KAFKA_PRODUCER, std::move(*conf));
  if (!client) return client.error();
  const TopicHandle topic(rd_kafka_topic_new(client->get(), options_.progress_topic.c_str(), nullptr));
  const rd_kafka_metadata_t* raw = nullptr;
  const auto code = rd_kafka_metadata(client->get(), 0, topic.get(), &raw, static_cast<int>(metadata_deadline.count()));
  const Metadata metadata(raw);
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) return error_of("asking whether the cluster is there", code);
  return {};
}

}  // namespace outbox::kafka
