// SPDX-License-Identifier: Apache-2.0
// One libcurl request on one connection, observed at its socket.
//
//   1. The constructor configures the handle: no reused connection, redirect, proxy, .netrc or
//      HTTP/2. libcurl resends a request on its own if a reused connection is dead, and the ledger
//      would not know of that attempt.
//   2. The adapter sets headers, recipients and options, and watches the wire.
//   3. perform() runs the request until its end or the deadline, and closes the connection.
//
// Failure. perform() returns a CURLcode; error_of() describes it without secrets. The first failed
// option fails perform(). std::bad_alloc is the only exception.
// Used by one thread.
#pragma once

#include <curl/curl.h>
#include <sys/socket.h>

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "common/owned.h"
#include "outbox/provider.h"

namespace outbox::effects {

// Destination of a request, and the limits set by the configuration.
struct Route {
  std::string url;
  // Allowed protocols, as for CURLOPT_PROTOCOLS_STR: "http,https".
  const char* protocols;
  // File of trusted certificates; empty: the system's.
  std::string ca_file;
  std::chrono::milliseconds connect_timeout;
};

// Owns one curl handle, which makes at most one request.
class CurlRequest {
 public:
  // Receives the bytes on the wire, in the order of CURLOPT_DEBUGFUNCTION. See on_wire() for the
  // accuracy.
  using Watch = std::function<void(curl_infotype, std::string_view)>;

  explicit CurlRequest(const Route& route);
  ~CurlRequest() = default;
  CurlRequest(const CurlRequest&) = delete;
  CurlRequest& operator=(const CurlRequest&) = delete;

  template <class Value>
  void set(CURLoption option, Value value) {
    if (const CURLcode code = curl_easy_setopt(easy_.get(), option, value);
        code != CURLE_OK && setup_ == CURLE_OK) {
      setup_ = code;
    }
  }
  // `line` is "Name: value"; "Name:" suppresses a header of libcurl.
  void add_header(const std::string& line);
  void add_recipient(const std::string& address);
  void watch(Watch watch) { watch_ = std::move(watch); }

  // Makes the request. Returns at its end or at the deadline; CURLE_OK: a complete answer was read.
  CURLcode perform(Provider::Deadline deadline);

  // Whether the deadline has passed, or is so near that nothing more may be sent.
  bool overdue() const { return BootClock::now() >= cutoff_; }
  // Whether the connection was established, TLS included, and the request about to be written.
  bool ready() const { return ready_; }
  bool tls();
  int status();
  // Header of the last answer; empty: none.
  std::string header(const char* name) const;
  // Beginning of the body of the answer, at most body_bytes_max.
  const std::string& body() const { return body_; }
  bool body_too_long() const { return body_bytes_ > body_bytes_max; }
  // Describes `code` for operators. Contains no secrets: no headers, no path and query of the URL.
  std::string error_of(CURLcode code) const;
  // Stops reading from the connection; libcurl can still write.
  void stop_listening() { shut_down(SHUT_RD); }

  // Longer answers count as incomplete.
  static constexpr std::size_t body_bytes_max = std::size_t{1} << 20;
  // One TLS record, and the minimum of libcurl. An unfinished write may have sent a part of its
  // data; a part of one record is unreadable for the peer.
  static constexpr long write_bytes_max = 16'384;

 private:
  using List = common::Owned<curl_slist, curl_slist_free_all>;

  static void append(List& list, const std::string& line);
  static std::size_t on_body(char* data, std::size_t size, std::size_t count, void* self);
  static int on_wire(CURL*, curl_infotype kind, char* data, std::size_t size, void* self);
  static int on_ready(void* self, char*, char*, int, int);
  static curl_socket_t on_open(void* self, curlsocktype, curl_sockaddr* address);
  static int on_close(void* self, curl_socket_t socket);
  static int on_progress(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t);
  void shut_down(int how) const;

  // Declared before the handle that points to them.
  List headers_;
  List recipients_;
  std::set<curl_socket_t> sockets_;
  common::Owned<CURL, curl_easy_cleanup> easy_;
  CURLcode setup_ = CURLE_OK;
  char error_[CURL_ERROR_SIZE] = "";
  Watch watch_;
  Provider::Deadline cutoff_{};
  std::string body_;
  std::size_t body_bytes_ = 0;
  bool ready_ = false;
};

// Scheme, host and port of `url` in lower case, the port also where it is the default, without
// user, path and query; empty: not a URL.
std::string origin_of(const std::string& url);

// Whether the path has a segment "." or "..", also percent-encoded: libcurl or the server would
// resolve it.
bool has_dot_segment(std::string_view path);

// Whether `text` has a control character, which could inject a line into the protocol.
bool has_control(std::string_view text);

// Outcome of a request that cannot be sent.
Outcome refused_unsent(const std::string& why);

// Beginning of `text`, limited to the size that an Outcome keeps.
std::string beginning_of(const std::string& text);

}  // namespace outbox::effects
