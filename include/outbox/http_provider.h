// SPDX-License-Identifier: Apache-2.0
// Adapter for HTTP APIs with idempotency keys, for example payment providers.
//
//   outbox::HttpProvider payments({.base_url = "https://api.example.com",
//                                  .headers = {{"Authorization", "Bearer " + key}},
//                                  .lookup_path = "/v1/charges?key={key}"});
//
// Each call() sends one request on a new connection. Connections are not reused, because libcurl
// resends a request on its own if a reused connection is dead. Redirects, proxy variables and
// .netrc are ignored.
//
// Target of a Request:
//   path          appended to base_url; begins with "/". Required.
//   method        POST, PUT, PATCH or DELETE. Defaults to POST.
//   content-type  Defaults to application/json.
// The body is sent unchanged, and Request::provider_key in the idempotency header.
//
// Meaning of the HTTP status:
//   2xx                       done; 202 included: the provider has accepted the request
//   401, 403, 407             unauthorized
//   409                       in_progress
//   425, 429                  not_now, with Retry-After
//   other 3xx and 4xx, 501    refused; 3xx because redirects are not followed
//   408, other 5xx            failing, with Retry-After if present; proxies send 408 while the
//                             server is still processing
// An answer counts only if it was read completely. A truncated answer, or one of more than 1 MiB,
// results in Phase::sent with the status as evidence. Without a length, the end of the connection
// is the end of the answer.
//
// A provider without idempotency keys executes every request that it receives. The outcome of an
// attempt that was sent and not answered can then be determined only through lookup_path.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <string>

#include "outbox/provider.h"

namespace outbox {
inline namespace v1 {

struct HttpOptions {
  // Scheme, host and common path prefix: "https://api.example.com/v1". Required.
  std::string base_url;

  // Headers of every request, for example Authorization. Their values never appear in messages or
  // Outcomes, unless the provider returns them. Defaults to none. Framing headers (Host,
  // Content-Length, Transfer-Encoding, Expect, Connection) are rejected.
  std::map<std::string, std::string> headers{};

  // Request header for Request::provider_key. Defaults to Idempotency-Key.
  std::string idempotency_header = "Idempotency-Key";

  // Response header for Outcome::request_id. Defaults to Request-Id.
  std::string request_id_header = "Request-Id";

  // JSON pointer to the string or number in the answer that becomes Outcome::object; empty: none.
  // Defaults to /id.
  std::string object_pointer = "/id";

  // JSON pointer to the idempotency key in the answer. A string there that differs from the key
  // sent makes the attempt `failing`: a proxy or the provider returned the answer of a different
  // request. Defaults to empty: not checked.
  std::string key_pointer{};

  // Path of the GET request of lookup(), appended to base_url; {key} stands for
  // Request::provider_key. 404 is absent. 200 is done if the answer shows the object: by the
  // idempotency key at key_pointer or, where that is empty, by something at object_pointer.
  // Anything else is no answer, and the effect stays in doubt. Requires key_pointer or
  // object_pointer. Defaults to empty: lookups are not supported.
  std::string lookup_path{};

  // JSON pointer to the array of objects in the answer to lookup(), for a lookup_path that is a
  // filter: /data. The pointers above then apply to its elements. An empty array is absent. Without
  // key_pointer, it must have one element. Defaults to empty: the answer is one object.
  std::string lookup_list_pointer{};

  // PEM file of trusted certificates. Defaults to the system's. Certificates are always verified.
  std::string ca_file{};

  // Time limit for name resolution, connection and TLS together, within the deadline. Defaults to
  // 10 s.
  std::chrono::milliseconds connect_timeout{10'000};
};

// Threads: stateless apart from its options; concurrent calls are allowed.
class HttpProvider final : public Provider {
 public:
  // Throws std::invalid_argument with the fault and its remedy if an option is invalid. Does not
  // connect.
  explicit HttpProvider(HttpOptions options);
  ~HttpProvider() override;

  // A request that cannot be sent, for example without a path, is `refused` at Phase::nothing.
  Outcome call(const Request& request, Deadline deadline) override;
  Outcome lookup(const Request& request, Deadline deadline) override;
  bool supports_lookup() const override { return !options_.lookup_path.empty(); }

 private:
  const HttpOptions options_;
};

}  // namespace v1
}  // namespace outbox
