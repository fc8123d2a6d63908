// SPDX-License-Identifier: Apache-2.0
#include "outbox/upload_provider.h"

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

std::string value_of(const Request& request, const std::string& name, const std::string& otherwise) {
  const auto found = request.target.find(name);
  return found == request.target.end() ? otherwise : found->second;
}

bool valid_url(const std::string& url) {
  const std::string origin = effects::origin_of(url);
  return (origin.starts_with("http://") || origin.starts_with("https://")) && !effects::has_control(url) &&
         url.find(' ') == std::string::npos;
}

// Why the request can never be sent; empty: it can.
std::string fault_of(const Request& request) {
  const std::string url = value_of(request, "url", "");
  if (!valid_url(url)) return "target url is no http:// or https:// URL. HINT: give the whole presigned URL";
  if (!valid_url(value_of(request, "head_url", url))) return "target head_url is no http:// or https:// URL. HINT: leave it out, or give all of it";
  if (effects::has_control(value_of(request, "content-type", ""))) return "target content-type has a control character. HINT: take it out";
  return {};
}

// Whose object it is, by what the store says of it.
enum class Whose { ours, another, unknown };

Whose whose(const HttpExchange& head, std::string_view body) {
  const std::string checksum = head.header(checksum_name);
  // One with a "-" is of an object that was put together of parts, and a checksum of their checksums.
  if (!checksum.empty() && checksum.find('-') == std::string::npos) {
    return checksum == effects::base64(effects::sha256(body)) ? Whose::ours : Whose::another;
  }
  const std::string digits = common::hex(effects::md5(body));
  if (!digits.empty() && head.header("ETag") == '"' + digits + '"') return Whose::ours;
  return Whose::unknown;
}

struct Looked {
  Outcome outcome;
  Whose whose = Whose::unknown;
  std::string etag{};
};

Looked look(const Request& request, const UploadOptions& options, Provider::Deadline deadline) {
  const effects::Route route{value_of(request, "head_url", value_of(request, "url", "")), "http,https", options.ca_file,
                             options.connect_timeout};
  HttpExchange head(route, "HEAD", {});
  // Without it the store says nothing of the checksum.
  head.add_header("x-amz-checksum-mode", "ENABLED");
  Looked looked{head.run(deadline, options.request_id_header)};
  if (looked.outcome.phase == Phase::answered && looked.outcome.status == 200) {
    looked.whose = whose(head, request.body);
    looked.etag = head.header("ETag");
  }
  return looked;
}

// Settles what a 412 left open.
void tell_apart(Outcome& outcome, const Request& request, const UploadOptions& options, Provider::Deadline deadline) {
  outcome.answer = Answer::failing;
  outcome.error = "an object is there already, and nobody can tell whether it is ours. HINT: ";
  if (!options.head_allowed) {
    outcome.error += "allow HEAD requests";
    return;
  }
  const Looked looked = look(request, options, deadline);
  if (looked.whose == Whose::ours) {
    outcome.answer = Answer::done;
    outcome.object = looked.etag;
    outcome.error.clear();
  } else if (looked.whose == Whose::another) {
    outcome.answer = Answer::refused;
    outcome.error = "another object is there. HINT: choose another name, or remove it if it is not wanted";
  } else if (looked.outcome.status == 200) {
    outcome.error += "compare it by hand; the store keeps no SHA-256 of it, and its ETag is not our MD5";
  } else {
    outcome.error += "give a head_url that is signed for HEAD; that request said: " + looked.outcome.error;
  }
}

}  // namespace

UploadProvider::UploadProvider(UploadOptions options) : options_(std::move(options)) {}

UploadProvider::~UploadProvider() = default;

Outcome UploadProvider::call(const Request& request, Deadline deadline) {
  if (const std::string fault = fault_of(request); !fault.empty()) return effects::refused_unsent(fault);
  const std::string checksum = effects::base64(effects::sha256(request.body));
  const effects::Route route{value_of(request, "url", ""), "http,https", options_.ca_file, options_.connect_timeout};
  HttpExchange put(route, "PUT", request.body);
  put.add_header("Content-Type", value_of(request, "content-type", "application/octet-stream"));
  put.add_header("If-None-Match", "*");
  if (options_.checksum_header) put.add_header(checksum_name, checksum);
  if (options_.content_md5) put.add_header("Content-MD5", effects::base64(effects::md5(request.body)));
  Outcome outcome = put.run(deadline, options_.request_id_header);
  if (outcome.phase != Phase::answered) return outcome;

  if (outcome.status == 412) {
    tell_apart(outcome, request, options_, deadline);
  } else if (outcome.answer == Answer::unauthorized) {
    outcome.error = "HTTP status " + std::to_string(outcome.status) +
                    ". HINT: has the presigned URL expired, or was it signed for other headers or another method?";
  } else if (outcome.answer == Answer::done) {
    outcome.object = put.header("ETag");
    const std::string stored = put.header(checksum_name);
    if (!stored.empty() && stored != checksum) {
      outcome.answer = Answer::failing;
      outcome.error = "the store answers another request: its checksum is not ours. HINT: does a proxy between mix up answers?";
    }
  }
  return outcome;
}

Outcome UploadProvider::lookup(const Request& request, Deadline deadline) {
  if (!supports_lookup()) return Provider::lookup(request, deadline);
  Outcome outcome;
  if (outcome.error = fault_of(request); !outcome.error.empty()) return outcome;
  Looked looked = look(request, options_, deadline);
  outcome = std::move(looked.outcome);
  if (outcome.phase != Phase::answered) return outcome;
  outcome.answer = Answer::none;
  outcome.object = looked.etag;
  if (outcome.status == 404) {
    outcome.answer = Answer::absent;
    outcome.error.clear();
  } else if (looked.whose == Whose::ours) {
    outcome.answer = Answer::done;
  } else if (looked.whose == Whose::another) {
    outcome.error = "another object is there. HINT: choose another name, or remove it if it is not wanted";
  } else if (outcome.error.empty()) {
    outcome.error = "an object is there, and its checksum cannot be learnt. HINT: compare it by hand";
  }
  return outcome;
}

}  // namespace v1
}  // namespace outbox
