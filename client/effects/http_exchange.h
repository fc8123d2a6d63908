// SPDX-License-Identifier: Apache-2.0
// One HTTP request, and how far it got on the wire.
//
//   1. run() performs the request, and counts the bytes written, head and body apart;
//   2. derives the Phase from these counts, not from the kind of error;
//   3. maps the status to an Answer (answer_of()), and reads Retry-After.
//
// Failure. Nothing is thrown: every failure is an Outcome with an error text.
// Used by one thread.
#pragma once

#include <string>
#include <string_view>

#include "client/effects/curl_request.h"

namespace outbox::effects {

// REQUIRES: the arguments of the constructor outlive the exchange.
class HttpExchange {
 public:
  // HEAD and GET have no body.
  HttpExchange(const Route& route, const std::string& method, std::string_view body);

  // REQUIRES: neither contains a control character. A header without a value is not sent.
  void add_header(const std::string& name, const std::string& value);

  // Makes the request. The Outcome lacks `object`, which the adapter reads from the body or
  // headers, and its answer follows from the status alone.
  Outcome run(Provider::Deadline deadline, const std::string& request_id_header);

  std::string header(const char* name) const { return request_.header(name); }
  const std::string& body() const { return request_.body(); }

 private:
  void count(curl_infotype kind, std::string_view bytes);
  Phase phase_of(CURLcode code);

  CurlRequest request_;
  const std::string method_;
  const std::size_t body_bytes_;
  // Bytes of the request written, and the size of its head; 0: the head is not complete.
  std::size_t written_ = 0;
  std::size_t head_bytes_ = 0;
  // Last bytes of an incomplete head, for an end that spans two writes.
  std::string tail_;
};

// A value of the effect's target, or what stands for it when it is absent.
std::string target_value(const Request& request, const std::string& name,
                         const std::string& otherwise);

// The table of outbox/http_provider.h.
Answer answer_of(int http_status);

// Parses a Retry-After header, in seconds or as a date; none: it is neither. Limited to a day, so
// that a provider's mistake cannot block an effect.
std::optional<std::chrono::milliseconds> retry_after_of(const std::string& value);

}  // namespace outbox::effects
