// SPDX-License-Identifier: Apache-2.0
#include "relay/kafka/in_flight_requests.h"

namespace relay::kafka {
namespace {

constexpr const char* interceptor = "outbox-in-flight-requests";
// Some answers are reported twice, by the broker's thread and by the main thread: only the first is
// counted.
thread_local bool in_broker_thread = false;

}  // namespace

void InFlightRequests::attach(rd_kafka_conf_t* conf) {
  for (auto& n : sent_) n = 0;
  for (auto& n : answered_) n = 0;
  rd_kafka_conf_interceptor_add_on_new(conf, interceptor, &on_new, this);
}

bool InFlightRequests::none() const {
  for (std::size_t i = 0; i < counted.size(); ++i) {
    if (sent_[i].load() != answered_[i].load()) return false;
  }
  return true;
}

void InFlightRequests::count(std::array<std::atomic<std::uint64_t>, counted.size()>& where,
                             std::int16_t key) {
  if (!in_broker_thread) return;
  for (std::size_t i = 0; i < counted.size(); ++i) {
    if (counted[i] == key) where[i].fetch_add(1);
  }
}

rd_kafka_resp_err_t InFlightRequests::on_new(rd_kafka_t* rk, const rd_kafka_conf_t*, void* self,
                                             char*, std::size_t) {
  rd_kafka_interceptor_add_on_thread_start(rk, interceptor, &on_thread_start, self);
  rd_kafka_interceptor_add_on_request_sent(rk, interceptor, &on_sent, self);
  rd_kafka_interceptor_add_on_response_received(rk, interceptor, &on_answer, self);
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

rd_kafka_resp_err_t InFlightRequests::on_thread_start(rd_kafka_t*, rd_kafka_thread_type_t type,
                                                      const char*, void*) {
  in_broker_thread = type == RD_KAFKA_THREAD_BROKER;
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

rd_kafka_resp_err_t InFlightRequests::on_sent(rd_kafka_t*, int, const char*, std::int32_t,
                                              std::int16_t key, std::int16_t, std::int32_t,
                                              std::size_t, void* self) {
  auto* const requests = static_cast<InFlightRequests*>(self);
  requests->count(requests->sent_, key);
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

// `err` is of the transport only. A request that failed in the queue was never sent, and an answer
// without transport success is none: both leave the counts as they are, or uneven, which errs on
// the safe side.
rd_kafka_resp_err_t InFlightRequests::on_answer(rd_kafka_t*, int, const char*, std::int32_t,
                                                std::int16_t key, std::int16_t, std::int32_t,
                                                std::size_t, std::int64_t, rd_kafka_resp_err_t err,
                                                void* self) {
  auto* const requests = static_cast<InFlightRequests*>(self);
  if (err == RD_KAFKA_RESP_ERR_NO_ERROR) requests->count(requests->answered_, key);
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

}  // namespace relay::kafka
