// SPDX-License-Identifier: Apache-2.0
// UploadProvider: one conditional PUT for each call(), and one HEAD for each lookup().
//
//   1. call() validates the request, and sends the PUT with If-None-Match and the checksum.
//   2. If an object exists (412), a HEAD decides whether it is the same: done, refused or unknown.
//   3. lookup() sends the HEAD only.
//
// Failure. Invalid options throw std::invalid_argument; everything else is an Outcome. Error texts
// contain no query of a URL. Thread-safe: only
// constant state is shared.
#include "outbox/upload_provider.h"

#include <algorithm>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "client/effects/digest.h"
#include "client/effects/http_exchange.h"
#include "common/hex.h"

namespace outbox {
inline namespace v1 {
namespace {

using effects::HttpExchange;

constexpr const char* checksum_name = "x-amz-checksum-sha256";

bool valid_url(const std::string& url) {
  const std::string origin = effects::origin_of(url);
  return (origin.starts_with("http://") || origin.starts_with("https://")) &&
         !effects::has_control(url) && url.find(' ') == std::string::npos;
}

// Throws std::invalid_argument for origins that are none. Returns them as origin_of() does.
UploadOptions checked(UploadOptions options) {
  if (options.origins.empty()) {
    throw std::invalid_argument(
        "upload provider: origins is empty. HINT: list the origins of the store, such as "
        "https://bucket.s3.amazonaws.com: a URL of a message could lead anywhere");
  }
  for (std::string& origin : options.origins) {
    const std::string known = effects::origin_of(origin);
    const bool is_http = known.starts_with("http://") || known.starts_with("https://");
    const auto authority = origin.find("://");
    if (!is_http || authority == std::string::npos ||
        origin.find_first_of("/?#@\\", authority + 3) != std::string::npos) {
      throw std::invalid_argument("upload provider: \"" + origin +
                                  "\" is not an origin. HINT: use the form https://host or "
                                  "https://host:port, without a path");
    }
    origin = known;
  }
  return options;
}

bool allowed(const UploadOptions& options, const std::string& url) {
  const auto& origins = options.origins;
  return std::find(origins.begin(), origins.end(), effects::origin_of(url)) != origins.end();
}

// Why the request cannot be sent; empty: it can.
std::string upload_request_error(const Request& request, const UploadOptions& options) {
  const std::string url = effects::target_value(request, "url", "");
  if (!valid_url(url)) {
    return "target url is not an http:// or https:// URL. HINT: use the complete presigned URL";
  }
  if (!valid_url(effects::target_value(request, "head_url", url))) {
    return "target head_url is not an http:// or https:// URL. HINT: remove it, or use the "
           "complete URL";
  }
  for (const std::string& to : {url, effects::target_value(request, "head_url", url)}) {
    if (allowed(options, to)) continue;
    return "the store " + effects::origin_of(to) +
           " is not allowed. HINT: add it to the origins of the provider, if it is a store of "
           "yours";
  }
  if (effects::has_control(effects::target_value(request, "content-type", ""))) {
    return "target content-type has a control character. HINT: remove it";
  }
  return {};
}

// Whether the object of the store equals the body, by the store's checksums.
enum class Match { same, different, unknown };

Match compare(const HttpExchange& head, std::string_view body) {
  const std::string checksum = head.header(checksum_name);
  // A "-" marks a multipart object, whose value is a checksum of checksums.
  if (!checksum.empty() && checksum.find('-') == std::string::npos) {
    return checksum == effects::base64(effects::sha256(body)) ? Match::same : Match::different;
  }
  const std::string digits = common::hex(effects::md5(body));
  if (!digits.empty() && head.header("ETag") == '"' + digits + '"') return Match::same;
  return Match::unknown;
}

struct Head {
  Outcome outcome;
  Match match = Match::unknown;
  std::string etag{};
};

// One HEAD request, and what it shows of the object.
Head read_head(const Request& request, const UploadOptions& options, Provider::Deadline deadline) {
  const effects::Route route{
      effects::target_value(request, "head_url", effects::target_value(request, "url", "")),
      "http,https", options.ca_file, options.connect_timeout};
  HttpExchange exchange(route, "HEAD", {});
  // Without this header S3 does not return the checksum.
  exchange.add_header("x-amz-checksum-mode", "ENABLED");
  Head head{exchange.run(deadline, options.request_id_header)};
  if (head.outcome.phase == Phase::answered && head.outcome.status == 200) {
    head.match = compare(exchange, request.body);
    head.etag = exchange.header("ETag");
  }
  return head;
}

// Decides the outcome of a 412: an object exists already.
void resolve_existing(Outcome& outcome, const Request& request, const UploadOptions& options,
                      Provider::Deadline deadline) {
  outcome.answer = Answer::failing;
  outcome.error = "an object exists already, and it is unknown whether it is the same. HINT: ";
  if (!options.head_allowed) {
    outcome.error += "allow HEAD requests";
    return;
  }
  const Head head = read_head(request, options, deadline);
  if (head.match == Match::same) {
    outcome.answer = Answer::done;
    outcome.object = head.etag;
    outcome.error.clear();
  } else if (head.match == Match::different) {
    outcome.answer = Answer::refused;
    outcome.error = "a different object exists. HINT: use another name, or delete the object";
  } else if (head.outcome.status == 200) {
    outcome.error +=
        "compare them manually; the store keeps no SHA-256, and its ETag is not the MD5 of the "
        "body";
  } else {
    outcome.error +=
        "set head_url to a URL signed for HEAD; the HEAD request failed: " + head.outcome.error;
  }
}

}  // namespace

UploadProvider::UploadProvider(UploadOptions options) : options_(checked(std::move(options))) {}

UploadProvider::~UploadProvider() = default;

Outcome UploadProvider::call(const Request& request, Deadline deadline) {
  if (const std::string fault = upload_request_error(request, options_); !fault.empty()) {
    return effects::refused_unsent(fault);
  }
  const std::string checksum = effects::base64(effects::sha256(request.body));
  const effects::Route route{effects::target_value(request, "url", ""), "http,https",
                             options_.ca_file, options_.connect_timeout};
  HttpExchange put(route, "PUT", request.body);
  put.add_header("Content-Type",
                 effects::target_value(request, "content-type", "application/octet-stream"));
  put.add_header("If-None-Match", "*");
  if (options_.checksum_header) put.add_header(checksum_name, checksum);
  if (options_.content_md5) {
    put.add_header("Content-MD5", effects::base64(effects::md5(request.body)));
  }
  Outcome outcome = put.run(deadline, options_.request_id_header);
  if (outcome.phase != Phase::answered) return outcome;

  if (outcome.status == 412) {
    resolve_existing(outcome, request, options_, deadline);
  } else if (outcome.answer == Answer::unauthorized) {
    outcome.answer = Answer::not_now;  // a presigned URL is the credentials of this effect alone
    outcome.error =
        "HTTP status " + std::to_string(outcome.status) +
        ". HINT: check that the presigned URL has not expired, and its signed headers and method";
  } else if (outcome.answer == Answer::done) {
    outcome.object = put.header("ETag");
    const std::string stored = put.header(checksum_name);
    if (!stored.empty() && stored != checksum) {
      outcome.answer = Answer::failing;
      outcome.error =
          "the store answers another request: its checksum differs. HINT: check for a proxy that "
          "caches answers";
    }
  }
  return outcome;
}

Outcome UploadProvider::lookup(const Request& request, Deadline deadline) {
  if (!supports_lookup()) return Provider::lookup(request, deadline);
  Outcome outcome;
  if (outcome.error = upload_request_error(request, options_); !outcome.error.empty())
    return outcome;
  Head head = read_head(request, options_, deadline);
  outcome = std::move(head.outcome);
  if (outcome.phase != Phase::answered) return outcome;
  outcome.answer = Answer::none;
  outcome.object = head.etag;
  if (outcome.status == 404) {
    outcome.answer = Answer::absent;
    outcome.error.clear();
  } else if (head.match == Match::same) {
    outcome.answer = Answer::done;
  } else if (head.match == Match::different) {
    outcome.error = "a different object exists. HINT: use another name, or delete the object";
  } else if (outcome.error.empty()) {
    outcome.error = "an object exists, and its checksum is unknown. HINT: compare them manually";
  }
  return outcome;
}

}  // namespace v1
}  // namespace outbox
