// SPDX-License-Identifier: Apache-2.0
// UploadProvider against an object store: a repeat is distinguished from another object at the same
// place.
#include <gtest/gtest.h>

#include <string>

#include "client/effects/digest.h"
#include "common/hex.h"
#include "outbox/upload_provider.h"
#include "tests/support/fake_providers_test.h"

namespace relay {
namespace {

using namespace std::chrono_literals;
using test::said;
using Json = test::FakeProviders::Json;

class ProvidersUploadTest : public test::FakeProvidersTest {
 protected:
  ProvidersUploadTest() : FakeProvidersTest("store") {}

  // A place of its own. Below /md5 the store keeps no SHA-256, below /opaque the ETag is no MD5
  // either.
  outbox::Request upload(const std::string& folder = "/bucket",
                         const std::string& body = "some bytes") {
    const std::string path = folder + "/" + new_name();
    return {.effect_key = path,
            .provider_key = path,
            .target = {{"url", fakes->store() + path + "?X-Signature=s3cr3t"},
                       {"content-type", "text/plain"}},
            .body = body};
  }
  static outbox::Outcome call(const outbox::Request& request, outbox::UploadOptions options = {}) {
    options.origins = {fakes->store()};
    return outbox::UploadProvider(options).call(request, in(5s));
  }
  static std::size_t stored(const outbox::Request& request) {
    return fakes->effects("store", request.effect_key);
  }
  static std::vector<Json> seen(const outbox::Request& request) {
    return fakes->log("store", "request", request.effect_key);
  }
};

TEST_F(ProvidersUploadTest, ARepeatIsRecognised) {
  for (const char* folder : {"/bucket", "/md5"}) {
    const outbox::Request request = upload(folder);
    const outbox::Outcome first = call(request);
    EXPECT_EQ(said(first), "answered done 200");
    EXPECT_EQ(first.object, '"' + outbox::common::hex(outbox::effects::md5(request.body)) + '"');
    EXPECT_EQ(first.error, "");
    const outbox::Outcome second = call(request);
    EXPECT_EQ(said(second), "answered done 412");
    EXPECT_EQ(second.object, first.object);
    EXPECT_EQ(second.error, "");
    EXPECT_EQ(stored(request), 1U);

    const auto requests = seen(request);
    ASSERT_EQ(requests.size(), 3U);
    EXPECT_EQ(requests[0]["headers"]["if-none-match"], "*");
    EXPECT_EQ(requests[0]["headers"]["content-type"], "text/plain");
    EXPECT_EQ(requests[0]["headers"]["x-amz-checksum-sha256"],
              outbox::effects::base64(outbox::effects::sha256(request.body)));
    EXPECT_EQ(requests[0]["request_id"], first.request_id);
    EXPECT_EQ(requests[0]["sha256"], outbox::common::hex(outbox::effects::sha256(request.body)));
    EXPECT_EQ(requests[1]["method"], "PUT");
    EXPECT_EQ(requests[2]["method"], "HEAD");
  }
}

TEST_F(ProvidersUploadTest, AnotherObjectIsNotOverwritten) {
  const outbox::Request first = upload();
  EXPECT_EQ(said(call(first)), "answered done 200");
  outbox::Request other = first;
  other.body = "other bytes";
  const outbox::Outcome outcome = call(other);
  EXPECT_EQ(said(outcome), "answered refused 412");
  EXPECT_TRUE(outcome.error.starts_with("a different object exists. HINT: ")) << outcome.error;
  EXPECT_EQ(stored(first), 1U);
}

TEST_F(ProvidersUploadTest, WhatCannotBeToldApartIsNoSuccess) {
  // An ETag that is no MD5 proves nothing, whether the bytes are ours or not.
  const outbox::Request opaque = upload("/opaque");
  EXPECT_EQ(said(call(opaque)), "answered done 200");
  EXPECT_EQ(said(call(opaque)), "answered failing 412");
  outbox::Request other = upload("/md5");
  EXPECT_EQ(said(call(other)), "answered done 200");
  other.body = "other bytes";
  EXPECT_EQ(said(call(other)), "answered failing 412");

  const outbox::Request request = upload();
  EXPECT_EQ(said(call(request)), "answered done 200");
  const outbox::Outcome without = call(request, {.head_allowed = false});
  EXPECT_EQ(said(without), "answered failing 412");
  EXPECT_NE(without.error.find("HINT: allow HEAD"), std::string::npos) << without.error;
  outbox::Request unsigned_head = request;
  unsigned_head.target["head_url"] = unsigned_head.target["url"] + "&expired";
  const outbox::Outcome expired = call(unsigned_head);
  EXPECT_EQ(said(expired), "answered failing 412");
  EXPECT_NE(expired.error.find("HINT: set head_url"), std::string::npos) << expired.error;
  EXPECT_EQ(stored(request), 1U);
}

TEST_F(ProvidersUploadTest, EveryDoubtIsResolvedByTheNextAttempt) {
  struct Case {
    Json fault;
    std::string outcome;
    std::size_t stored;
    std::string next;
  };
  for (const Case& c :
       {Case{{{"fault", "close_before"}}, "sent none 0", 0, "answered done 200"},
        Case{{{"fault", "close_after"}}, "sent none 0", 1, "answered done 412"},
        Case{{{"fault", "status_after"}, {"status", 500}},
             "answered failing 500",
             1,
             "answered done 412"},
        Case{
            {{"fault", "status"}, {"status", 503}}, "answered failing 503", 0, "answered done 200"},
        Case{{{"fault", "status"}, {"status", 409}},
             "answered in_progress 409",
             0,
             "answered done 200"},
        Case{
            {{"fault", "status"}, {"status", 429}}, "answered not_now 429", 0, "answered done 200"},
        Case{{{"fault", "huge"}}, "sent none 201", 1, "answered done 412"}}) {
    const outbox::Request request = upload("/bucket", std::string(300'000, 'x'));
    fault(request, c.fault);
    EXPECT_EQ(said(call(request)), c.outcome) << c.fault;
    EXPECT_EQ(seen(request).size(), 1U) << c.fault;
    EXPECT_EQ(stored(request), c.stored) << c.fault;
    EXPECT_EQ(said(call(request)), c.next) << c.fault;
    EXPECT_EQ(stored(request), 1U) << c.fault;
  }
}

TEST_F(ProvidersUploadTest, AnUploadThatBrokeOffIsNotTakenForWhole) {
  for (const std::size_t bytes : {std::size_t{10}, std::size_t{1'000}, std::size_t{1'000'000}}) {
    const outbox::Request request = upload("/bucket", std::string(32'000'000, 'x'));
    fakes->fault({{"at", "store"}, {"fault", "read"}, {"bytes", bytes}});
    EXPECT_EQ(said(call(request)), "partly none 0");
    EXPECT_EQ(stored(request), 0U);
  }
}

TEST_F(ProvidersUploadTest, AnExpiredUrlIsNamedWithoutItsSignature) {
  outbox::Request request = upload();
  request.target["url"] += "&expired";
  const outbox::Outcome outcome = call(request);
  EXPECT_EQ(said(outcome), "answered not_now 403");
  EXPECT_NE(outcome.error.find("HINT: check that the presigned URL has not expired"),
            std::string::npos)
      << outcome.error;
  EXPECT_EQ(outcome.error.find("s3cr3t"), std::string::npos);
  const std::string nowhere = "http://" + test::dead_address();
  request.target["url"] = nowhere + "/a?X-Signature=s3cr3t";
  const outbox::Outcome dead = outbox::UploadProvider({.origins = {nowhere}}).call(request, in(5s));
  EXPECT_EQ(said(dead), "nothing none 0");
  EXPECT_EQ(dead.error.find("s3cr3t"), std::string::npos) << dead.error;
}

TEST_F(ProvidersUploadTest, TheStoreChecksTheBytesIfAsked) {
  const outbox::Request request = upload();
  EXPECT_EQ(said(call(request, {.checksum_header = false, .content_md5 = true})),
            "answered done 200");
  const auto headers = seen(request).at(0)["headers"];
  EXPECT_FALSE(headers.contains("x-amz-checksum-sha256"));
  EXPECT_EQ(headers["content-md5"], outbox::effects::base64(outbox::effects::md5(request.body)));
  // Another object's checksum in a success is no success.
  const outbox::Request mixed = upload();
  fault(mixed, {{"fault", "status_after"},
                {"status", 200},
                {"headers", {{"x-amz-checksum-sha256", "AAAA"}}}});
  const outbox::Outcome outcome = call(mixed);
  EXPECT_EQ(said(outcome), "answered failing 200");
  EXPECT_NE(outcome.error.find("answers another request"), std::string::npos);
}

TEST_F(ProvidersUploadTest, AskingTellsWhoseObjectIsThere) {
  outbox::UploadProvider provider({.origins = {fakes->store()}});
  ASSERT_TRUE(provider.supports_lookup());
  outbox::Request request = upload();
  EXPECT_EQ(said(provider.lookup(request, in(5s))), "answered absent 404");
  fault(request, {{"fault", "close_after"}});
  EXPECT_EQ(said(provider.call(request, in(5s))), "sent none 0");
  const outbox::Outcome found = provider.lookup(request, in(5s));
  EXPECT_EQ(said(found), "answered done 200");
  EXPECT_EQ(found.object, '"' + outbox::common::hex(outbox::effects::md5(request.body)) + '"');
  request.body = "other bytes";
  const outbox::Outcome other = provider.lookup(request, in(5s));
  EXPECT_EQ(said(other), "answered none 200");
  EXPECT_TRUE(other.error.starts_with("a different object exists. HINT: ")) << other.error;
  request.target["head_url"] = request.target["url"] + "&expired";
  EXPECT_EQ(said(provider.lookup(request, in(5s))), "answered none 403");
  EXPECT_EQ(stored(request), 1U);
  EXPECT_FALSE(outbox::UploadProvider({.origins = {fakes->store()}, .head_allowed = false})
                   .supports_lookup());
}

// A URL is what a message says: it must not make the worker ask any server that it reaches.
TEST_F(ProvidersUploadTest, NoServerIsAskedButTheAllowedOnes) {
  const auto before = fakes->log("store", "connection").size();
  const std::string port = fakes->store().substr(fakes->store().rfind(':'));
  for (const std::string& url : std::vector<std::string>{
           fakes->store() + "/bucket/a", "http://169.254.169.254/latest/meta-data",
           "http://localhost" + port + "/a", "http://store.example.com/a",
           "https://store.example.com:444/a", "https://store.example.com.evil.test/a",
           "https://store.example.com@127.0.0.1" + port + "/a",
           "http://[::ffff:127.0.0.1]" + port + "/a"}) {
    for (const char* name : {"url", "head_url"}) {
      outbox::Request request = upload();
      request.target["url"] = "https://store.example.com/a";
      request.target[name] = url;
      outbox::UploadProvider asked({.origins = {"https://Store.example.com:443"}});
      const outbox::Outcome outcome = asked.call(request, in(5s));
      EXPECT_EQ(said(outcome), "nothing refused 0") << url;
      EXPECT_NE(outcome.error.find("is not allowed"), std::string::npos) << url << outcome.error;
      EXPECT_NE(asked.lookup(request, in(5s)).error.find("is not allowed"), std::string::npos);
    }
  }
  EXPECT_EQ(fakes->log("store", "connection").size(), before);
  for (const std::string& origin :
       std::vector<std::string>{"", "store", "ftp://store", "https://store/path", "https://a@b"}) {
    EXPECT_THROW(outbox::UploadProvider({.origins = {origin}}), std::invalid_argument) << origin;
  }
  EXPECT_THROW(outbox::UploadProvider({}), std::invalid_argument);
}

TEST_F(ProvidersUploadTest, WhatCouldNeverBeSentIsRefusedBefore) {
  const auto before = fakes->log("store", "connection").size();
  for (const auto& [name, value] :
       std::multimap<std::string, std::string>{{"url", ""},
                                               {"url", "/bucket/a"},
                                               {"url", "ftp://a/b"},
                                               {"url", "file:///etc/passwd"},
                                               {"url", "http://a/b c"},
                                               {"url", "http://a/\r\nX: y"},
                                               {"head_url", "a"},
                                               {"content-type", "a\r\nX: y"}}) {
    outbox::Request request = upload();
    request.target[name] = value;
    const outbox::Outcome outcome = call(request);
    EXPECT_EQ(said(outcome), "nothing refused 0") << value;
    EXPECT_NE(outcome.error.find("HINT: "), std::string::npos) << value;
  }
  EXPECT_EQ(fakes->log("store", "connection").size(), before);
}

}  // namespace
}  // namespace relay
