// SPDX-License-Identifier: Apache-2.0
#include "relay/kafka/delivery_reports.h"

#include <algorithm>
#include <utility>

#include "relay/base/mutants.h"
#include "relay/kafka/handle.h"

namespace relay::kafka {
namespace {

// Since librdkafka 2.4, which older headers do not know.
constexpr auto different_record_was_invalid = static_cast<rd_kafka_resp_err_t>(-138);

// A topic that bounds the age of records and may not be described: older batches than this are too
// old for it.
constexpr Millis stale_after{60'000};

bool is_purge(rd_kafka_resp_err_t code) {
  return code == RD_KAFKA_RESP_ERR__PURGE_QUEUE || code == RD_KAFKA_RESP_ERR__PURGE_INFLIGHT;
}

Topic* topic_of(const rd_kafka_message_t& m) {
  return static_cast<Topic*>(rd_kafka_topic_opaque(m.rkt));
}

}  // namespace

void DeliveryReports::begin(const Page& page, Millis age) {
  page_ = &page;
  age_ = age;
  failure_ = RD_KAFKA_RESP_ERR_NO_ERROR;
  heard_ = false;
  last_ = Clock::now();
  refused_.clear();
  refused_in_.clear();
  named_invalid_.clear();
  isolated_ = false;
}

void DeliveryReports::none_will_come() {
  page_ = nullptr;
  missing_ = 0;
}

void DeliveryReports::not_taken(std::size_t index, std::int64_t seq, rd_kafka_resp_err_t code) {
  refused_.push_back({index, seq, "refused", rd_kafka_err2str(code)});
  failure_ = code;
}

bool DeliveryReports::take(const rd_kafka_message_t& m) {
  --missing_;
  heard_ = true;
  if (m.err != RD_KAFKA_RESP_ERR_NO_ERROR && !MUTANT(swallow_delivery_error)) {
    take_failure(m);
    return false;
  }
  if (!is_progress(m) && m.offset >= 0) topic_of(m)->acknowledge(m.partition, m.offset);
  return true;
}

void DeliveryReports::take_failure(const rd_kafka_message_t& m) {
  // Of a batch that is new, it is a clock that is wrong.
  const bool too_old = m.err == RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP && age_ > stale_after;
  const bool permanent = too_old || error_of({}, m.err).fault == Fault::message;
  Topic* const topic = is_progress(m) ? nullptr : topic_of(m);
  const Partition partition{topic, m.partition};
  if (topic != nullptr) {
    if (m.err == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED) topic->info.refused = true;
    if (m.err == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE) topic->info.refused_size = true;
    if (permanent && page_ != nullptr) {
      const auto index = reinterpret_cast<std::size_t>(m._private) - 1;
      refused_.push_back({index, page_->messages[index].seq, too_old ? "too_old" : "refused",
                          rd_kafka_err2str(m.err)});
      refused_in_.push_back(partition);
    }
  }
  if (m.err == different_record_was_invalid) named_invalid_.insert(partition);
  if (failure_ == RD_KAFKA_RESP_ERR_NO_ERROR || permanent || is_purge(failure_)) failure_ = m.err;
}

// The answers of librdkafka's own events, such as a broker that goes away, are no reports: counted
// as such, they would hide that nothing is delivered.
bool DeliveryReports::silent_for(Millis limit, Clock::time_point now) {
  if (std::exchange(heard_, false)) last_ = now;
  return now - last_ > limit;
}

bool DeliveryReports::purged() const { return is_purge(failure_); }

// Where the broker named the invalid records of a record batch, no other message is a candidate,
// nor any of another partition: what is bad there is refused again.
void DeliveryReports::isolate() {
  // All records of a batch bear one time: each of a topic for which it is too old is bad by itself.
  isolated_ = !refused_.empty() && std::all_of(refused_.begin(), refused_.end(), [](const auto& r) {
    return r.error_class == "too_old";
  });
  if (isolated_) return;
  if (named_invalid_.empty() || refused_.size() != refused_in_.size())
    return;  // one was refused by librdkafka itself
  std::vector<Rejection> invalid;
  for (std::size_t i = 0; i < refused_.size(); ++i) {
    if (named_invalid_.contains(refused_in_[i])) invalid.push_back(refused_[i]);
  }
  if (invalid.empty()) return;
  refused_ = std::move(invalid);
  isolated_ = true;
}

}  // namespace relay::kafka
