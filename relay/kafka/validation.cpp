// SPDX-License-Identifier: Apache-2.0
#include "relay/kafka/validation.h"

#include <utility>

namespace relay::kafka {
namespace {

constexpr Millis look_ups_max{1'000};  // shorter than a lease, which nobody renews meanwhile
constexpr std::int64_t record_overhead =
    128;  // of a record and its batch beside key, value and headers, generously

std::int64_t header_bytes(const Message& m, const Page& page) {
  std::int64_t sum = 0;
  for (auto i = m.headers_from; i < m.headers_to; ++i) {
    sum +=
        static_cast<std::int64_t>(page.headers[i].name.size() + page.headers[i].value.size()) + 8;
  }
  return sum;
}

Rejection too_large(const Message& m, std::size_t index, std::int64_t bytes,
                    const std::string& limit) {
  return {index, m.seq, "too_large",
          "the message has " + std::to_string(bytes) + " bytes, more than " + limit};
}

bool is_too_large(const Message& m, const Page& page, const TopicInfo& topic) {
  return topic.bytes_max != 0 && record_bytes(m, page) > topic.bytes_max;
}

Rejection too_old(const Message& m, std::size_t index, Millis age, const TopicInfo& topic) {
  return {index, m.seq, "too_old",
          "the batch was opened " + std::to_string(age.count()) +
              " ms ago, and the topic takes nothing older than " +
              std::to_string(topic.age_max.count()) +
              " ms (message.timestamp.before.max.ms); it is sent with a new time"};
}

}  // namespace

std::int64_t record_bytes(const Message& m, const Page& page) {
  const auto key = m.key ? m.key->size() : 0;
  const auto dedup = m.dedup_key ? m.dedup_key->size() : 36;
  return m.payload_bytes + static_cast<std::int64_t>(key + dedup) + header_bytes(m, page) +
         record_overhead;
}

std::optional<Rejection> message_error(const Message& m, std::size_t index, const Page& page,
                                       const TopicInfo& topic, const Options& options) {
  if (m.oversize) {
    return too_large(
        m, index, m.payload_bytes,
        "delivery.message_bytes_max (" + std::to_string(options.message_bytes_max) + ")");
  }
  if (m.bad_headers != nullptr) return Rejection{index, m.seq, "bad_headers", m.bad_headers};
  if (!is_too_large(m, page, topic)) return std::nullopt;
  return too_large(m, index, record_bytes(m, page),
                   "max.message.bytes of the topic (" + std::to_string(topic.bytes_max) + ")");
}

Millis age_of(std::optional<Timestamp> stamp) {
  if (!stamp) return Millis{0};
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<Millis>(now - *stamp);
}

Result<Validation> validate(const Page& page, Millis age, TopicDirectory& topics,
                            rd_kafka_t* client, const Options& options) {
  Validation out;
  const auto error_of_message = [&](Topic& topic, const Message& m,
                                    std::size_t index) -> std::optional<Rejection> {
    if (topic.info.unwritable())
      return Rejection{index, m.seq, topic.info.error_class, topic.info.error_text};
    // The topic's limit may have been raised.
    if (!m.oversize && m.bad_headers == nullptr && is_too_large(m, page, topic.info))
      topics.renew_limits(topic, client);
    if (age >= topic.info.age_max) return too_old(m, index, age, topic.info);
    return message_error(m, index, page, topic.info, options);
  };
  const Deadline deadline(look_ups_max);
  topics.begin_validation();
  const auto look_ups = topics.look_ups();
  const Topic* last = nullptr;
  bool overtime = false;  // what was looked up until then is known the next time
  auto looked = topics.visit(
      page, {}, client, [&](Topic& topic, const Message& m, std::size_t index) -> Result<void> {
        overtime = std::exchange(last, &topic) != &topic && topics.look_ups() != look_ups &&
                   deadline.passed();
        if (overtime) return Error{Fault::kafka, "looking up topics takes long"};
        if (topic.info.state == TopicInfo::State::doubtful) {
          out.complete = false;
        } else if (auto error = error_of_message(topic, m, index)) {
          out.rejected.push_back(std::move(*error));
        }
        return {};
      });
  if (overtime) out.complete = false;
  else if (!looked) return looked.error();
  if (out.complete) topics.end_validation();
  return out;
}

}  // namespace relay::kafka
