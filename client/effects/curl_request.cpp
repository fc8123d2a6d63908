// SPDX-License-Identifier: Apache-2.0
#include "client/effects/curl_request.h"

#include <unistd.h>

#include <algorithm>
#include <new>
#include <utility>

namespace outbox::effects {
namespace {

constexpr std::size_t response_bytes_max = 4'096;
// The connection is cut off this long before the deadline: libcurl's timers have a resolution of 1
// ms, and may fire a few early.
constexpr std::chrono::milliseconds cutoff_margin{5};

// Once per process, before the first handle; a static variable makes it thread-safe.
void start_libcurl() {
  [[maybe_unused]] static const CURLcode started = curl_global_init(CURL_GLOBAL_DEFAULT);
}

// The remedy for a failed request, for operators.
const char* hint_for(CURLcode code) {
  switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST: return "check the host name and the resolver";
    case CURLE_COULDNT_CONNECT:
      return "check that the provider is up and its port reachable from this machine";
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
      return "set ca_file to the provider's certificate authority, and use the host name of its "
             "certificate";
    case CURLE_USE_SSL_FAILED:
      return "the server does not offer STARTTLS; use smtps://, or another server";
    case CURLE_UNSUPPORTED_PROTOCOL: return "use a protocol that the adapter supports";
    case CURLE_URL_MALFORMAT: return "use an absolute, well-formed URL";
    case CURLE_OPERATION_TIMEDOUT: return "increase claim_ttl, or check the provider";
    default: return "check the provider's logs and the network";
  }
}

}  // namespace

CurlRequest::CurlRequest(const Route& route) {
  start_libcurl();
  easy_.reset(curl_easy_init());
  if (!easy_) throw std::bad_alloc();
  set(CURLOPT_URL, route.url.c_str());
  set(CURLOPT_PROTOCOLS_STR, route.protocols);
  set(CURLOPT_FRESH_CONNECT, 1L);
  set(CURLOPT_FORBID_REUSE, 1L);
  set(CURLOPT_FOLLOWLOCATION, 0L);
  set(CURLOPT_PROXY, "");
  set(CURLOPT_NOPROXY, "*");
  set(CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
  set(CURLOPT_NOSIGNAL, 1L);
  // Over HTTP/2, libcurl resends a request whose stream the server refuses.
  set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  set(CURLOPT_PATH_AS_IS, 1L);
  set(CURLOPT_UPLOAD_BUFFERSIZE, write_bytes_max);
  // Otherwise the cleanup waits for a name server beyond the deadline.
  set(CURLOPT_QUICK_EXIT, 1L);
  set(CURLOPT_SSL_VERIFYPEER, 1L);
  set(CURLOPT_SSL_VERIFYHOST, 2L);
  set(CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
  if (!route.ca_file.empty()) set(CURLOPT_CAINFO, route.ca_file.c_str());
  set(CURLOPT_CONNECTTIMEOUT_MS,
      static_cast<long>(std::max<std::int64_t>(route.connect_timeout.count(), 1)));
  set(CURLOPT_ERRORBUFFER, error_);
  set(CURLOPT_WRITEFUNCTION, &on_body);
  set(CURLOPT_WRITEDATA, this);
  set(CURLOPT_VERBOSE, 1L);
  set(CURLOPT_DEBUGFUNCTION, &on_wire);
  set(CURLOPT_DEBUGDATA, this);
  set(CURLOPT_PREREQFUNCTION, &on_ready);
  set(CURLOPT_PREREQDATA, this);
  set(CURLOPT_OPENSOCKETFUNCTION, &on_open);
  set(CURLOPT_OPENSOCKETDATA, this);
  set(CURLOPT_CLOSESOCKETFUNCTION, &on_close);
  set(CURLOPT_CLOSESOCKETDATA, this);
  set(CURLOPT_NOPROGRESS, 0L);
  set(CURLOPT_XFERINFOFUNCTION, &on_progress);
  set(CURLOPT_XFERINFODATA, this);
}

// curl_slist_append() returns the new head, and null without changing the list if it fails.
void CurlRequest::append(List& list, const std::string& line) {
  curl_slist* longer = curl_slist_append(list.get(), line.c_str());
  if (longer == nullptr) throw std::bad_alloc();
  static_cast<void>(list.release());
  list.reset(longer);
}

void CurlRequest::add_header(const std::string& line) { append(headers_, line); }

void CurlRequest::add_recipient(const std::string& address) { append(recipients_, address); }

CURLcode CurlRequest::perform(Provider::Deadline deadline) {
  using std::chrono::milliseconds;
  const auto left = std::chrono::duration_cast<milliseconds>(deadline - BootClock::now()).count();
  // CURLOPT_TIMEOUT_MS 0 means no limit.
  if (left < 1) return CURLE_OPERATION_TIMEDOUT;
  set(CURLOPT_TIMEOUT_MS, static_cast<long>(left));
  cutoff_ = deadline - cutoff_margin;
  if (headers_) set(CURLOPT_HTTPHEADER, headers_.get());
  if (recipients_) set(CURLOPT_MAIL_RCPT, recipients_.get());
  if (setup_ != CURLE_OK) return setup_;
  const CURLcode code = curl_easy_perform(easy_.get());
  if (code != CURLE_ABORTED_BY_CALLBACK) return code;
  error_[0] = '\0';
  return CURLE_OPERATION_TIMEDOUT;
}

// By the scheme of the connection.
bool CurlRequest::tls() {
  const char* scheme = nullptr;
  curl_easy_getinfo(easy_.get(), CURLINFO_SCHEME, &scheme);
  const std::string_view name = scheme == nullptr ? "" : scheme;
  return !name.empty() && (name.back() == 'S' || name.back() == 's');
}

int CurlRequest::status() {
  long status = 0;
  curl_easy_getinfo(easy_.get(), CURLINFO_RESPONSE_CODE, &status);
  return static_cast<int>(status);
}

std::string CurlRequest::header(const char* name) const {
  curl_header* found = nullptr;
  return curl_easy_header(easy_.get(), name, 0, CURLH_HEADER, -1, &found) == CURLHE_OK
             ? found->value
             : "";
}

std::string CurlRequest::error_of(CURLcode code) const {
  std::string text = error_[0] != '\0' ? error_ : curl_easy_strerror(code);
  return text + ". HINT: " + hint_for(code);
}

void CurlRequest::shut_down(int how) const {
  for (const curl_socket_t socket : sockets_) ::shutdown(socket, how);
}

// Returning fewer bytes than given ends the request: the answer is too long.
std::size_t CurlRequest::on_body(char* data, std::size_t size, std::size_t count, void* self) {
  auto& request = *static_cast<CurlRequest*>(self);
  const std::size_t bytes = size * count;
  request.body_bytes_ += bytes;
  if (request.body_too_long()) return 0;
  request.body_.append(data, bytes);
  return bytes;
}

// libcurl 7.88, 8.14 and 8.19 call it after a write, with the bytes that the socket or the TLS
// library accepted. A plain socket sent exactly those. A TLS library that could not write all of
// its data reports none, though some records may have been sent; over HTTP, write_bytes_max limits
// it to one.
int CurlRequest::on_wire(CURL*, curl_infotype kind, char* data, std::size_t size, void* self) {
  auto& request = *static_cast<CurlRequest*>(self);
  if (request.watch_) request.watch_(kind, std::string_view(data, size));
  return 0;
}

// The machine may have been suspended while it connected, and libcurl's own clock with it.
int CurlRequest::on_ready(void* self, char*, char*, int, int) {
  auto& request = *static_cast<CurlRequest*>(self);
  if (request.overdue()) return CURL_PREREQFUNC_ABORT;
  request.ready_ = true;
  return CURL_PREREQFUNC_OK;
}

// Tracks the sockets, so that the request can be cut off at its deadline.
curl_socket_t CurlRequest::on_open(void* self, curlsocktype, curl_sockaddr* address) {
  const curl_socket_t socket =
      ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
  if (socket != CURL_SOCKET_BAD) static_cast<CurlRequest*>(self)->sockets_.insert(socket);
  return socket;
}

int CurlRequest::on_close(void* self, curl_socket_t socket) {
  static_cast<CurlRequest*>(self)->sockets_.erase(socket);
  return ::close(socket);
}

// Cuts the connection at the deadline. After its own timeout, libcurl would send QUIT to a mail
// server and wait up to two minutes for the reply.
int CurlRequest::on_progress(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  const auto& request = *static_cast<CurlRequest*>(self);
  if (!request.overdue()) return 0;
  request.shut_down(SHUT_RDWR);
  return 1;
}

std::string origin_of(const std::string& url) {
  const std::unique_ptr<CURLU, decltype(&curl_url_cleanup)> parsed(curl_url(), &curl_url_cleanup);
  if (!parsed || curl_url_set(parsed.get(), CURLUPART_URL, url.c_str(), CURLU_NON_SUPPORT_SCHEME) !=
                     CURLUE_OK) {
    return {};
  }
  std::string origin;
  for (const auto& [part, before] :
       {std::pair{CURLUPART_SCHEME, ""}, {CURLUPART_HOST, "://"}, {CURLUPART_PORT, ":"}}) {
    char* text = nullptr;
    if (curl_url_get(parsed.get(), part, &text, CURLU_DEFAULT_PORT) != CURLUE_OK) continue;
    const std::unique_ptr<char, decltype(&curl_free)> owned(text, &curl_free);
    origin += before;
    origin += text;
  }
  for (char& c : origin) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return origin;
}

bool has_dot_segment(std::string_view path) {
  path = path.substr(0, path.find_first_of("?#"));
  std::string segment;
  for (std::size_t at = 0; at <= path.size(); ++at) {
    const bool dot = path.substr(at, 3) == "%2e" || path.substr(at, 3) == "%2E";
    if (dot) at += 2;
    if (dot || (at < path.size() && path[at] != '/' && path[at] != '\\')) {
      segment += dot ? '.' : path[at];
      continue;
    }
    if (segment == "." || segment == "..") return true;
    segment.clear();
  }
  return false;
}

bool has_control(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < ' ' || c == '\x7f'; });
}

Outcome refused_unsent(const std::string& why) {
  Outcome outcome;
  outcome.answer = Answer::refused;
  outcome.error = why;
  return outcome;
}

std::string beginning_of(const std::string& text) { return text.substr(0, response_bytes_max); }

}  // namespace outbox::effects
