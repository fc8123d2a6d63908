// SPDX-License-Identifier: Apache-2.0
#include "relay/kafka/vet.h"

#include <utility>

namespace outbox::kafka {
namespace {

constexpr Millis look_ups_max{1'000};  // shorter than a lease, which nobody renews meanwhile
constexpr std::int64_t record_overhead = 128;  // of a record and its batch beside key, value and headers, generously

std::int64_t header_bytes(const Message& m, const Page& page) {
  std::int64_t sum = 0;
  for (auto i = m.headers_from; i < m.headers_to; ++i) {
    sum += static_cast<std::int64_t>(page.headers[i].name.size() + page.headers[i].value.size()) + 8;
  }
  return sum;
}

std::int64_t record_bytes(const Message& m, const Page& page) {
  const auto key = m.key ? m.key->size() : 0;
  const auto dedup = m.dedup_key ? m.dedup_key->size() : 36;
  return m.payload_bytes + static_cast<std::int64_t>(key + dedup) + header_bytes(m, page) + record_overhead;
}

Rejection too_large(const Message& m, std::int64_t bytes, const std::string& limit) {
  return {m.seq, "too_large", "the message has " + std::to_string(bytes) + " bytes, more than " + limit};
}

bool is_too_large(const Message& m, const Page& page, const Topic& topic) {
  return topic.bytes_max != 0 && record_bytes(m, page) > topic.bytes_max;
}

}  // namespace

Result<Publisher::Vetted> vet(const Page& page, Topics& topics, rd_kafka_t* client, const Options& options) {
  Publisher::Vetted out;
  const std::string own_limit = "delivery.message_bytes_max (" + std::to_string(options.message_bytes_max) + ")";
  const auto fault_of = [&](Topic& topic, const Message& m) -> std::optional<Rejection> {
    if (topic.state == Topic::State::barred) return Rejection{m.seq, topic.error_class, topic.error_text};
    if (m.oversize) return too_large(m, m.payload_bytes, own_limit);
    if (m.bad_headers != nullptr) return Rejection{m.seq, "bad_headers", m.bad_headers};
    if (is_too_large(m, page, topic)) topics.renew_limits(topic, client);
    if (!is_too_large(m, page, topic)) return std::nullopt;
    return too_large(m, record_bytes(m, page), "max.message.bytes of the topic (" + std::to_string(topic.bytes_max) + ")");
  };
  const Deadline deadline(look_ups_max);
  topics.begin_vetting();
  const auto look_ups = topics.look_ups();
  const Topic* last = nullptr;
  bool overtime = false;  // what was looked up until then is known the next time
  auto looked = topics.visit(page, {}, client, [&](Topic& topic, const Message& m, std::size_t) -> Result<void> {
    overtime = std::exchange(last, &topic) != &topic && topics.look_ups() != look_ups && deadline.passed();
    if (overtime) return Error{Fault::kafka, "looking up topics takes long"};
    if (topic.state == Topic::State::doubtful) {
      out.settled = false;
    } else if (auto fault = fault_of(topic, m)) {
      out.rejected.push_back(std::move(*fault));
    }
    return {};
  });
  if (overtime) out.settled = false;
  else if (!looked) return looked.error();
  if (out.settled) topics.end_vetting();
  return out;
}

}  // namespace outbox::kafka
