// SPDX-License-Identifier: Apache-2.0
// SmtpProvider against a mail server that fails in every way: doubt exists between the dot and its
// answer, and nowhere else.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>

#include "outbox/smtp_provider.h"
#include "tests/support/fake_providers_test.h"

namespace relay {
namespace {

using namespace std::chrono_literals;
using test::said;
using Json = test::FakeProviders::Json;

class ProvidersMailTest : public test::FakeProvidersTest {
 protected:
  ProvidersMailTest() : FakeProvidersTest("mail") {}

  static outbox::SmtpOptions options() {
    return {.url = fakes->mail(), .require_tls = false, .from = "shop@example.com"};
  }
  static outbox::SmtpOptions with_tls() {
    return {.url = fakes->mail_tls(),
            .username = "shop",
            .password = "secret",
            .from = "shop@example.com",
            .ca_file = fakes->ca_file()};
  }
  outbox::Request letter(const std::string& text = "Thank you.\n") {
    const std::string name = new_name();
    return {.effect_key = name,
            .provider_key = name,
            .target = {{"to", name + "@example.org"}},
            .body = "Subject: Your order\n\n" + text};
  }
  static outbox::Outcome call(const outbox::Request& request, std::chrono::milliseconds time = 5s) {
    return outbox::SmtpProvider(options()).call(request, in(time));
  }
  static std::vector<Json> texts(const outbox::Request& request) {
    return fakes->log("mail", "request", request.target.at("to"));
  }
  static std::size_t sent(const outbox::Request& request) {
    return fakes->effects("mail", request.target.at("to"));
  }
};

TEST_F(ProvidersMailTest, ARepeatCarriesTheSameMessageId) {
  outbox::SmtpProvider provider(options());
  const outbox::Request request = letter();
  const outbox::Outcome first = provider.call(request, in(5s));
  EXPECT_EQ(said(first), "answered done 250");
  EXPECT_EQ(first.error, "");
  EXPECT_TRUE(first.request_id.starts_with("Q")) << first.request_id;
  EXPECT_EQ(first.response, "250 2.0.0 Ok: queued as " + first.request_id + "\n");
  fault(request, {{"fault", "close_after"}, {"stage", "dot"}});
  EXPECT_EQ(said(provider.call(request, in(5s))), "sent none 0");
  const outbox::Outcome third = provider.call(request, in(5s));
  EXPECT_EQ(third.object, first.object);

  const auto seen = texts(request);
  ASSERT_EQ(seen.size(), 3U);
  for (const Json& text : seen) {
    EXPECT_EQ(text["content"],
              "Message-ID: " + first.object + "\r\nSubject: Your order\r\n\r\nThank you.\r\n");
    EXPECT_EQ(text["sender"], "shop@example.com");
  }
  EXPECT_EQ(first.object.size(),
            std::string("<").size() + 32 + std::string("@example.com>").size());

  outbox::SmtpOptions elsewhere = options();
  elsewhere.message_id_domain = "mail.example.net";
  EXPECT_EQ(outbox::SmtpProvider(elsewhere).call(request, in(5s)).object,
            first.object.substr(0, 34) + "mail.example.net>");
  outbox::Request other = request;
  other.provider_key += "#2";
  EXPECT_NE(provider.call(other, in(5s)).object, first.object);
}

TEST_F(ProvidersMailTest, LinesArriveAsTheyAre) {
  for (const auto& [text, arrives] : std::map<std::string, std::string>{
           {".\n", ".\r\n"},
           {"..\n.a\n..b\n", "..\r\n.a\r\n..b\r\n"},
           {"a\n.\nb\n", "a\r\n.\r\nb\r\n"},
           {"a\r\n.\r\nRSET\r\n", "a\r\n.\r\nRSET\r\n"},
           {"a\n.\r\nb\r.\rc", "a\r\n.\r\nb\r\n.\r\nc\r\n"},
           {"no line feed at the end", "no line feed at the end\r\n"},
           {"\n\n\n", "\r\n\r\n\r\n"},
       }) {
    const outbox::Request request = letter(text);
    EXPECT_EQ(said(call(request)), "answered done 250");
    const auto seen = texts(request);
    ASSERT_EQ(seen.size(), 1U);
    const std::string content = seen[0]["content"];
    EXPECT_EQ(content.substr(content.find("\r\n\r\n") + 4), arrives);
  }
}

TEST_F(ProvidersMailTest, DotsInALongTextNeitherCutNorLengthenIt) {
  std::string text;
  while (text.size() < 1'500'000)
    text += text.size() % 3 == 0 ? ".\r\n" : "..dots at the begin of a line\r\n";
  const outbox::Request request = letter(text);
  EXPECT_EQ(said(call(request, 20s)), "answered done 250");
  const auto seen = texts(request);
  ASSERT_EQ(seen.size(), 1U);
  const std::string content = seen[0]["content"];
  EXPECT_TRUE(content.substr(content.find("\r\n\r\n") + 4) == text);
}

TEST_F(ProvidersMailTest, DoubledDotsDoNotStandInForTheEndOfTheText) {
  // libcurl reads this much at a time. If it knew the size of the text, it would take that
  // many bytes written for the whole text, and the dots that it doubled in the first part are as
  // many as the bytes of the rest.
  constexpr std::size_t part = 16'384;
  outbox::Request request = letter(".\r\n");
  const std::size_t head = [&] {
    EXPECT_EQ(said(call(request)), "answered done 250");
    return std::string(texts(request).at(0)["content"]).size() - 3;
  }();
  std::string text((part - head - 2) % 3, 'x');
  text += "\r\n";
  while (head + text.size() < part) text += ".\r\n";
  const auto dots = static_cast<std::size_t>(std::count(text.begin(), text.end(), '.'));
  std::string rest;
  while (rest.size() + 100 < dots) rest += std::string(78, 'x') + "\r\n";
  text += rest + std::string(dots - rest.size() - 2, 'x') + "\r\n";
  request.body = "Subject: Your order\r\n\r\n" + text;
  EXPECT_EQ(said(call(request)), "answered done 250");
  const std::string content = texts(request).at(1)["content"];
  EXPECT_EQ(content.size(), part + dots);
  EXPECT_TRUE(content.substr(head) == text);
}

TEST_F(ProvidersMailTest, WhatBreaksOffBeforeTheDotIsNothing) {
  for (const char* stage : {"connect", "MAIL", "RCPT", "DATA"}) {
    const outbox::Request request = letter();
    // A connection has no recipient yet.
    fakes->fault({{"at", "mail"}, {"fault", "close"}, {"stage", stage}});
    const outbox::Outcome outcome = call(request);
    EXPECT_EQ(said(outcome).substr(0, 13), "nothing none ") << stage;
    EXPECT_NE(outcome.error.find("HINT: "), std::string::npos) << stage;
    EXPECT_EQ(texts(request).size(), 0U);
    EXPECT_EQ(said(call(request)), "answered done 250");
  }
  // More than the sockets between can hold, so that the dot is not written when the server dies.
  for (const std::size_t bytes :
       {std::size_t{0}, std::size_t{1}, std::size_t{100}, std::size_t{1'000'000}}) {
    std::string text;
    while (text.size() < 32'000'000)
      text += "A line of a long letter, and then one more of the same kind.\n";
    const outbox::Request request = letter(text);
    fault(request, {{"fault", "close"}, {"stage", "text"}, {"bytes", bytes}, {"match", ""}});
    EXPECT_EQ(said(call(request)).substr(0, 13), "nothing none ") << bytes;
    EXPECT_EQ(sent(request), 0U);
  }
}

TEST_F(ProvidersMailTest, WhatBreaksOffBetweenTheDotAndItsAnswerIsInDoubt) {
  const outbox::Request lost = letter();
  fault(lost, {{"fault", "close"}, {"stage", "dot"}});
  EXPECT_EQ(said(call(lost)), "sent none 0");
  EXPECT_EQ(sent(lost), 0U);

  const outbox::Request taken = letter();
  fault(taken, {{"fault", "close_after"}, {"stage", "dot"}});
  EXPECT_EQ(said(call(taken)), "sent none 0");
  EXPECT_EQ(sent(taken), 1U);

  const outbox::Request slow = letter();
  fault(slow, {{"fault", "slow"}, {"stage", "dot"}, {"seconds", 60}});
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(said(call(slow, 500ms)), "sent none 0");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 1500ms);
  EXPECT_EQ(sent(slow), 1U);

  // A short text and its dot go out together: that the server read only the text cannot be known
  // here.
  const outbox::Request cut = letter();
  fakes->fault({{"at", "mail"}, {"fault", "close"}, {"stage", "text"}, {"bytes", 10}});
  EXPECT_EQ(said(call(cut)), "sent none 0");
  for (const outbox::Request& request : {lost, taken, slow}) EXPECT_EQ(texts(request).size(), 1U);
}

TEST_F(ProvidersMailTest, TheServersReplyDecidesAtEachStage) {
  const std::pair<const char*, const char*> lines[] = {
      {"451 4.3.0 try later", "answered not_now 451"},
      {"452 4.2.2 full", "answered not_now 452"},
      {"421 4.3.2 closing", "answered not_now 421"},
      {"550 5.1.1 no such user", "answered refused 550"},
      {"552 5.2.2 too large", "answered refused 552"},
      {"530 5.7.0 authenticate first", "answered unauthorized 530"},
      {"535 5.7.8 bad credentials", "answered unauthorized 535"}};
  for (const char* stage : {"MAIL", "RCPT", "DATA", "dot"}) {
    for (const auto& [line, outcome] : lines) {
      const outbox::Request request = letter();
      fakes->fault({{"at", "mail"}, {"fault", "reply"}, {"stage", stage}, {"line", line}});
      const outbox::Outcome got = call(request);
      EXPECT_EQ(said(got), outcome) << stage;
      EXPECT_EQ(got.response, std::string(line) + "\n") << stage;
      EXPECT_NE(got.error.find("HINT: "), std::string::npos);
      EXPECT_EQ(sent(request), 0U);
    }
  }
  const outbox::Request request = letter();
  fakes->fault({{"at", "mail"}, {"fault", "reply"}, {"stage", "dot"}, {"line", "251 2.6.0 taken"}});
  EXPECT_EQ(said(call(request)), "answered done 251");
}

TEST_F(ProvidersMailTest, ARefusalOfUsIsNoRefusalOfTheMessage) {
  const outbox::Request request = letter();
  const auto refuse = [](const char* line) {
    // Who is refused with EHLO tries HELO.
    for (const char* stage : {"EHLO", "HELO"})
      fakes->fault({{"at", "mail"}, {"fault", "reply"}, {"stage", stage}, {"line", line}});
  };
  refuse("550 5.7.1 your address is on a list");
  EXPECT_EQ(said(call(request)), "answered unauthorized 550");
  refuse("421 4.3.2 too busy");
  EXPECT_EQ(said(call(request)), "answered not_now 421");
  fakes->fault(
      {{"at", "mail"}, {"fault", "reply"}, {"stage", "EHLO"}, {"line", "502 5.5.1 what?"}});
  EXPECT_EQ(said(call(request)), "answered done 250");
  EXPECT_EQ(sent(request), 1U);
}

TEST_F(ProvidersMailTest, OneRefusedRecipientStopsTheMessageForAll) {
  outbox::Request request = letter();
  const std::string first = request.target["to"];
  request.target["to"] = first + " ,second@example.org, third@example.org";
  fault(request, {{"fault", "reply"}, {"stage", "RCPT"}, {"line", "550 no"}, {"match", "second"}});
  EXPECT_EQ(said(call(request)), "answered refused 550");
  EXPECT_EQ(texts(request).size(), 0U);
  EXPECT_EQ(said(call(request)), "answered done 250");
  EXPECT_EQ(fakes->effects("mail", first + ",second@example.org,third@example.org"), 1U);
}

TEST_F(ProvidersMailTest, AServerThatNeverAnswersQuitCostsNoTime) {
  for (const bool done : {true, false}) {
    const outbox::Request request = letter();
    fakes->fault({{"at", "mail"}, {"fault", "slow_quit"}, {"stage", "QUIT"}});
    if (!done) fault(request, {{"fault", "reply"}, {"stage", "RCPT"}, {"line", "550 no"}});
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_EQ(said(call(request)), done ? "answered done 250" : "answered refused 550");
    EXPECT_LT(std::chrono::steady_clock::now() - begin, 1s);
  }
}

TEST_F(ProvidersMailTest, AServerThatFallsSilentCostsTheDeadlineAndNoMore) {
  // More than sockets of any size can hold.
  std::string text;
  while (text.size() < 32'000'000)
    text += "A line of a long letter, and then one more of the same kind.\n";
  const outbox::Request request = letter(text);
  fakes->fault({{"at", "mail"}, {"fault", "stall"}, {"stage", "text"}, {"bytes", 100}});
  auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(said(call(request, 500ms)), "nothing none 354");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 1500ms);
  // One that waits for the other side to speak first.
  outbox::SmtpOptions silent = options();
  silent.url = "smtp" + fakes->payments().substr(4);
  begin = std::chrono::steady_clock::now();
  EXPECT_EQ(said(outbox::SmtpProvider(silent).call(request, in(500ms))), "nothing none 0");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 1500ms);
}

TEST_F(ProvidersMailTest, NothingIsSentWhereNobodyListens) {
  outbox::SmtpOptions dead = options();
  dead.url = "smtp://" + test::dead_address();
  EXPECT_EQ(said(outbox::SmtpProvider(dead).call(letter(), in(5s))), "nothing none 0");
  outbox::SmtpOptions hole = options();
  hole.url = "smtp://" + fakes->black_hole();
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(said(outbox::SmtpProvider(hole).call(letter(), in(300ms))), "nothing none 0");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 1s);
}

TEST_F(ProvidersMailTest, PasswordsGoOverTlsOnly) {
  const outbox::Request request = letter();
  EXPECT_EQ(said(outbox::SmtpProvider(with_tls()).call(request, in(5s))), "answered done 250");
  const auto seen = texts(request);
  ASSERT_EQ(seen.size(), 1U);
  EXPECT_EQ(seen[0]["tls"], true);
  EXPECT_EQ(seen[0]["user"], "shop");

  outbox::SmtpOptions other = with_tls();
  other.password = "wr0ng";
  const outbox::Outcome outcome = outbox::SmtpProvider(other).call(letter(), in(5s));
  EXPECT_EQ(said(outcome), "answered unauthorized 535");
  EXPECT_EQ((outcome.error + outcome.response).find("wr0ng"), std::string::npos);
  // Without authentication.
  other = with_tls();
  other.username = other.password = "";
  EXPECT_EQ(said(outbox::SmtpProvider(other).call(letter(), in(5s))), "answered done 250");
  // Not trusted.
  other = with_tls();
  other.ca_file.clear();
  const outbox::Outcome stranger = outbox::SmtpProvider(other).call(letter(), in(5s));
  EXPECT_EQ(stranger.phase, outbox::Phase::nothing);
  EXPECT_EQ(stranger.answer, outbox::Answer::none);
  EXPECT_NE(stranger.error.find("HINT: set ca_file"), std::string::npos) << stranger.error;
  // No STARTTLS.
  other = with_tls();
  other.url = fakes->mail();
  EXPECT_EQ(outbox::SmtpProvider(other).call(letter(), in(5s)).phase, outbox::Phase::nothing);
  EXPECT_EQ(fakes->log("mail", "request").back()["tls"], true);
}

TEST_F(ProvidersMailTest, WhatCouldNeverBeSentIsRefusedBefore) {
  const auto before = fakes->log("mail", "connection").size();
  const auto refuses = [&](const std::function<void(outbox::Request&)>& change) {
    outbox::Request request = letter();
    change(request);
    const outbox::Outcome outcome = call(request);
    return said(outcome) == "nothing refused 0" &&
           outcome.error.find("HINT: ") != std::string::npos;
  };
  for (const char* to :
       {"", "nobody", "a@b,", ",a@b", "a@b>\r\nRCPT TO:<c@d", "a b@c", "@b", "a@", "A <a@b>"}) {
    EXPECT_TRUE(refuses([&](outbox::Request& r) { r.target["to"] = to; })) << to;
    if (*to != ',') {
      EXPECT_TRUE(refuses([&](outbox::Request& r) { r.target["from"] = to; })) << to;
    }
  }
  EXPECT_TRUE(refuses([](outbox::Request& r) { r.target.erase("to"); }));
  EXPECT_TRUE(refuses([](outbox::Request& r) { r.provider_key.clear(); }));
  for (const char* field :
       {"Message-ID: <a@b>\n", "message-id:<a@b>\n", "Message-Id : <a@b>\r\n", " folded\n"}) {
    EXPECT_TRUE(refuses([&](outbox::Request& r) { r.body = field + r.body; })) << field;
  }
  EXPECT_TRUE(refuses([](outbox::Request& r) { r.body = "Subject: a\nMESSAGE-ID: <a@b>\n\n"; }));
  EXPECT_EQ(fakes->log("mail", "connection").size(), before);
  // In the text it is a line like any other.
  EXPECT_EQ(said(call(letter("Message-ID: <a@b>\n"))), "answered done 250");
}

}  // namespace
}  // namespace relay
