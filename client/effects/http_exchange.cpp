// SPDX-License-Identifier: Apache-2.0
#include "client/effects/http_exchange.h"

#include <algorithm>
#include <ctime>

namespace outbox::effects {
namespace {

using std::chrono::seconds;

constexpr std::int64_t retry_after_max_s = 24 * 60 * 60;
constexpr std::string_view end_of_head = "\r\n\r\n";

// Error text of a complete answer; empty: done.
std::string error_of_status(int status) {
  const std::string text = "HTTP status " + std::to_string(status);
  if (status / 100 == 3) {
    return text + ": redirects are not followed. HINT: configure the address of the redirect";
  }
  if (status == 408) {
    return text +
           ": the provider timed out, and may have executed the request. HINT: check its logs";
  }
  switch (answer_of(status)) {
    case Answer::done: return {};
    case Answer::unauthorized: return text + ". HINT: check the credentials and their permissions";
    case Answer::not_now:
      return text + ". HINT: the provider limits the rate; the request is retried later";
    case Answer::in_progress:
      return text + ": an earlier attempt is in progress. HINT: wait for its end";
    case Answer::failing: return text + ". HINT: check the status of the provider";
    default: return text + ". HINT: see the text of the answer";
  }
}

}  // namespace

HttpExchange::HttpExchange(const Route& route, const std::string& method, std::string_view body)
    : request_(route), method_(method), body_bytes_(body.size()) {
  if (method == "HEAD") {
    request_.set(CURLOPT_NOBODY, 1L);
  } else if (method == "GET") {
    request_.set(CURLOPT_HTTPGET, 1L);
  } else {
    // For any method: with POSTFIELDS libcurl keeps no copy of the body, and has nothing to rewind.
    request_.set(CURLOPT_POST, 1L);
    request_.set(CURLOPT_POSTFIELDS, body.data() == nullptr ? "" : body.data());
    request_.set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
    request_.set(CURLOPT_CUSTOMREQUEST, method_.c_str());
    // Suppresses "Expect: 100-continue", which delays the body.
    request_.add_header("Expect:");
  }
  request_.watch([this](curl_infotype kind, std::string_view bytes) { count(kind, bytes); });
}

void HttpExchange::add_header(const std::string& name, const std::string& value) {
  request_.add_header(name + ": " + value);
}

// Finds the end of the head itself: versions of libcurl differ in whether they report the first
// bytes of the body as header or data.
void HttpExchange::count(curl_infotype kind, std::string_view bytes) {
  if (kind != CURLINFO_HEADER_OUT && kind != CURLINFO_DATA_OUT) return;
  if (head_bytes_ == 0) {
    const std::size_t before = tail_.size();
    tail_ += bytes;
    if (const std::size_t end = tail_.find(end_of_head); end != std::string::npos) {
      head_bytes_ = written_ + end + end_of_head.size() - before;
    } else if (tail_.size() >= end_of_head.size()) {
      tail_.erase(0, tail_.size() - end_of_head.size() + 1);
    }
  }
  written_ += bytes.size();
}

// By the bytes written. After an error, `nothing` requires that none can have been written.
Phase HttpExchange::phase_of(CURLcode code) {
  if (code == CURLE_OK) return Phase::answered;
  if (head_bytes_ != 0 && written_ - head_bytes_ >= body_bytes_) return Phase::sent;
  // Over TLS, a first write may be in progress without having been reported.
  if (written_ > 0 || (request_.ready() && request_.tls())) return Phase::partly;
  return Phase::nothing;
}

Outcome HttpExchange::run(Provider::Deadline deadline, const std::string& request_id_header) {
  const CURLcode code = request_.perform(deadline);
  Outcome outcome;
  outcome.phase = phase_of(code);
  // Evidence, also of an incomplete answer.
  outcome.status = request_.status();
  outcome.response = beginning_of(request_.body());
  if (!request_id_header.empty()) outcome.request_id = request_.header(request_id_header.c_str());
  if (outcome.phase != Phase::answered) {
    outcome.error =
        request_.body_too_long()
            ? "the answer is longer than 1 MiB. HINT: check that this is the provider's API"
            : request_.error_of(code);
    return outcome;
  }
  outcome.answer = answer_of(outcome.status);
  outcome.error = error_of_status(outcome.status);
  if (outcome.answer == Answer::done &&
      (head_bytes_ == 0 || written_ - head_bytes_ < body_bytes_)) {
    outcome.answer = Answer::failing;
    outcome.error =
        "the provider reported success before it received the whole request. HINT: check that this "
        "is the provider's API";
  }
  if (outcome.answer != Answer::done) {
    outcome.retry_after = retry_after_of(request_.header("Retry-After"));
  }
  return outcome;
}

std::string target_value(const Request& request, const std::string& name,
                         const std::string& otherwise) {
  const auto found = request.target.find(name);
  return found == request.target.end() ? otherwise : found->second;
}

Answer answer_of(int http_status) {
  switch (http_status) {
    case 401:
    case 403:
    case 407: return Answer::unauthorized;
    case 408: return Answer::failing;  // proxies send it while the server is still processing
    case 409: return Answer::in_progress;
    case 425:  // "Too Early" guarantees that the request was not processed
    case 429: return Answer::not_now;
    case 501: return Answer::refused;
    default: break;
  }
  if (http_status / 100 == 2) return Answer::done;
  if (http_status / 100 == 3 || http_status / 100 == 4) return Answer::refused;
  return Answer::failing;
}

std::optional<std::chrono::milliseconds> retry_after_of(const std::string& value) {
  if (value.empty()) return std::nullopt;
  std::int64_t wait_s = 0;
  // libcurl's own parser of Retry-After reads eight digits as a date.
  if (std::all_of(value.begin(), value.end(), [](char c) { return c >= '0' && c <= '9'; })) {
    wait_s = value.size() > 6 ? retry_after_max_s : std::stoll(value);
  } else {
    const std::time_t when = curl_getdate(value.c_str(), nullptr);
    if (when == -1) return std::nullopt;
    wait_s = std::int64_t{when} - std::int64_t{std::time(nullptr)};
  }
  return seconds(std::clamp<std::int64_t>(wait_s, 0, retry_after_max_s));
}

}  // namespace outbox::effects
