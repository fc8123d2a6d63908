// SPDX-License-Identifier: Apache-2.0
// What must hold of every object of the three schemas, asked of the catalog.
#include <gtest/gtest.h>

#include "tests/support/test_outbox.h"

namespace relay {
namespace {

constexpr const char* ours =
    "('outbox'::regnamespace, 'inbox'::regnamespace, 'effect'::regnamespace)";

class CatalogTest : public ::testing::Test {
 protected:
  // The answers of a question that should have none, on one line.
  std::string found(const std::string& question) {
    return db.value("select coalesce(string_agg(q.found, '; ' order by q.found), '') from (" +
                    question + ") q(found)");
  }

  test::TestOutbox db{test::shared_postgres(), nullptr, "outbox,inbox,effect"};
};

// Without one, a publication for all tables lets every UPDATE and DELETE fail.
TEST_F(CatalogTest, EveryTableHasAPrimaryKey) {
  EXPECT_EQ(found("select c.oid::regclass::text from pg_class c where c.relkind in ('r', 'p') and "
                  "c.relnamespace in " +
                  std::string(ours) +
                  " and not exists (select from pg_index i where i.indrelid = c.oid and "
                  "i.indisprimary)"),
            "");
}

// An index by the rules of a language misses what is there after an upgrade of the C library.
TEST_F(CatalogTest, EveryIndexComparesTextByItsBytes) {
  EXPECT_EQ(found("select i.indexrelid::regclass || '.' || a.attname from pg_index i "
                  "join pg_class k on k.oid = i.indexrelid "
                  "join pg_attribute a on a.attrelid = i.indexrelid "
                  "join pg_collation c on c.oid = a.attcollation "
                  "where c.collname <> 'C' and k.relnamespace in " +
                  std::string(ours)),
            "");
}

TEST_F(CatalogTest, APublicationForAllTablesStopsNothing) {
  db.sql("create publication everything for all tables");
  db.sql("select inbox.register('c', '1 hour')");
  db.sql("select inbox.accept('c', 't', 'd', now() - interval '3 hours')");
  EXPECT_EQ(db.value("select inbox.accept('c', 't', 'd', now() - interval '3 hours')"),
            "duplicate");
  db.sql("update inbox.tally set seen_at = now() - interval '1 day'");
  db.sql("select inbox.accept('c', 't', 'e', now())");
  EXPECT_EQ(db.value("select inbox.prune('c')"), "1");
  EXPECT_EQ(db.value("select count(*) from inbox.tally"), "0");
}

// Consumers would take every later message with an empty key for a duplicate of the first.
TEST_F(CatalogTest, NoDoorTakesAnEmptyDeduplicationKey) {
  db.sql("select inbox.register('c')");
  db.sql("select effect.register('bank', '{\"in_doubt_policy\": \"hold\"}')");
  for (const char* door : {
           "select outbox.enqueue('t', 'k', 'v', dedup_key => '')",
           "select outbox.enqueue('t', 'k', '{}'::jsonb, dedup_key => '')",
           "select outbox.enqueue('t', null, '\\x00'::bytea, dedup_key => '')",
           "select outbox.enqueue('t', 'k', 'v', dedup_key => '', deliver_at => 'tomorrow')",
           "insert into outbox.message (topic, dedup_key) values ('t', '')",
           "insert into outbox.scheduled (topic, dedup_key, deliver_at) values ('t', '', "
           "'tomorrow')",
           "select inbox.accept('c', 't', '', now())",
           "select inbox.accept_all('c', '{t,t}', '{a,\"\"}', array[now(), now()])",
           "select effect.plan('bank', 'e', '{}', '', dedup_key => '')",
           "select effect.plan('bank', '', '{}', '')",
       }) {
    EXPECT_THROW(db.sql(door), pqxx::sql_error) << door;
  }
}

}  // namespace
}  // namespace relay
