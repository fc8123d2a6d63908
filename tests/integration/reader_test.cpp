// SPDX-License-Identifier: Apache-2.0
// The reader against a real PostgreSQL: no committed message is missed, none is read twice, keys
// keep their order.
#include "tests/support/reader_fixture.h"

namespace relay {
namespace {

using test::ReaderTest;

using Texts = std::vector<std::string>;

TEST_F(ReaderTest, AnEmptyOutboxHasNothing) { EXPECT_FALSE(page()); }

TEST_F(ReaderTest, EveryFieldArrivesAsItWasWritten) {
  db.sql(
      "insert into outbox.message (topic, key, payload, headers, dedup_key) values "
      "('some.topic', '\\x006b', '\\xff00', '{\"a\": \"1\", \"b\": \"\u00e9\"}', 'once'), ('t', "
      "null, null, null, null)");
  const auto p = page();
  ASSERT_TRUE(p);
  ASSERT_EQ(p->messages.size(), 2u);
  const Message& m = p->messages[0];
  EXPECT_EQ(m.topic, "some.topic");
  EXPECT_EQ(*m.key, std::string_view("\0k", 2));
  EXPECT_EQ(*m.payload, std::string_view("\xff\0", 2));
  EXPECT_EQ(*m.dedup_key, "once");
  EXPECT_EQ(m.id.text(), db.value("select id from outbox.message where seq = 1"));
  ASSERT_EQ(m.headers_to - m.headers_from, 2u);
  EXPECT_EQ(p->headers[0].name, "a");
  EXPECT_EQ(p->headers[1].value, "\u00e9");
  EXPECT_FALSE(p->messages[1].key || p->messages[1].payload || p->messages[1].dedup_key);
  EXPECT_TRUE(p->bounds.exhausted);
  EXPECT_FALSE(page());
}

TEST_F(ReaderTest, ALateCommitterIsReadInALaterDifferenceAndNobodyWaitsForIt) {
  pqxx::connection late(db.dsn());
  pqxx::work tx(late);
  tx.exec(insert("late"));
  db.sql(insert("early"));
  EXPECT_EQ(drain(), Texts{"early"});
  EXPECT_FALSE(page());
  db.sql(insert("between"));
  EXPECT_EQ(drain(), Texts{"between"});
  tx.commit();
  EXPECT_EQ(drain(), Texts{"late"});
  EXPECT_FALSE(page());
}

TEST_F(ReaderTest, ARolledBackTransactionLeavesNothing) {
  pqxx::connection c(db.dsn());
  pqxx::work tx(c);
  tx.exec(insert("ghost"));
  EXPECT_FALSE(page());
  tx.abort();
  EXPECT_FALSE(page());
}

TEST_F(ReaderTest, APreparedTransactionIsReadWhenItIsCommitted) {
  pqxx::connection c(db.dsn());
  pqxx::nontransaction tx(c);
  tx.exec("begin");
  tx.exec(insert("prepared"));
  tx.exec("prepare transaction '" + db.name() + "'");
  EXPECT_FALSE(page());
  db.sql(insert("meanwhile"));
  EXPECT_EQ(drain(), Texts{"meanwhile"});
  tx.exec("commit prepared '" + db.name() + "'");
  EXPECT_EQ(drain(), Texts{"prepared"});
}

TEST_F(ReaderTest, SavepointsAreReadWithTheirTransaction) {
  pqxx::connection c(db.dsn());
  pqxx::work tx(c);
  tx.exec(insert("a"));
  tx.exec("savepoint s");
  tx.exec(insert("undone"));
  tx.exec("rollback to s");
  tx.exec("savepoint s2");
  tx.exec(insert("b"));
  EXPECT_FALSE(page());
  tx.commit();
  EXPECT_EQ(drain(), (Texts{"a", "b"}));
}

TEST_F(ReaderTest, AnEarlyTransactionIdWithALateInsertIsNotMissed) {
  pqxx::connection c(db.dsn());
  pqxx::work tx(c);
  tx.exec("select pg_current_xact_id()");
  db.sql(insert("first"));
  EXPECT_EQ(drain(), Texts{"first"});
  tx.exec(insert("second"));
  db.sql(insert("third"));
  EXPECT_EQ(drain(), Texts{"third"});
  tx.commit();
  EXPECT_EQ(drain(), Texts{"second"});
}

TEST_F(ReaderTest, RowsHiddenByARewriteOfTheTableAreNotLost) {
  db.sql(insert("one"));
  EXPECT_EQ(drain(), Texts{"one"});
  pqxx::connection c(db.dsn());
  pqxx::work tx(c);
  tx.exec("lock table outbox.message in access exclusive mode");
  ASSERT_TRUE(reader.want());  // waits for the lock
  tx.exec(insert("two"));
  tx.exec("alter table outbox.message alter column topic type varchar using topic || ''");
  tx.commit();
  Texts all;
  test::eventually("the row that was rewritten", [&] {
    auto news = reader.advance();
    EXPECT_TRUE(news);
    if (!*news) return false;
    if (const auto p = reader.take()) {
      for (const Message& m : p->messages) all.emplace_back(*m.payload);
    }
    EXPECT_TRUE(reader.want());
    return !all.empty();
  });
  EXPECT_EQ(all, Texts{"two"});
}

TEST_F(ReaderTest, APageEndsAtItsRowsAndTheNextOneGoesOn) {
  options.batch_messages_max = 100;
  db.sql(
      "insert into outbox.message (topic, payload) select 't', convert_to(g::text, 'UTF8') from "
      "generate_series(1, 1050) g");
  std::vector<std::size_t> sizes;
  std::vector<std::string> all;
  while (auto p = page()) {
    sizes.push_back(p->messages.size());
    for (const Message& m : p->messages) all.emplace_back(*m.payload);
  }
  EXPECT_EQ(sizes,
            (std::vector<std::size_t>{100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 50}));
  for (std::size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i], std::to_string(i + 1));
}

TEST_F(ReaderTest, APageEndsAtItsBytesWhateverTheSizes) {
  options.batch_bytes_max = 1 << 20;
  db.sql(
      "insert into outbox.message (topic, payload) select 't', convert_to(repeat('x', case when g "
      "% 50 < 25 then 10 else 300000 end), "
      "'UTF8') from generate_series(1, 400) g");
  std::size_t all = 0;
  while (auto p = page()) {
    EXPECT_LE(p->bytes, 1 << 20);
    all += p->messages.size();
  }
  EXPECT_EQ(all, 400u);
}

TEST_F(ReaderTest, AMessageLargerThanAPageIsAPageOfItsOwn) {
  options.batch_bytes_max = 100'000;
  db.sql(
      "insert into outbox.message (topic, payload) select 't', convert_to(repeat('x', case g when "
      "2 "
      "then 150000 else 10 end), 'UTF8') from generate_series(1, 3) g");
  std::vector<std::size_t> sizes;
  while (const auto p = page()) sizes.push_back(p->messages.size());
  EXPECT_EQ(sizes, (std::vector<std::size_t>{1, 1, 1}));
}

// The relay has asked for thousands of small ones, and must neither read all of what it has no room
// for, nor take it for a trouble.
TEST(ReaderBurst, LargeMessagesBehindSmallOnesStallNothing) {
  test::TestOutbox burst;
  const std::string topic = burst.topic("t", 1);
  const auto write = [&](const char* payload, int messages) {
    burst.sql("insert into outbox.message (topic, payload) select '" + topic + "', " + payload +
              " from generate_series(1, " + std::to_string(messages) + ") g");
  };
  auto relay = burst.relay();
  for (int round = 0; round < 3; ++round) {
    write("'x'", 1'000);
    burst.wait_until_idle();
    write("convert_to(repeat('x', 900000), 'UTF8')", 60);
    burst.wait_until_idle();
  }
  EXPECT_EQ(relay.output().find("stalled"), std::string::npos) << relay.output();
  EXPECT_EQ(burst.value("select count(*) from outbox.parked"), "0");
  EXPECT_EQ(burst.value("select max(bytes) <= 8 << 20 from outbox.batch"), "t");
}

TEST_F(ReaderTest, APayloadThatIsTooLargeStaysInTheDatabase) {
  options.message_bytes_max = 1000;
  db.sql(
      "insert into outbox.message (topic, payload) values ('t', convert_to(repeat('x', 1001), "
      "'UTF8')), ('t', 'small')");
  const auto p = page();
  ASSERT_TRUE(p);
  ASSERT_EQ(p->messages.size(), 2u);
  EXPECT_TRUE(p->messages[0].oversize);
  EXPECT_EQ(p->messages[0].payload_bytes, 1001);
  EXPECT_FALSE(p->messages[0].payload);
  EXPECT_FALSE(p->messages[1].oversize);
}

TEST_F(ReaderTest, BadHeadersAreMarkedWithTheirReason) {
  db.sql(
      "insert into outbox.message (topic, headers) values ('t', '[]'), ('t', '{\"a\": 1}'), ('t', "
      "'{\"outbox-x\": \"1\"}'), "
      "('t', '{\"dedup-key\": \"1\"}'), ('t', '\"text\"'), ('t', '{}')");
  const auto p = page();
  ASSERT_TRUE(p);
  for (std::size_t i = 0; i < 5; ++i) EXPECT_NE(p->messages[i].bad_headers, nullptr) << i;
  EXPECT_EQ(p->messages[5].bad_headers, nullptr);
}

TEST_F(ReaderTest, AMillionRowTransactionIsReadInPagesAndInOrder) {
  pqxx::connection c(db.dsn());
  pqxx::work tx(c);
  tx.exec(
      "insert into outbox.message (topic, payload) select 't', convert_to(g::text, 'UTF8') from "
      "generate_series(1, 1000000) g");
  db.sql(insert("small"));
  EXPECT_EQ(drain(), Texts{"small"});
  tx.commit();
  db.sql(insert("after"));
  std::int64_t count = 0;
  std::int64_t last = 0;
  while (auto p = page()) {
    for (const Message& m : p->messages) {
      EXPECT_GT(m.seq, last);
      last = m.seq;
      ++count;
    }
  }
  EXPECT_EQ(count, 1'000'001);
}

TEST_F(ReaderTest, ARereadGivesTheSameRowsAndStopsWhenOneIsGone) {
  options.batch_messages_max = 50;
  pqxx::connection c(db.dsn());
  pqxx::work late(c);
  late.exec(insert("late"));
  db.sql(
      "insert into outbox.message (topic, payload) select 't', convert_to(g::text, 'UTF8') from "
      "generate_series(1, 120) g");
  drain();
  db.sql(
      "insert into outbox.message (topic, payload) select 't', convert_to(g::text, 'UTF8') from "
      "generate_series(1, 120) g");
  late.commit();
  std::vector<Page> pages;
  while (auto p = page()) pages.push_back(std::move(*p));
  ASSERT_GE(pages.size(), 3u);
  for (const Page& p : pages) {
    const auto again = reader.reread(test::batch_of(p, 1));
    ASSERT_TRUE(again) << again.error().text();
    ASSERT_EQ(again->messages.size(), p.messages.size());
    for (std::size_t i = 0; i < p.messages.size(); ++i)
      EXPECT_EQ(again->messages[i].seq, p.messages[i].seq);
  }
  db.sql("delete from outbox.message where seq = " + std::to_string(pages[1].messages[7].seq));
  const auto gone = reader.reread(test::batch_of(pages[1], 1));
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().fault, Fault::refused);
}

// Whatever the connection string says: the relay compares sizes with those that the server has
// counted.
TEST_F(ReaderTest, AnEncodingInTheConnectionStringIsNotTaken) {
  options.batch_bytes_max = 64 << 10;
  connect(db.dsn() + " client_encoding=LATIN1");
  reader.reset({.base = Snapshot::nothing()});
  const std::string write =
      "insert into outbox.message (topic, headers) select 't', jsonb_build_object('a', "
      "repeat('\u00e9', 1500)) "
      "from generate_series(1, ";
  db.sql(write + "10) g");
  ASSERT_TRUE(page());  // from now on the average is known
  db.sql(write + "1000) g");
  std::size_t all = 0;
  while (auto p = page()) {
    all += p->messages.size();
    for (const Header& h : p->headers) ASSERT_EQ(h.value.size(), 3'000U);
  }
  EXPECT_EQ(all, 1'000U);
}

struct Columns {
  const char* name;
  const char* values;  // of topic, key, payload, headers, dedup_key
};

// The server cuts a page by the sizes that the relay counts. Did it count more, a page would look
// exhausted, and its rest be lost; did it count less, the relay would read again and again what it
// has no room for.
class BytesOf : public ReaderTest, public ::testing::WithParamInterface<Columns> {};

TEST_P(BytesOf, APageEndsAtItsBytes) {
  options.batch_bytes_max = 64 << 10;
  options.message_bytes_max = 20'000;
  const auto write = [&](int messages) {
    db.sql(std::string(
               "insert into outbox.message (topic, key, payload, headers, dedup_key) select ") +
           GetParam().values + " from generate_series(1, " + std::to_string(messages) + ") g");
  };
  write(30);
  ASSERT_TRUE(page());  // from now on the average is known
  write(5'000 - 30);
  std::int64_t last = 0;
  std::size_t all = 0;
  for (int empty = 0; empty < 2;) {  // one can be the end of a difference whose last page was full
    const auto p = page();
    if (!p) {
      ++empty;
      continue;
    }
    EXPECT_LE(p->bytes, (64 << 10) + 40'000);
    for (const Message& m : p->messages) {
      EXPECT_GT(m.seq, last);
      last = m.seq;
    }
    all += p->messages.size();
  }
  EXPECT_GE(all, 5'000U - 30);
  EXPECT_EQ(std::to_string(last), db.value("select max(seq) from outbox.message"));
}

INSTANTIATE_TEST_SUITE_P(
    Each, BytesOf,
    ::testing::Values(
        Columns{"Headers",
                "'t', null, null, jsonb_build_object('a', repeat('\u00e9\n', 1500)), null"},
        Columns{"Topics", "repeat('t', 1000), null, null, null, null"},
        Columns{"DedupKeys", "'t', null, null, null, repeat('d', 1000)"},
        Columns{"Keys", "'t', convert_to(repeat('k', 10000), 'UTF8'), null, null, null"},
        Columns{"Nothing", "'t', null, null, null, null"},
        Columns{"PayloadsThatStay",
                "'t', null, convert_to(repeat('x', 30000), 'UTF8'), null, null"},
        Columns{"All",
                "repeat('t', (g * 7) % 50 + 1), convert_to(repeat('k', (g * 11) % 3000), 'UTF8'), "
                "convert_to(repeat('x', (g * 13) % 25000), 'UTF8'), "
                "case when g % 3 = 0 then jsonb_build_object('a', repeat('\u00e9', (g * 17) % "
                "900)) end, "
                "case when g % 5 = 0 then 'd' || g end"}),
    [](const auto& columns) { return std::string(columns.param.name); });

}  // namespace
}  // namespace relay
