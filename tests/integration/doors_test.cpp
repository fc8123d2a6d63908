// SPDX-License-Identifier: Apache-2.0
// The doors by which applications write a message: with which types, what arrives, what can be read
// back, and what became of a commit without an answer.
#include <gtest/gtest.h>

#include <pqxx/pqxx>

#include "outbox/enqueue.h"
#include "tests/support/postgres_proxy.h"
#include "tests/support/test_outbox.h"

namespace doors_test {
namespace {

using relay::test::PostgresProxy;
using relay::test::TestOutbox;

// What the input syntax of bytea would damage, refuse, or take for something else.
const char* const awkward[] = {
    R"({"path":"C:\\dir"})", R"({"a":"x\"y"})", R"(\x41)", R"(\134)", R"(C:\dir)", "\xC3\xA4"};

class DoorsTest : public ::testing::Test {
 protected:
  DoorsTest() : connection(db.login("outbox_writer")) {}

  std::string newest() const {
    return db.value(
        "select convert_from(m.key, 'UTF8') || '|' || convert_from(m.payload, 'UTF8') from "
        "outbox.message m order by m.seq desc limit 1");
  }
  // As the application. Returns the SQLSTATE of an error, or nothing.
  std::string run(const std::string& sql) {
    pqxx::work tx(connection);
    try {
      last = tx.exec(sql);
      tx.commit();
      return "";
    } catch (const pqxx::sql_error& e) {
      return e.sqlstate().empty() ? "42501" : e.sqlstate();  // which libpqxx 6 omits
    }
  }

  TestOutbox db{relay::test::shared_postgres(), nullptr};
  pqxx::connection connection;
  pqxx::result last;
};

TEST_F(DoorsTest, TextArrivesAsItIsThroughEachDoorForText) {
  for (const std::string text : awkward) {
    const std::string quoted = "'" + text + "'";
    for (const std::string& statement : std::vector<std::string>{
             "select outbox.enqueue('t', " + quoted + ", " + quoted + ")",
             "insert into outbox.text_message (topic, key, payload) values ('t', " + quoted + ", " +
                 quoted + ")"}) {
      EXPECT_EQ(run(statement), "") << statement;
      EXPECT_EQ(newest(), text + "|" + text) << statement;
    }
  }
}

// psycopg sends text without a type.
TEST_F(DoorsTest, TextArrivesAsItIsFromPython) {
  for (const std::string text : awkward) {
    for (const std::string statement :
         {"select outbox.enqueue('t', %s, %s)",
          "insert into outbox.text_message (topic, key, payload) values ('t', %s, %s)"}) {
      const auto done =
          relay::test::run_command({"/usr/bin/python3", "-c",
                                    "import psycopg2, sys\n"
                                    "connection = psycopg2.connect(sys.argv[1])\n"
                                    "with connection, connection.cursor() as cursor:\n"
                                    "    cursor.execute(sys.argv[2], (sys.argv[3], sys.argv[3]))\n",
                                    db.login("outbox_writer"), statement, text},
                                   {});
      EXPECT_EQ(done.code, 0) << done.output;
      EXPECT_EQ(newest(), text + "|" + text) << statement;
    }
  }
}

struct Pair {
  const char* key;      // type of the parameter
  const char* payload;  // likewise
  const char* expected;
};

// `unknown` is what psycopg, node-postgres and libpqxx send for text, and what pgx, asyncpg and
// JDBC ask the server to decide.
TEST_F(DoorsTest, EachPairOfTypesWorksOrFailsClearly) {
  const char* const none = "42883";  // no such function; the hint of PostgreSQL asks for a cast
  const std::map<std::string, std::string> values = {
      {"unknown", "'7'"}, {"text", "'7'"}, {"varchar", "'7'"},
      {"bytea", "'7'"},   {"json", "'7'"}, {"jsonb", "'7'"},
      {"integer", "7"},   {"bigint", "7"}, {"uuid", "'018f4a7e-0000-7000-8000-000000000001'"}};
  const Pair pairs[] = {
      {"unknown", "unknown", ""}, {"unknown", "text", ""},    {"unknown", "varchar", ""},
      {"unknown", "json", ""},    {"unknown", "jsonb", ""},   {"unknown", "bytea", ""},
      {"text", "unknown", ""},    {"text", "text", ""},       {"text", "varchar", ""},
      {"text", "json", ""},       {"text", "jsonb", ""},      {"text", "bytea", ""},
      {"varchar", "unknown", ""}, {"varchar", "varchar", ""}, {"varchar", "json", ""},
      {"varchar", "jsonb", ""},   {"varchar", "bytea", ""},   {"bytea", "unknown", ""},
      {"bytea", "bytea", ""},     {"bytea", "text", none},    {"bytea", "jsonb", none},
      {"uuid", "unknown", none},  {"uuid", "jsonb", none},    {"uuid", "bytea", none},
      {"integer", "text", none},  {"bigint", "jsonb", none},  {"text", "integer", none},
  };
  for (const Pair& p : pairs) {
    const std::string types = std::string(p.key) + ", " + p.payload;
    ASSERT_EQ(run("prepare door (" + types + ") as select outbox.enqueue('t', $1, $2)"), p.expected)
        << types;
    if (*p.expected != '\0') continue;
    EXPECT_EQ(run("execute door (" + values.at(p.key) + ", " + values.at(p.payload) + ")"), "")
        << types;
    EXPECT_EQ(newest(), "7|7") << types;
    EXPECT_EQ(run("deallocate door"), "");
  }
}

// An untyped key beside bytes is text, and no escape of bytea.
TEST_F(DoorsTest, AKeyBesideABinaryPayloadIsText) {
  EXPECT_EQ(run(R"(select outbox.enqueue('t', 'C:\dir', '\x00ff'::bytea))"), "");
  EXPECT_EQ(db.value("select convert_from(m.key, 'UTF8') || ' ' || encode(m.payload, 'hex') from "
                     "outbox.message m"),
            R"(C:\dir 00ff)");
}

TEST_F(DoorsTest, WhatAnEntityReadsBackCanBeRead) {
  for (const std::string door : {"outbox.message", "outbox.text_message"}) {
    const std::string insert = "insert into " + door + " (topic, payload) values ('t', 'x') ";
    EXPECT_EQ(run(insert + "returning id, created_at"), "") << door;
    EXPECT_FALSE(last[0][0].is_null() || last[0][1].is_null()) << door;
    EXPECT_EQ(run("insert into " + door +
                  " (id, topic) values ('018f4a7e-0000-7000-8000-000000000001', 't')"),
              "")
        << door;
  }
  EXPECT_EQ(run("insert into outbox.text_message (topic, deliver_at) values ('t', now() + interval "
                "'1 day') returning *"),
            "");
  EXPECT_EQ(db.value("select id::text from outbox.scheduled"), last[0]["id"].c_str());
  // Payloads of others are not for every application.
  EXPECT_EQ(run("insert into outbox.message (topic) values ('t') returning *"), "42501");
  EXPECT_EQ(run("insert into outbox.text_message (id, topic, deliver_at) values "
                "('018f4a7e-0000-7000-8000-000000000001', 't', now())"),
            "0A000");
}

bool is_commit(const std::string& text) {
  return text.starts_with("COMMIT") || text.starts_with("commit");
}

class LostCommit : public ::testing::Test {
 protected:
  LostCommit() : proxy(postgres.port()) {}

  // Sends a message in a transaction whose connection breaks in COMMIT; returns its identity.
  std::string lose_commit(PostgresProxy::Then then) {
    const auto lost = proxy.hold(is_commit, then);
    std::string id;
    try {
      pqxx::connection through(proxy.dsn(db.dsn()));
      pqxx::work tx(through);
      id = outbox::transaction_id(tx);
      outbox::enqueue(tx, {.topic = "t", .payload = "x"});
      tx.commit();
      ADD_FAILURE() << "the commit was answered";
    } catch (const pqxx::failure&) {
    }
    lost->caught();
    return id;
  }
  outbox::CommitStatus status(const std::string& id) {
    pqxx::connection another(db.dsn());
    pqxx::work tx(another);
    return outbox::commit_status(tx, id);
  }
  std::string messages() const { return db.value("select count(*) from outbox.message"); }

  relay::test::ScratchPostgres postgres;
  TestOutbox db{postgres, nullptr};
  PostgresProxy proxy;
};

TEST_F(LostCommit, WhileItWaitsForAStandbyIsNeitherCommittedNorAborted) {
  const auto wait_for_standby = [&](const std::string& name) {
    db.sql("alter system set synchronous_standby_names = '" + name + "'");
    db.sql("select pg_reload_conf()");
    relay::test::eventually("the setting is in force",
                            [&] { return db.value("show synchronous_standby_names") == name; });
  };
  wait_for_standby("nobody");
  const std::string id = lose_commit(PostgresProxy::Then::cut_amid);
  relay::test::eventually("it waits for the standby", [&] {
    return db.value("select count(*) from pg_stat_activity where wait_event = 'SyncRep'") == "1";
  });
  EXPECT_EQ(messages(), "0") << "which looks as if it was aborted";
  EXPECT_EQ(status(id), outbox::CommitStatus::in_progress);
  wait_for_standby("");
  relay::test::eventually("it is committed",
                          [&] { return status(id) == outbox::CommitStatus::committed; });
  EXPECT_EQ(messages(), "1");
}

TEST_F(LostCommit, ThatNeverArrivedIsAborted) {
  const std::string id = lose_commit(PostgresProxy::Then::lose_request);
  relay::test::eventually("it is aborted",
                          [&] { return status(id) == outbox::CommitStatus::aborted; });
  EXPECT_EQ(messages(), "0");
}

}  // namespace
}  // namespace doors_test
