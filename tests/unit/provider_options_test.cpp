// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <functional>
#include <stdexcept>
#include <string>

#include "outbox/http_provider.h"
#include "outbox/smtp_provider.h"

namespace relay {
namespace {

TEST(ProviderOptionsTest, HttpOptionsThatCannotWorkAreRefused) {
  const auto refuses = [](const std::function<void(outbox::HttpOptions&)>& change) {
    outbox::HttpOptions changed{.base_url = "https://api.example.com",
                                .headers = {{"Authorization", "Bearer x"}}};
    change(changed);
    try {
      outbox::HttpProvider provider(changed);
    } catch (const std::invalid_argument& e) {
      return std::string(e.what()).find("HINT: ") != std::string::npos;
    }
    return false;
  };
  for (const char* url : {"", "api.example.com", "ftp://a", "http://user:pw@a", "http://a?x=1",
                          "http://a#x", "file:///etc/passwd", "http://a\n"}) {
    EXPECT_TRUE(refuses([&](outbox::HttpOptions& o) { o.base_url = url; })) << url;
  }
  for (const char* name : {"", "A B", "Transfer-Encoding", "content-length", "Expect", "Host",
                           "Content-Type", "idempotency-key", "A:"}) {
    EXPECT_TRUE(refuses([&](outbox::HttpOptions& o) { o.headers[name] = "x"; })) << name;
  }
  EXPECT_TRUE(refuses([](outbox::HttpOptions& o) { o.headers["A"] = ""; }));
  EXPECT_TRUE(refuses([](outbox::HttpOptions& o) { o.idempotency_header = ""; }));
  EXPECT_TRUE(refuses([](outbox::HttpOptions& o) { o.object_pointer = "id"; }));
  EXPECT_TRUE(refuses([](outbox::HttpOptions& o) { o.key_pointer = "id"; }));
  EXPECT_TRUE(refuses([](outbox::HttpOptions& o) { o.lookup_path = "charges"; }));
  EXPECT_FALSE(refuses([](outbox::HttpOptions&) {}));
}

TEST(ProviderOptionsTest, SmtpOptionsThatCannotWorkAreRefused) {
  const auto refuses = [](const std::function<void(outbox::SmtpOptions&)>& change) {
    outbox::SmtpOptions changed{.url = "smtp://mail.example.com",
                                .username = "shop",
                                .password = "secret",
                                .from = "shop@example.com"};
    change(changed);
    try {
      outbox::SmtpProvider provider(changed);
    } catch (const std::invalid_argument& e) {
      return std::string(e.what()).find("HINT: ") != std::string::npos;
    }
    return false;
  };
  for (const char* url : {"", "mail.example.com", "http://a", "smtp://user:pw@a", "smtp://a?x",
                          "smtp://a;AUTH=PLAIN"}) {
    EXPECT_TRUE(refuses([&](outbox::SmtpOptions& o) { o.url = url; })) << url;
  }
  EXPECT_TRUE(refuses([](outbox::SmtpOptions& o) { o.require_tls = false; }));
  EXPECT_TRUE(refuses([](outbox::SmtpOptions& o) { o.password.clear(); }));
  EXPECT_TRUE(refuses([](outbox::SmtpOptions& o) { o.username.clear(); }));
  EXPECT_TRUE(refuses([](outbox::SmtpOptions& o) { o.from = "Shop <shop@example.com>"; }));
  EXPECT_TRUE(refuses([](outbox::SmtpOptions& o) { o.helo_name = "a b"; }));
  EXPECT_TRUE(refuses([](outbox::SmtpOptions& o) { o.message_id_domain = "a>"; }));
  EXPECT_FALSE(refuses([](outbox::SmtpOptions& o) { o.helo_name = "app.example.com"; }));
}

}  // namespace
}  // namespace relay
