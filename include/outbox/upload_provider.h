// SPDX-License-Identifier: Apache-2.0
// Adapter for uploads to an object store through presigned URLs (S3 and compatible stores).
//
//   outbox::UploadProvider uploads({.origins = {"https://bucket.s3.amazonaws.com"}});
//   // Request::target = {{"url", presigned_put},
//   //                    {"head_url", presigned_head},
//   //                    {"content-type", "image/png"}}
//
// Each call() sends one PUT on a new connection with `If-None-Match: *`: the store creates the
// object only if none exists, so that a repeat cannot overwrite later changes. If an object exists
// (412), one HEAD reads its checksum; if it equals the checksum of the body, an earlier attempt was
// executed, and the attempt is done.
//
// Target of a Request:
//   url           URL of the PUT, signature included. Its query never appears in messages.
//   Required. head_url      URL of the HEAD; a presigned URL is valid for one method. Defaults to
//   url, for
//                 stores that require no signature.
//   content-type  Defaults to application/octet-stream.
// The body is the object. The headers If-None-Match, x-amz-checksum-sha256 and, if enabled,
// Content-MD5 are sent whether or not the URL was signed with them. S3 rejects unsigned x-amz-*
// headers (403): sign them, or disable checksum_header. URLs must remain valid for as long as an
// effect may be repeated.
//
// Meaning of the status of the PUT:
//   2xx        done; Outcome::object is the ETag
//   412        done if the checksums are equal, refused if they differ, failing if unknown
//   401, 403   not_now: usually the URL has expired, which concerns no other effect
//   409        in_progress: a concurrent conditional write of the object
//   429        not_now, with Retry-After
//   others     as for HttpProvider
// Checksum: x-amz-checksum-sha256 if the store keeps one, else an ETag equal to the MD5 of the
// body. Any other ETag is inconclusive, because with some kinds of encryption it is not an MD5.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "outbox/provider.h"

namespace outbox {
inline namespace v1 {

struct UploadOptions {
  // Required. Where URLs may lead: scheme, host and port, such as https://bucket.s3.amazonaws.com.
  // Compared exactly. A URL comes from a message: without this bound, a client that writes messages
  // could make the worker send requests to any server that it reaches. Redirects are not followed.
  std::vector<std::string> origins{};

  // Whether to send x-amz-checksum-sha256, so that the store verifies the bytes and keeps their
  // checksum. Defaults to true.
  bool checksum_header = true;

  // Whether to send Content-MD5, for stores without other checksums. Defaults to false.
  bool content_md5 = false;

  // Whether HEAD may be sent, after a 412 and by lookup(). Defaults to true.
  bool head_allowed = true;

  // Response header for Outcome::request_id. Defaults to x-amz-request-id.
  std::string request_id_header = "x-amz-request-id";

  // PEM file of trusted certificates. Defaults to the system's. Certificates are always verified.
  std::string ca_file{};

  // Time limit for name resolution, connection and TLS together, within the deadline. Defaults to
  // 10 s.
  std::chrono::milliseconds connect_timeout{10'000};
};

// Threads: stateless apart from its options; concurrent calls are allowed.
class UploadProvider final : public Provider {
 public:
  // Does not connect. Throws std::invalid_argument for invalid options.
  explicit UploadProvider(UploadOptions options);
  ~UploadProvider() override;

  // A request that cannot be sent, for example without a URL, is `refused` at Phase::nothing.
  Outcome call(const Request& request, Deadline deadline) override;

  // Sends HEAD: 200 with an equal checksum is done, 404 is absent, any other result is no answer.
  // S3 returns 403 instead of 404 without permission to list the bucket.
  Outcome lookup(const Request& request, Deadline deadline) override;
  bool supports_lookup() const override { return options_.head_allowed; }

 private:
  const UploadOptions options_;
};

}  // namespace v1
}  // namespace outbox
