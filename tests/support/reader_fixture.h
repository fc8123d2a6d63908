// SPDX-License-Identifier: Apache-2.0
// The relay's reader on an outbox of its own, without a relay around it.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "relay/postgres/database.h"
#include "relay/postgres/reader.h"
#include "tests/support/test_outbox.h"

namespace relay::test {

class ReaderTest : public ::testing::Test {
 protected:
  ReaderTest() : db(shared_postgres(), nullptr), database(options), reader(options, database) {
    options.dsn = Secret(db.dsn());
    connect(db.dsn());
    reader.reset({.base = Snapshot::nothing()});
  }

  // Reads on a new session from now on.
  void connect(const std::string& dsn) {
    database.use(std::move(*postgres::StreamSession::connect(dsn)));
  }

  // The next page, or nullopt if nothing new is visible.
  std::optional<Page> page() {
    auto wanted = reader.want();
    EXPECT_TRUE(wanted) << wanted.error().text();
    eventually("a page", [&] {
      auto news = reader.advance();
      if (!news) throw std::runtime_error(news.error().text());
      return *news;
    });
    return reader.take();
  }
  // Everything there is to read now, as payloads.
  std::vector<std::string> drain() {
    std::vector<std::string> out;
    while (auto p = page()) {
      for (const Message& m : p->messages) out.emplace_back(m.payload.value_or("(null)"));
    }
    return out;
  }
  static std::string insert(const std::string& payload, const std::string& key = "k") {
    return "insert into outbox.message (topic, key, payload) values ('t', '" + key + "', '" +
           payload + "')";
  }

  TestOutbox db;
  postgres::Options options;
  postgres::PgDatabase database;
  postgres::PgReader reader;
};

// What the journal would know of the page.
inline Batch batch_of(const Page& page, std::int64_t number) {
  Batch b;
  b.number = number;
  b.bounds = page.bounds;
  b.messages = static_cast<std::int64_t>(page.messages.size());
  return b;
}

inline std::vector<std::int64_t> seqs_of(const Page& page) {
  std::vector<std::int64_t> seqs;
  for (const Message& m : page.messages) seqs.push_back(m.seq);
  return seqs;
}

}  // namespace relay::test
