// SPDX-License-Identifier: Apache-2.0
// Uploads into an object store by presigned URLs (S3 and what speaks like it).
//
//   outbox::UploadProvider uploads({});
//   // Request::target = {{"url", presigned_put}, {"head_url", presigned_head}, {"content-type", "image/png"}}
//
// One call() is one PUT on a connection of its own, with `If-None-Match: *`: the store takes the object only where there is none, so
// that a repeat cannot overwrite what was changed meanwhile. Where an object is there already (412), one HEAD asks for its checksum,
// and if that is the checksum of our bytes, an earlier attempt was carried out, and so is this one.
//
// Target of a Request:
//   url           where to PUT, complete with its signature. Required. Its query is in no message.
//   head_url      where to HEAD: a presigned URL holds for one method. Defaults to url, as for a store that needs no signature.
//   content-type  Defaults to application/octet-stream.
// The body is the object. The headers If-None-Match, x-amz-checksum-sha256 and, if asked for, Content-MD5 are sent whether the
// URL was signed with them or not. S3 refuses x-amz-* headers that were not signed (403): sign them, or set checksum_header to false.
// Whoever makes the URLs must let them live as long as an effect may be repeated.
//
// What the status of the PUT means:
//   2xx        done; Outcome::object is the ETag
//   412        done if the object there has our checksum; refused if it has another; failing if its checksum cannot be learnt
//   403, 401   unauthorized: most often the URL has expired
//   409        in_progress: another conditional write of the object is under way
//   429        not_now, after Retry-After
//   others     as for HttpProvider
// Which checksum: x-amz-checksum-sha256 if the store keeps one, else an ETag that is the MD5 of our bytes. An ETag that is not that
// MD5 says nothing, since with some kinds of encryption it is no MD5 at all.
#pragma once

#include <chrono>
#include <string>

#include "outbox/provider.h"

namespace outbox {
inline namespace v1 {

struct UploadOptions {
  // Whether to send x-amz-checksum-sha256, which makes the store check the bytes and keep their checksum. Defaults to true.
  bool checksum_header = true;

  // Whether to send Content-MD5, for stores that know no other checksum. Defaults to false.
  bool content_md5 = false;

  // Whether HEAD may be used, after a 412 and by ask(). Defaults to true.
  bool head_allowed = true;

  // The header of the answer that becomes Outcome::request_id. Defaults to x-amz-request-id.
  std::string request_id_header = "x-amz-request-id";

  // File of PEM certificates to trust. Defaults to the system's. The store's certificate is always verified.
  std::string ca_file{};

  // For name, connection and TLS together, within the deadline. Defaults to 10 s.
  std::chrono::milliseconds connect_timeout{10'000};
};

class UploadProvider final : public Provider {
 public:
  // Connects to nothing.
  explicit UploadProvider(UploadOptions options);
  ~UploadProvider() override;

  // A request that can never be sent, say without a URL, is `refused` at Phase::nothing.
  Outcome call(const Request& request, Deadline deadline) override;

  // HEAD: 200 with our checksum is done, 404 absent, anything else no answer. S3 says 403 in place of 404 to whoever may not list
  // the bucket.
  Outcome lookup(const Request& request, Deadline deadline) override;
  bool supports_lookup() const override { return options_.head_allowed; }

 private:
  const UploadOptions options_;
};

}  // namespace v1
}  // namespace outbox
