// SPDX-License-Identifier: Apache-2.0
// HttpProvider against a provider that fails in every way: what it says of an attempt, and what the
// provider has seen of it.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <ctime>
#include <string>

#include "client/effects/digest.h"
#include "common/hex.h"
#include "outbox/http_provider.h"
#include "tests/support/fake_providers_test.h"

namespace relay {
namespace {

using namespace std::chrono_literals;
using test::said;
using Json = test::FakeProviders::Json;

class ProvidersTest : public test::FakeProvidersTest {
 protected:
  ProvidersTest() : FakeProvidersTest("payments") {}

  static outbox::HttpOptions options() {
    return {.base_url = fakes->payments(), .lookup_path = "/charges?key={key}"};
  }
  static outbox::HttpOptions trusting() {
    outbox::HttpOptions with_tls = options();
    with_tls.base_url = fakes->payments_tls();
    with_tls.ca_file = fakes->ca_file();
    return with_tls;
  }
  outbox::Request charge(const std::string& body = R"({"cents": 4200})") {
    const std::string key = new_name();
    return {.effect_key = key, .provider_key = key, .target = {{"path", "/charges"}}, .body = body};
  }
  static outbox::Outcome call(const outbox::Request& request, std::chrono::milliseconds time = 5s) {
    return outbox::HttpProvider(options()).call(request, in(time));
  }
  static std::size_t requests(const outbox::Request& request) {
    return fakes->requests("payments", request.provider_key);
  }
  static std::size_t done(const outbox::Request& request) {
    return fakes->effects("payments", request.provider_key);
  }
};

TEST_F(ProvidersTest, ARepeatIsAnsweredAsTheFirstWas) {
  outbox::HttpProvider provider(options());
  const outbox::Request request = charge();
  const outbox::Outcome first = provider.call(request, in(5s));
  EXPECT_EQ(said(first), "answered done 201");
  EXPECT_EQ(first.error, "");
  EXPECT_TRUE(first.object.starts_with("ch_")) << first.object;
  EXPECT_TRUE(first.response.find(first.object) != std::string::npos) << first.response;

  const outbox::Outcome second = provider.call(request, in(5s));
  EXPECT_EQ(said(second), "answered done 201");
  EXPECT_EQ(second.object, first.object);
  EXPECT_NE(second.request_id, first.request_id);

  const auto seen = fakes->log("payments", "request", request.provider_key);
  ASSERT_EQ(seen.size(), 2U);
  EXPECT_EQ(seen[0]["request_id"], first.request_id);
  EXPECT_EQ(seen[0]["headers"]["content-type"], "application/json");
  EXPECT_FALSE(seen[0]["headers"].contains("expect"));
  EXPECT_EQ(seen[0]["sha256"], outbox::common::hex(outbox::effects::sha256(request.body)));
  EXPECT_EQ(done(request), 1U);
}

TEST_F(ProvidersTest, TheBytesArriveAsTheyAre) {
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{1}, std::size_t{16'384},
                                  std::size_t{65'537}, std::size_t{3'000'000}}) {
    for (const bool tls : {false, true}) {
      outbox::Request request = charge(std::string(bytes, '\0'));
      for (std::size_t i = 0; i < bytes; ++i) request.body[i] = static_cast<char>(i * i % 251);
      outbox::HttpOptions where = options();
      if (tls) where = trusting();
      EXPECT_EQ(said(outbox::HttpProvider(where).call(request, in(10s))), "answered done 201")
          << bytes;
      const auto effect = fakes->log("payments", "effect", request.provider_key);
      ASSERT_EQ(effect.size(), 1U) << bytes;
      EXPECT_EQ(effect[0]["sha256"], outbox::common::hex(outbox::effects::sha256(request.body)))
          << bytes;
    }
  }
}

TEST_F(ProvidersTest, EachStatusIsAnAnswer) {
  for (const auto& [status, answer] : std::map<int, std::string>{
           {200, "done"},        {202, "done"},    {299, "done"},         {300, "refused"},
           {304, "refused"},     {400, "refused"}, {401, "unauthorized"}, {403, "unauthorized"},
           {404, "refused"},     {405, "refused"}, {407, "unauthorized"}, {408, "failing"},
           {409, "in_progress"}, {410, "refused"}, {413, "refused"},      {417, "refused"},
           {422, "refused"},     {425, "not_now"}, {429, "not_now"},      {451, "refused"},
           {500, "failing"},     {501, "refused"}, {502, "failing"},      {503, "failing"},
           {504, "failing"},     {599, "failing"}}) {
    const outbox::Request request = charge();
    // An invitation to authenticate, which libcurl must not accept.
    fault(request, {{"fault", "status"},
                    {"status", status},
                    {"headers", {{"WWW-Authenticate", "Basic"}, {"Connection", "keep-alive"}}}});
    const outbox::Outcome outcome = call(request);
    EXPECT_EQ(said(outcome), "answered " + answer + " " + std::to_string(status));
    EXPECT_EQ(outcome.error.find("HINT: ") != std::string::npos, answer != "done") << outcome.error;
    EXPECT_EQ(requests(request), 1U) << status;
    EXPECT_EQ(outcome.request_id,
              fakes->log("payments", "request", request.provider_key).at(0)["request_id"]);
  }
}

TEST_F(ProvidersTest, ARequestIsSentOnceHoweverItFails) {
  struct Case {
    Json fault;
    std::string outcome;
    std::size_t done;
  };
  for (const Case& c :
       {Case{{{"fault", "close_before"}}, "sent none 0", 0},
        Case{{{"fault", "close_after"}}, "sent none 0", 1},
        Case{{{"fault", "silent"}}, "sent none 0", 0},
        Case{{{"fault", "slow_after"}, {"seconds", 30}}, "sent none 0", 1},
        Case{{{"fault", "status_after"}, {"status", 500}}, "answered failing 500", 1},
        Case{{{"fault", "status"}, {"status", 503}}, "answered failing 503", 0},
        Case{{{"fault", "truncated"}}, "sent none 201", 1},
        Case{{{"fault", "cut_chunks"}}, "sent none 201", 1},
        Case{{{"fault", "huge"}}, "sent none 201", 1},
        Case{{{"fault", "endless"}}, "sent none 201", 1},
        Case{{{"fault", "bytewise"}, {"seconds", 1}}, "sent none 0", 1},
        Case{{{"fault", "bytewise"}, {"seconds", 0.001}}, "answered done 201", 1}}) {
    // The first call leaves a connection that libcurl would use again, and repeat the second
    // request when that is found dead.
    outbox::HttpProvider provider(options());
    const outbox::Request before = charge();
    EXPECT_EQ(said(provider.call(before, in(5s))), "answered done 201");
    const outbox::Request request = charge();
    fault(request, c.fault);
    const auto begin = std::chrono::steady_clock::now();
    const outbox::Outcome outcome = provider.call(request, in(1s));
    EXPECT_LT(std::chrono::steady_clock::now() - begin, 1500ms) << c.fault;
    EXPECT_EQ(said(outcome), c.outcome) << c.fault << outcome.error;
    EXPECT_EQ(outcome.error.find("HINT: ") != std::string::npos,
              outcome.answer != outbox::Answer::done)
        << outcome.error;
    EXPECT_LE(outcome.response.size(), 4'096U) << c.fault;
    EXPECT_EQ(requests(request), 1U) << c.fault;
    EXPECT_EQ(done(request), c.done) << c.fault;
    const auto one = fakes->log("payments", "request", before.provider_key);
    const auto other = fakes->log("payments", "request", request.provider_key);
    EXPECT_NE(one.at(0)["connection"], other.at(0)["connection"]);
  }
}

TEST_F(ProvidersTest, WhatAServerReadBeforeItDiedIsNeverNothing) {
  for (const std::size_t body : {std::size_t{20}, std::size_t{200'000}, std::size_t{32'000'000}}) {
    for (const std::size_t bytes : {1U, 50U, 150U, 400U, 100'000U, 1'000'000U}) {
      if (bytes > body + 100) continue;
      for (const bool tls : {false, true}) {
        outbox::HttpOptions where = options();
        if (tls) where = trusting();
        const auto cuts = fakes->log("payments", "cut").size();
        fakes->fault({{"at", "payments"}, {"fault", "read"}, {"bytes", bytes}});
        const outbox::Request request = charge(std::string(body, 'x'));
        const outbox::Outcome outcome = outbox::HttpProvider(where).call(request, in(5s));
        EXPECT_TRUE(outcome.phase == outbox::Phase::partly || outcome.phase == outbox::Phase::sent)
            << body << " " << bytes << " " << said(outcome);
        // More than the sockets between can hold: what is not written yet must not count as sent.
        if (body == 32'000'000) {
          EXPECT_EQ(said(outcome), "partly none 0") << bytes << outcome.error;
        }
        EXPECT_EQ(fakes->log("payments", "cut").size(), cuts + 1);
        EXPECT_EQ(requests(request), 0U);
      }
    }
  }
}

TEST_F(ProvidersTest, AServerThatReadsNoFurtherCostsTheDeadlineAndNoMore) {
  for (const bool tls : {false, true}) {
    fakes->fault({{"at", "payments"}, {"fault", "stall"}, {"bytes", 1'000}});
    const auto begin = std::chrono::steady_clock::now();
    // More than sockets of any size can hold.
    const outbox::Request request = charge(std::string(32'000'000, 'x'));
    const outbox::Outcome outcome =
        outbox::HttpProvider(tls ? trusting() : options()).call(request, in(500ms));
    EXPECT_EQ(said(outcome), "partly none 0") << outcome.error;
    EXPECT_LT(std::chrono::steady_clock::now() - begin, 1500ms);
  }
}

TEST_F(ProvidersTest, ASuccessBeforeTheRequestIsOverIsNone) {
  fakes->fault({{"at", "payments"}, {"fault", "early"}});
  const outbox::Request request = charge(std::string(32'000'000, 'x'));
  const outbox::Outcome outcome = call(request);
  EXPECT_NE(outcome.answer, outbox::Answer::done) << said(outcome);
  EXPECT_NE(outcome.phase, outbox::Phase::nothing) << said(outcome);
  EXPECT_EQ(outcome.object, "");
}

TEST_F(ProvidersTest, AConnectionThatIsClosedAtOnceIsNoAnswer) {
  fakes->fault({{"at", "payments"}, {"fault", "refuse"}});
  const outbox::Request request = charge();
  const outbox::Outcome outcome = call(request);
  EXPECT_NE(outcome.phase, outbox::Phase::answered) << said(outcome);
  EXPECT_EQ(requests(request), 0U);
}

TEST_F(ProvidersTest, NothingIsSentWhereNobodyListens) {
  outbox::HttpOptions dead = options();
  dead.base_url = "http://" + test::dead_address();
  const outbox::Outcome outcome = outbox::HttpProvider(dead).call(charge(), in(5s));
  EXPECT_EQ(said(outcome), "nothing none 0");
  EXPECT_NE(outcome.error.find("HINT: "), std::string::npos);

  outbox::HttpOptions hole = options();
  hole.base_url = "http://" + fakes->black_hole();
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(said(outbox::HttpProvider(hole).call(charge(), in(300ms))), "nothing none 0");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 1s);
  hole.connect_timeout = 200ms;
  EXPECT_EQ(said(outbox::HttpProvider(hole).call(charge(), in(60s))), "nothing none 0");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 5s);
  EXPECT_EQ(said(outbox::HttpProvider(options()).call(charge(), in(-1s))), "nothing none 0");
}

TEST_F(ProvidersTest, RedirectsAreNotFollowed) {
  for (const int status : {301, 302, 303, 307, 308}) {
    const outbox::Request request = charge();
    fault(request, {{"fault", "status"},
                    {"status", status},
                    {"headers", {{"Location", fakes->payments() + "/plain/charges"}}}});
    const outbox::Outcome outcome = call(request);
    EXPECT_EQ(said(outcome), "answered refused " + std::to_string(status));
    EXPECT_NE(outcome.error.find("redirects are not followed. HINT: "), std::string::npos)
        << outcome.error;
    EXPECT_EQ(requests(request), 1U);
    EXPECT_EQ(done(request), 0U);
  }
}

TEST_F(ProvidersTest, TheEnvironmentDoesNotChooseTheWay) {
  const std::string proxy = "http://" + test::dead_address();
  const char* names[] = {"http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"};
  for (const char* name : names) ::setenv(name, proxy.c_str(), 1);
  EXPECT_EQ(said(call(charge())), "answered done 201");
  for (const char* name : names) ::unsetenv(name);
}

TEST_F(ProvidersTest, APauseIsKeptAsToldUpToADay) {
  const auto pause = [&](const std::string& value, int status = 429) {
    const outbox::Request request = charge();
    fault(request,
          {{"fault", "status"}, {"status", status}, {"headers", {{"Retry-After", value}}}});
    return call(request).retry_after;
  };
  EXPECT_EQ(pause("7"), 7s);
  EXPECT_EQ(pause("7", 503), 7s);
  EXPECT_EQ(pause("86401"), 24h);
  EXPECT_EQ(pause("20991231"), 24h);
  EXPECT_EQ(pause("99999999999999999999"), 24h);
  EXPECT_EQ(pause("soon"), std::nullopt);
  EXPECT_EQ(pause("Wed, 21 Oct 2015 07:28:00 GMT"), 0s);
  const std::time_t when = std::time(nullptr) + 100;
  char text[64];
  std::tm parts{};
  std::strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", ::gmtime_r(&when, &parts));
  const auto given = pause(text);
  ASSERT_TRUE(given);
  EXPECT_LE(*given, 100s);
  EXPECT_GE(*given, 80s);
}

TEST_F(ProvidersTest, AKeyOfAnotherRequestIsNoSuccess) {
  outbox::HttpOptions careful = options();
  careful.key_pointer = "/idempotency_key";
  const outbox::Request request = charge();
  fault(request, {{"fault", "another"}});
  const outbox::Outcome outcome = outbox::HttpProvider(careful).call(request, in(5s));
  EXPECT_EQ(said(outcome), "answered failing 201");
  EXPECT_NE(outcome.error.find("answers another request"), std::string::npos) << outcome.error;
  EXPECT_EQ(outcome.object, "");
  EXPECT_EQ(said(outbox::HttpProvider(careful).call(request, in(5s))), "answered done 201");

  outbox::Request other = request;
  other.body = R"({"cents": 1})";
  EXPECT_EQ(said(call(other)), "answered refused 422");
  EXPECT_EQ(done(request), 1U);
}

TEST_F(ProvidersTest, AnAttemptUnderWayIsToldFromARefusal) {
  const outbox::Request request = charge();
  fault(request, {{"fault", "working"}, {"seconds", 2}});
  EXPECT_EQ(said(call(request, 300ms)), "sent none 0");
  EXPECT_EQ(said(call(request)), "answered in_progress 409");
  test::eventually("the first attempt is done", [&] { return done(request) == 1; });
  EXPECT_EQ(said(call(request)), "answered done 201");
  EXPECT_EQ(done(request), 1U);
}

TEST_F(ProvidersTest, AProviderWithoutKeysDoesItEachTime) {
  outbox::Request request = charge();
  request.target["path"] = "/plain/charges";
  EXPECT_EQ(said(call(request)), "answered done 201");
  EXPECT_EQ(said(call(request)), "answered done 201");
  EXPECT_EQ(done(request), 2U);
}

TEST_F(ProvidersTest, AskingTellsWhetherItWasDone) {
  outbox::HttpProvider provider(options());
  ASSERT_TRUE(provider.supports_lookup());
  outbox::Request request = charge();
  request.provider_key += "&x= %";
  EXPECT_EQ(said(provider.lookup(request, in(5s))), "answered absent 404");
  fault(request, {{"fault", "close_after"}});
  EXPECT_EQ(said(provider.call(request, in(5s))), "sent none 0");
  const outbox::Outcome found = provider.lookup(request, in(5s));
  EXPECT_EQ(said(found), "answered done 200");
  EXPECT_TRUE(found.object.starts_with("ch_")) << found.object;
  EXPECT_EQ(done(request), 1U);

  for (const int status : {202, 301, 401, 500}) {
    fakes->fault(
        {{"at", "payments"}, {"match", "GET-ME"}, {"fault", "status"}, {"status", status}});
    request.provider_key = "GET-ME";
    const outbox::Outcome outcome = provider.lookup(request, in(5s));
    EXPECT_EQ(said(outcome), "answered none " + std::to_string(status));
    EXPECT_NE(outcome.error.find("HINT: "), std::string::npos);
  }
  outbox::HttpOptions mute = options();
  mute.lookup_path.clear();
  EXPECT_FALSE(outbox::HttpProvider(mute).supports_lookup());
}

// What each answer with status 200 shows, by the options.
TEST_F(ProvidersTest, AHitOfALookupMustBeShown) {
  const auto ask = [&](const outbox::HttpOptions& with, const Json& body) {
    outbox::Request request = charge();
    fakes->fault({{"at", "payments"},
                  {"match", request.provider_key},
                  {"fault", "status"},
                  {"status", 200},
                  {"body", body.dump()}});
    return outbox::HttpProvider(with).lookup(request, in(5s));
  };
  const auto answer = [&](const outbox::HttpOptions& with, const Json& body) {
    const outbox::Outcome outcome = ask(with, body);
    EXPECT_EQ(outcome.answer == outbox::Answer::none,
              outcome.error.find("HINT: ") != std::string::npos)
        << outcome.error;
    return said(outcome);
  };
  const Json other = {{"id", "ch_1"}, {"key", "another"}};
  const Json keyless = {{"id", "ch_1"}};
  outbox::HttpOptions by_object = options();
  EXPECT_EQ(answer(by_object, keyless), "answered done 200");
  EXPECT_EQ(answer(by_object, Json::object()), "answered none 200");
  EXPECT_EQ(answer(by_object, {{"data", Json::array()}}), "answered none 200");
  EXPECT_EQ(answer(by_object, "no object"), "answered none 200");

  outbox::HttpOptions by_key = options();
  by_key.key_pointer = "/key";
  EXPECT_EQ(answer(by_key, other), "answered none 200");
  EXPECT_EQ(answer(by_key, keyless), "answered none 200");

  outbox::HttpOptions filter = options();
  filter.lookup_list_pointer = "/data";
  EXPECT_EQ(answer(filter, {{"data", Json::array()}}), "answered absent 200");
  EXPECT_EQ(answer(filter, {{"data", {keyless}}}), "answered done 200");
  EXPECT_EQ(answer(filter, {{"data", {keyless, keyless}}}), "answered none 200");
  EXPECT_EQ(answer(filter, {{"data", keyless}}), "answered none 200");
  EXPECT_EQ(answer(filter, keyless), "answered none 200");
  filter.key_pointer = "/key";
  EXPECT_EQ(answer(filter, {{"data", {other}}}), "answered none 200");

  // The fake answers with its own key.
  outbox::Request request = charge();
  outbox::HttpOptions shown = options();
  shown.key_pointer = "/idempotency_key";
  ASSERT_EQ(said(call(request)), "answered done 201");
  EXPECT_EQ(said(outbox::HttpProvider(shown).lookup(request, in(5s))), "answered done 200");
  shown.object_pointer.clear();
  shown.key_pointer.clear();
  EXPECT_THROW(outbox::HttpProvider{shown}, std::invalid_argument);
}

TEST_F(ProvidersTest, ACertificateMustBeTrusted) {
  outbox::HttpOptions where = options();
  where.base_url = fakes->payments_tls();
  const outbox::Request request = charge();
  const outbox::Outcome refused = outbox::HttpProvider(where).call(request, in(5s));
  EXPECT_EQ(said(refused), "nothing none 0");
  EXPECT_NE(refused.error.find("HINT: set ca_file"), std::string::npos) << refused.error;
  EXPECT_EQ(requests(request), 0U);
  where.ca_file = fakes->ca_file();
  EXPECT_EQ(said(outbox::HttpProvider(where).call(request, in(5s))), "answered done 201");
  // Trusted, and of another name.
  where.base_url.replace(where.base_url.find("127.0.0.1"), 9, "localhost");
  EXPECT_EQ(said(outbox::HttpProvider(where).call(request, in(5s))), "nothing none 0");
  where.ca_file = "/nonexistent.pem";
  EXPECT_EQ(said(outbox::HttpProvider(where).call(request, in(5s))), "nothing none 0");
  EXPECT_EQ(requests(request), 1U);
}

TEST_F(ProvidersTest, SecretsReachTheProviderAndNobodyElse) {
  outbox::HttpOptions with_secret = options();
  with_secret.headers = {{"Authorization", "Bearer s3cr3t"}};
  std::vector<outbox::Outcome> outcomes;
  for (const char* fault_name : {"close_before", "truncated", "huge", "none"}) {
    const outbox::Request request = charge();
    fault(request, {{"fault", fault_name}});
    outcomes.push_back(outbox::HttpProvider(with_secret).call(request, in(5s)));
    EXPECT_EQ(
        fakes->log("payments", "request", request.provider_key).at(0)["headers"]["authorization"],
        "Bearer s3cr3t");
  }
  with_secret.base_url = "http://" + test::dead_address();
  outcomes.push_back(outbox::HttpProvider(with_secret).call(charge(), in(5s)));
  for (const outbox::Outcome& outcome : outcomes) {
    EXPECT_EQ(
        (outcome.error + outcome.response + outcome.object + outcome.request_id).find("s3cr3t"),
        std::string::npos)
        << outcome.error;
  }
  with_secret.headers = {{"Authorization", "Bearer s3cr3t\n"}};
  try {
    outbox::HttpProvider provider(with_secret);
    FAIL();
  } catch (const std::invalid_argument& e) {
    EXPECT_EQ(std::string(e.what()).find("s3cr3t"), std::string::npos);
  }
}

// It would be asked of another path than lookup_path.
TEST_F(ProvidersTest, AKeyThatLeadsOutsideOfTheLookupPathIsNotAskedFor) {
  outbox::HttpOptions by_path = options();
  by_path.lookup_path = "/charges/{key}";
  by_path.key_pointer = "/idempotency_key";
  outbox::HttpProvider provider(by_path);
  const auto before = fakes->log("payments", "connection").size();
  for (const char* key : {".", ".."}) {
    outbox::Request request = charge();
    request.provider_key = key;
    const outbox::Outcome outcome = provider.lookup(request, in(5s));
    EXPECT_EQ(said(outcome), "nothing none 0");
    EXPECT_NE(outcome.error.find("HINT: "), std::string::npos) << outcome.error;
  }
  EXPECT_EQ(fakes->log("payments", "connection").size(), before);
}

TEST_F(ProvidersTest, WhatCouldNeverBeSentIsRefusedBefore) {
  const auto before = fakes->log("payments", "connection").size();
  using Target = std::map<std::string, std::string>;
  for (const Target& target :
       {Target{}, Target{{"path", "charges"}}, Target{{"path", "/a b"}},
        Target{{"path", "/../admin"}}, Target{{"path", "/a/%2E%2e/b"}}, Target{{"path", "/a/."}},
        Target{{"path", "/a\\..\\b"}}, Target{{"path", "/a\r\nX: y"}},
        Target{{"path", "/charges"}, {"method", "GET"}},
        Target{{"path", "/charges"}, {"method", "CONNECT"}},
        Target{{"path", "/charges"}, {"content-type", "a\r\nX: y"}}}) {
    outbox::Request request = charge();
    request.target = target;
    const outbox::Outcome outcome = call(request);
    EXPECT_EQ(said(outcome), "nothing refused 0");
    EXPECT_NE(outcome.error.find("HINT: "), std::string::npos);
  }
  outbox::Request request = charge();
  for (const char* key : {"", "a\r\nX: y"}) {
    request.provider_key = key;
    EXPECT_EQ(said(call(request)), "nothing refused 0");
  }
  EXPECT_EQ(fakes->log("payments", "connection").size(), before);
}

}  // namespace
}  // namespace relay
