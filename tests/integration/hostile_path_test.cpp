// SPDX-License-Identifier: Apache-2.0
// A user who may create objects in a schema of a caller's search_path must not have them run as the
// caller: not by a function of the schemas, not by a trigger or a default, and not by a statement
// of the client library.
#include <gtest/gtest.h>

#include "outbox/effect.h"
#include "outbox/enqueue.h"
#include "outbox/inbox.h"
#include "tests/support/test_outbox.h"

namespace relay {
namespace {

using std::chrono::hours;
using std::chrono::system_clock;
using test::TestOutbox;

constexpr const char* all_schemas = "outbox,inbox,effect";

// Functions without the setting are inlined into their callers. They may name operators and types
// only with their schema.
constexpr const char* unpinned_sql = R"(
select p.oid::regprocedure::text
from pg_proc p
where p.pronamespace in ('outbox'::regnamespace, 'inbox'::regnamespace, 'effect'::regnamespace)
  and not coalesce('search_path=pg_catalog, pg_temp' = any (p.proconfig), false)
  and p.proname not in ('uuid7', 'batch_covers', 'record_bytes', 'span_of')
order by 1)";

TEST(HostilePath, EveryFunctionSetsItsSearchPath) {
  TestOutbox db(test::shared_postgres(), nullptr, all_schemas);
  EXPECT_EQ(db.value("select coalesce(string_agg(u, '; '), '') from (" + std::string(unpinned_sql) +
                     ") f(u)"),
            "");
}

// For each operator of pg_catalog one of the same name that raises: with the same types, which wins
// where pg_catalog comes later, and with the types that a literal or a cast leads to.
constexpr const char* hostile_schema_sql = R"(
create schema evil;
grant usage on schema evil to public;
do $$
declare
  o record;
  n integer := 0;
begin
  for o in
    select p.oprname as name, l.typname as l, r.typname as r, t.typname as result
    from pg_operator p
    join pg_type l on l.oid = p.oprleft
    join pg_type r on r.oid = p.oprright
    join pg_type t on t.oid = p.oprresult
    where p.oprnamespace = 'pg_catalog'::regnamespace
      and l.typname in ('int2', 'int4', 'int8', 'numeric', 'float8', 'text', 'bytea', 'jsonb',
                        'interval', 'timestamptz', 'bool', 'uuid', 'xid8')
      and r.typname in ('int2', 'int4', 'int8', 'numeric', 'float8', 'text', 'bytea', 'jsonb',
                        'interval', 'timestamptz', 'bool', 'uuid', 'xid8')
    union
    -- What pg_catalog has no exact match for.
    select v.* from (values
      ('*', 'numeric', 'int4', 'numeric'), ('*', 'numeric', 'int8', 'numeric'),
      ('/', 'numeric', 'int4', 'numeric'), ('/', 'float8', 'int4', 'float8'),
      ('*', 'float8', 'int4', 'float8'), ('*', 'int4', 'float8', 'float8'),
      ('*', 'int8', 'interval', 'interval'), ('*', 'interval', 'int8', 'interval'),
      ('*', 'interval', 'int4', 'interval'), ('*', 'interval', 'numeric', 'interval'),
      ('+', 'float8', 'int4', 'float8'), ('+', 'float8', 'numeric', 'float8'),
      ('||', 'text', 'int4', 'text'), ('||', 'text', 'int8', 'text'),
      ('>', 'float8', 'int4', 'bool'), ('<', 'float8', 'int4', 'bool'),
      ('>=', 'float8', 'int4', 'bool'), ('<=', 'float8', 'int4', 'bool'),
      ('>', 'numeric', 'int4', 'bool'), ('<', 'numeric', 'int4', 'bool')) v
  loop
    n := n + 1;
    execute format('create function evil.op%s(%I, %I) returns %I language plpgsql as '
                   '$f$ begin raise exception using message = ''foreign code runs: %s''; end $f$',
                   n, o.l, o.r, o.result, format('%s %s %s', o.l, o.name, o.r));
    execute format('create operator evil.%s (leftarg = %I, rightarg = %I, function = evil.op%s)',
                   o.name, o.l, o.r, n);
  end loop;
end
$$)";

class HostilePathTest : public ::testing::TestWithParam<const char*> {
 protected:
  HostilePathTest() {
    db.sql("select effect.register('bank', '{\"in_doubt_policy\": \"hold\"}')");
    db.sql(hostile_schema_sql);
  }
  // In a session that looks where the parameter says.
  std::string as_caller(const std::string& statement) {
    pqxx::connection c(db.dsn());
    pqxx::nontransaction tx(c);
    tx.exec("set search_path = " + std::string(GetParam()));
    std::string last;
    for (const auto& row : tx.exec(statement)) last = row[0].is_null() ? "" : row[0].c_str();
    return last;
  }

  TestOutbox db{test::shared_postgres(), nullptr, all_schemas};
};

TEST_P(HostilePathTest, TheDoorIsShownToBeOpen) {
  EXPECT_THROW(as_caller("select '1'::numeric * 2::int4"), pqxx::sql_error);
}

TEST_P(HostilePathTest, FunctionsOfTheOutbox) {
  const std::string id = as_caller("select outbox.enqueue('t', 'k', 'v')");
  as_caller("select outbox.enqueue('t', 'k', '{}'::jsonb, '{\"a\": \"b\"}', 'd')");
  as_caller("select outbox.enqueue('t', null, '\\x00'::bytea, deliver_at => 'tomorrow')");
  as_caller("insert into outbox.message (topic, payload, headers) values ('t', 'v', '{}')");
  EXPECT_EQ(as_caller("select state from outbox.status_of('" + id + "')"), "pending");
  EXPECT_EQ(as_caller("select state from outbox.status_of_key('d')"), "pending");
  as_caller("select outbox.batch_of('5', 1)");
  EXPECT_EQ(as_caller("select outbox.batch_covers(jsonb_populate_record(null::outbox.batch, "
                      "'{\"base\": \"3:3:\", \"upto\": \"9:9:\", \"upto_seq\": 1, "
                      "\"exhausted\": false}'), '5', 1)"),
            "t");
  as_caller("select outbox.record_bytes('k', 'v', '{}')");
  as_caller("select count(*) from outbox.releasable(true, 10, 1000)");
}

TEST_P(HostilePathTest, FunctionsOfTheInbox) {
  as_caller("select inbox.register('c', '1 day')");
  EXPECT_EQ(as_caller("select inbox.accept('c', 't', 'd', now())"), "new");
  EXPECT_EQ(as_caller("select inbox.accept('c', 't', 'd', now())"), "duplicate");
  as_caller("select inbox.accept_all('c', '{t,u}', '{a,b}', array[now(), now()])");
  const std::string parked = as_caller(
      "select inbox.park('c', 't', 0, 1, now(), 'k', 'v', '[]', 'x', 'handler', 'broken')");
  as_caller("select inbox.blocked('c', '{t}', '{k}')");
  EXPECT_EQ(as_caller("select inbox.decide('{" + parked + "}', 'release', 'me')"), "1");
  EXPECT_EQ(as_caller("select id from inbox.next_released('c', false, 0)"), parked);
  as_caller("select inbox.park_again(" + parked + ", 'still')");
  as_caller("select inbox.handled(" + parked + ")");
  as_caller("select inbox.report('c', '{t,t}', '{0,1}', array[now(), null])");
  as_caller("select inbox.prune('c', 100)");
  as_caller("select count(*) from inbox.statistics");
}

TEST_P(HostilePathTest, FunctionsOfTheLedger) {
  const std::string id = as_caller("select effect.plan('bank', 'e', '{}', 'body')");
  EXPECT_EQ(as_caller("select kind from effect.claim('bank', 'w', 1)"), "call");
  as_caller("select effect.settle(" + id +
            ", 1, 'sent', null, null, null, null, null, 'gone', "
            "'1 s', true)");
  as_caller("select count(*) from effect.claim('bank', 'w', 1)");
  as_caller("select count(*) from effect.unsettled");
  as_caller("select effect.expire('bank')");
  as_caller("select effect.resolve(" + id + ", 'failed', 'me', 'because')");
  EXPECT_EQ(as_caller("select effect.prune('0 s')"), "1");
}

TEST_P(HostilePathTest, StatementsOfTheClientLibrary) {
  pqxx::connection c(db.dsn());
  {
    pqxx::nontransaction tx(c);
    tx.exec("set search_path = " + std::string(GetParam()));
  }
  pqxx::work tx(c);
  outbox::enqueue(tx, outbox::Message{.topic = "t", .key = "k", .payload = "v"});
  outbox::enqueue(
      tx,
      outbox::Message{.topic = "t", .payload = "v", .deliver_at = system_clock::now() + hours(1)});
  outbox::inbox::register_consumer(tx, "c", hours(24));
  const outbox::inbox::Position position{"t", 0, system_clock::now()};
  outbox::inbox::report(tx, "c", std::span(&position, 1));
  EXPECT_EQ(outbox::inbox::accept(tx, "c", "t", "d", system_clock::now()),
            outbox::inbox::Accepted::new_message);
  const outbox::inbox::Arrival again{"t", "d", system_clock::now()};
  EXPECT_EQ(outbox::inbox::accept(tx, "c", std::span(&again, 1)).at(0),
            outbox::inbox::Accepted::duplicate);
  outbox::effect::plan(tx, {.provider = "bank", .effect_key = "e"});
  const auto claims = outbox::effect::claim(tx, "bank", "w", 1);
  ASSERT_EQ(claims.size(), 1U);
  outbox::effect::settle(tx, claims[0],
                         {.answer = outbox::Answer::done, .status = 200, .object = "o"});
  tx.commit();
}

INSTANTIATE_TEST_SUITE_P(SearchPath, HostilePathTest,
                         ::testing::Values("evil", "evil, public", "evil, pg_catalog"),
                         [](const auto& path) {
                           std::string name(path.param);
                           std::erase_if(name, [](char c) { return c == ',' || c == ' '; });
                           return name;
                         });

}  // namespace
}  // namespace relay
