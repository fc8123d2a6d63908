// SPDX-License-Identifier: Apache-2.0
// One HTTP request, and how far it got.
#pragma once

#include <string>
#include <string_view>

#include "client/effects/curl_request.h"

namespace outbox::effects {

// Made for one request; the texts that it is given outlive it. Used by one thread.
class HttpExchange {
 public:
  // `method`: HEAD and GET carry no body.
  HttpExchange(const Route& route, const std::string& method, std::string_view body);

  // REQUIRES: neither holds a control character. A header without a value is not sent.
  void add_header(const std::string& name, const std::string& value);

  // Makes the request. What came of it without `object`: that is in the answer's body or headers, and the adapter's to find.
  // The answer is what HTTP's status says by itself; answer_of() is that table.
  Outcome run(Provider::Deadline deadline, const std::string& request_id_header);

  std::string header(const char* name) const { return request_.header(name); }
  const std::string& body() const { return request_.body(); }

 private:
  void count(curl_infotype kind, std::string_view bytes);
  Phase phase_of(CURLcode code);

  CurlRequest request_;
  const std::string method_;
  const std::size_t body_bytes_;
  // Of the request: bytes written, and of those the head's, once it is complete.
  std::size_t written_ = 0;
  std::size_t head_bytes_ = 0;
  std::string tail_;
};

Answer answer_of(int http_status);

// Seconds or a date, as in the header Retry-After; none if it is neither. At most a day: a provider's slip must not park an effect.
std::optional<std::chrono::milliseconds> retry_after_of(const std::string& value);

}  // namespace outbox::effects
