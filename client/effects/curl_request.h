// SPDX-License-Identifier: Apache-2.0
// One request by libcurl, seen from its socket.
#pragma once

#include <curl/curl.h>
#include <sys/socket.h>

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "outbox/provider.h"
#include "common/owned.h"

namespace outbox::effects {

// What a person allows an adapter to reach, and how.
struct Route {
  std::string url;
  // As CURLOPT_PROTOCOLS_STR takes them: "http,https".
  const char* protocols;
  // Certificates that are trusted; empty: the system's.
  std::string ca_file;
  std::chrono::milliseconds connect_timeout;
};

// The owner of one curl handle, which makes one request at most and then ends with its connection. libcurl repeats a request by
// itself when a connection that it had kept turns out to be dead; the ledger would know nothing of it. So nothing is kept, no
// redirect is followed, no authentication is negotiated, and neither the environment nor a .netrc changes where it goes.
//
// Used by one thread.
class CurlRequest {
 public:
  // What went by on the wire, in the order of CURLOPT_DEBUGFUNCTION. See below for how exact that is.
  using Watch = std::function<void(curl_infotype, std::string_view)>;

  explicit CurlRequest(const Route& route);
  ~CurlRequest() = default;
  CurlRequest(const CurlRequest&) = delete;
  CurlRequest& operator=(const CurlRequest&) = delete;

  template <class Value>
  void set(CURLoption option, Value value) {
    if (const CURLcode code = curl_easy_setopt(easy_.get(), option, value); code != CURLE_OK && setup_ == CURLE_OK) setup_ = code;
  }
  // `line` as libcurl takes it: "Name: value"; "Name:" leaves out a header that libcurl would send.
  void add_header(const std::string& line);
  void add_recipient(const std::string& address);
  void watch(Watch watch) { watch_ = std::move(watch); }

  // Makes the request, and returns when it is over or at the deadline. CURLE_OK: a complete answer was read.
  CURLcode perform(Provider::Deadline deadline);

  // Whether the connection stood, TLS included, so that the request was about to be written.
  bool ready() const { return ready_; }
  bool tls();
  int status();
  // A header of the last answer; empty: it has none.
  std::string header(const char* name) const;
  // The beginning of the answer's body, up to body_bytes_max.
  const std::string& body() const { return body_; }
  bool body_too_long() const { return body_bytes_ > body_bytes_max; }
  // What a person should know of `code`. Holds no secret: neither headers nor the path and query of the URL.
  std::string error_of(CURLcode code) const;
  // Ends every wait for what the other side may still say. What libcurl has to say still goes out.
  void stop_listening() { shut_down(SHUT_RD); }

  // An answer is read to its end up to here; one that is longer counts as not complete.
  static constexpr std::size_t body_bytes_max = std::size_t{1} << 20;
  // One TLS record, and the least that libcurl accepts. A write that did not return may have put a part of what it was given on
  // the wire: of one record, that is nothing that the other side can read.
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

  // The lists outlive the handle that points to them.
  List headers_;
  List recipients_;
  std::set<curl_socket_t> sockets_;
  common::Owned<CURL, curl_easy_cleanup> easy_;
  CURLcode setup_ = CURLE_OK;
  char error_[CURL_ERROR_SIZE] = "";
  Watch watch_;
  Provider::Deadline give_up_{};
  std::string body_;
  std::size_t body_bytes_ = 0;
  bool ready_ = false;
};

// Where `url` leads, without user, path and query: for messages.
std::string origin_of(const std::string& url);

// Whether `text` holds a control character, which could begin a line of its own in a protocol of lines.
bool has_control(std::string_view text);

// An outcome of something that can never be sent.
Outcome refused_unsent(const std::string& why);

// The beginning of `text`, as much as an Outcome keeps.
std::string beginning_of(const std::string& text);

}  // namespace outbox::effects
