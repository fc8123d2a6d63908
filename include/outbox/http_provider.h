// SPDX-License-Identifier: Apache-2.0
// A provider with an HTTP API that knows idempotency keys, say for payments.
//
//   outbox::HttpProvider payments({.base_url = "https://api.example.com",
//                                  .headers = {{"Authorization", "Bearer " + key}},
//                                  .lookup_path = "/v1/charges?key={key}"});
//
// One call() is one request on a connection of its own. libcurl would repeat a request by itself when a connection that it kept
// turns out to be dead; here nothing is kept, no redirect is followed, and neither proxy variables nor a .netrc are looked at.
//
// Target of a Request:
//   path          begins with "/" and is added to base_url. Required.
//   method        POST, PUT, PATCH or DELETE. Defaults to POST.
//   content-type  Defaults to application/json.
// The body is sent as it is, and Request::provider_key in the idempotency header.
//
// What the status means:
//   2xx                       done. That includes 202: the provider took it over.
//   401, 403, 407             unauthorized
//   409                       in_progress
//   425, 429                  not_now, after Retry-After
//   other 3xx and 4xx, 501    refused; 3xx because redirects are not followed: another address could be another provider
//   408, other 5xx            failing, with Retry-After if there is one. 408 among them: proxies say it while the server works on
// An answer counts once it was read to its end. One that breaks off, or is longer than 1 MiB, leaves Phase::sent, with the status
// for evidence. Where the provider gives no length, the end of the connection is the answer's end.
//
// A provider without idempotency keys can be used, too: it carries out each request that reaches it. What became of an attempt
// that was partly or wholly sent and not answered, only a lookup_path can tell then.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <string>

#include "outbox/provider.h"

namespace outbox {
inline namespace v1 {

struct HttpOptions {
  // Scheme, host, and what all paths begin with: "https://api.example.com/v1". Required.
  std::string base_url;

  // Sent with each request, say Authorization. Their values are in no message and no Outcome, as far as the provider does not repeat
  // them. Defaults to none. What frames a request (Host, Content-Length, Transfer-Encoding, Expect, Connection) is libcurl's.
  std::map<std::string, std::string> headers{};

  // The header that carries Request::provider_key. Defaults to Idempotency-Key.
  std::string idempotency_header = "Idempotency-Key";

  // The header of the answer that becomes Outcome::request_id. Defaults to Request-Id.
  std::string request_id_header = "Request-Id";

  // Where a JSON answer holds what becomes Outcome::object: a JSON pointer to a string or a number; empty: nowhere. Defaults to /id.
  std::string object_pointer = "/id";

  // Where a JSON answer repeats the idempotency key. If a string stands there and is not the key that was sent, the attempt is
  // `failing`: a proxy or the provider gave us another request's answer. Defaults to empty: not looked at.
  std::string key_pointer{};

  // What ask() gets, added to base_url, with {key} for Request::provider_key: 200 is done, 404 absent, anything else no answer.
  // Defaults to empty: the provider cannot be asked.
  std::string lookup_path{};

  // File of PEM certificates to trust. Defaults to the system's. The provider's certificate is always verified.
  std::string ca_file{};

  // For name, connection and TLS together, within the deadline. Defaults to 10 s.
  std::chrono::milliseconds connect_timeout{10'000};
};

class HttpProvider final : public Provider {
 public:
  // Throws std::invalid_argument, with what is wrong and the remedy, when the options cannot work. Connects to nothing.
  explicit HttpProvider(HttpOptions options);
  ~HttpProvider() override;

  // A request that can never be sent, say without a path, is `refused` at Phase::nothing.
  Outcome call(const Request& request, Deadline deadline) override;
  Outcome lookup(const Request& request, Deadline deadline) override;
  bool supports_lookup() const override { return !options_.lookup_path.empty(); }

 private:
  const HttpOptions options_;
};

}  // namespace v1
}  // namespace outbox
