// SPDX-License-Identifier: Apache-2.0
// Which ways of writing keep the order of a key, and which do not: each line of the documented
// table, by what a consumer receives.
//
// T1 holds the lock on the key. T2 starts, waits for it, and goes on when T1 has committed. The
// lines that are wrong are shown to be wrong, so that the documentation neither permits nor
// forbids too much.
#include <gtest/gtest.h>
#include <signal.h>

#include <future>
#include <memory>

#include "tests/support/checker.h"

namespace relay {
namespace {

using test::TestOutbox;
using Texts = std::vector<std::string>;

// What the relay reads in one difference is ordered by seq alone; in two, by their order first.
enum class Differences { one, two };

struct Line {
  const char* name;
  const char* t1_locks;
  const char* t2;           // begins before T1 enqueues, ends after T1 has committed
  const char* t1_enqueues;  // while T2 waits
  Texts arrive;             // when both are read in one difference
};

constexpr const char* t1_enqueues = "select outbox.enqueue(':topic', ':key', 'T1')";
const Texts right = {"T1", "T2"};
const Texts wrong = {"T2", "T1"};

const std::vector<Line> right_lines = {
    {"UpdateThenEnqueue", "update account set n = n + 1 where key = ':key'",
     "update account set n = n + 1 where key = ':key'; select outbox.enqueue(':topic', ':key', "
     "'T2')",
     t1_enqueues, right},
    {"SelectForUpdateThenEnqueue", "select from account where key = ':key' for update",
     "select from account where key = ':key' for update; select outbox.enqueue(':topic', ':key', "
     "'T2')",
     t1_enqueues, right},
    {"AdvisoryLockThenEnqueue", "select pg_advisory_xact_lock(hashtext(':key'))",
     "select pg_advisory_xact_lock(hashtext(':key')); select outbox.enqueue(':topic', ':key', "
     "'T2')",
     t1_enqueues, right},
    {"EnqueueFromAnUpdateInACte", "update account set n = n + 1 where key = ':key'",
     "with u as (update account set n = n + 1 where key = ':key' returning key) select "
     "outbox.enqueue(':topic', u.key, 'T2') from u",
     t1_enqueues, right},
    {"InsertFromSelectForUpdate", "update account set n = n + 1 where key = ':key'",
     "insert into outbox.message (topic, key, payload) select ':topic', convert_to(a.key, 'UTF8'), "
     "'T2' from account a "
     "where a.key = ':key' for update",
     t1_enqueues, right},
    {"AfterRowTrigger", "update sent_after set who = 'T1' where key = ':key'",
     "update sent_after set who = 'T2' where key = ':key'", "", right},
    {"BeforeUpdateTrigger", "update sent_before set who = 'T1' where key = ':key'",
     "update sent_before set who = 'T2' where key = ':key'", "", right},
};
const std::vector<Line> wrong_lines = {
    {"EnqueueThenUpdate", "update account set n = n + 1 where key = ':key'",
     "select outbox.enqueue(':topic', ':key', 'T2'); update account set n = n + 1 where key = "
     "':key'",
     t1_enqueues, wrong},
    {"BeforeInsertTriggerWithOnConflict", "update sent_on_insert set who = 'T1' where key = ':key'",
     "insert into sent_on_insert values (':key', 'T2') on conflict (key) do update set who = "
     "excluded.who",
     t1_enqueues, wrong},
    {"BeforeInsertTriggerThatWaitsOnAUniqueIndex", "delete from sent_on_insert where key = ':key'",
     "insert into sent_on_insert values (':key', 'T2')", t1_enqueues, wrong},
    // Evaluated below the lock, and again after the wait.
    {"EnqueueInASelectForUpdate",
     "update account set n = n + 1 where key = ':key'",
     "select outbox.enqueue(':topic', a.key, 'T2') from account a where a.key = ':key' for update",
     t1_enqueues,
     {"T2", "T1", "T2"}},
};

// A db whose relay runs throughout; it is paused while messages are to fall into one difference.
class Room {
 public:
  Room() : topic(db.topic("t", 1)), relay_(db.relay({{"OUTBOX_RELAY_LEASE_TTL", "60s"}})) {
    db.sql("create table account (key text primary key, n integer not null default 0)");
    for (const std::string table : {"sent_after", "sent_before", "sent_on_insert"}) {
      db.sql("create table " + table + " (key text primary key, who text)");
      add_keys(table);
    }
    add_keys("account");
    db.sql(
        "create function enqueue_row() returns trigger language plpgsql as $$ begin perform "
        "outbox.enqueue('" +
        topic + "', new.key, new.who); return new; end $$");
    db.sql(
        "create trigger enqueue_row after update on sent_after for each row execute function "
        "enqueue_row()");
    db.sql(
        "create trigger enqueue_row before update on sent_before for each row execute function "
        "enqueue_row()");
    db.sql(
        "create trigger enqueue_row before insert on sent_on_insert for each row execute function "
        "enqueue_row()");
    relay_.says("to=streaming");
  }
  void close() {
    relay_.signal(SIGTERM);
    EXPECT_EQ(relay_.wait(), 0) << relay_.output();
  }

  static std::string key(const Line& line, Differences d) {
    return line.name + std::string(d == Differences::one ? "1" : "2");
  }

  void pause() {
    relay_.signal(SIGSTOP);
    test::eventually("what the relay has asked for is answered", [&] {
      return db.value(
                 "select count(*) from pg_stat_activity a where a.datname = current_database() and "
                 "a.state <> 'idle' and "
                 "a.application_name like 'outbox-relay%'") == "0";
    });
  }
  void resume() { relay_.signal(SIGCONT); }

  // What a consumer of this key has received when everything is delivered.
  Texts arrived(const std::string& key) {
    db.wait_until_idle();
    Texts out;
    for (const auto& r :
         test::read_log(db.kafka().brokers(), {topic}, test::Isolation::read_committed).records) {
      if (r.key == key) out.push_back(r.payload.value_or(""));
    }
    return out;
  }

  TestOutbox db;
  std::string topic;

 private:
  void add_keys(const std::string& table) {
    for (const auto* lines : {&right_lines, &wrong_lines}) {
      for (const Line& line : *lines) {
        for (const Differences d : {Differences::one, Differences::two})
          db.sql("insert into " + table + " (key) values ('" + key(line, d) + "')");
      }
    }
  }

  test::Process relay_;
};

// One room for all tests.
class Order : public ::testing::Test {
 public:
  Order() {
    if (!room) room = std::make_unique<Room>();
  }
  static inline std::unique_ptr<Room> room;
};

class CloseTheRoom : public ::testing::Environment {
  void TearDown() override {
    if (Order::room) Order::room->close();
    Order::room.reset();
  }
};
const auto* const close_the_room = ::testing::AddGlobalTestEnvironment(new CloseTheRoom);

class OrderOfAKey : public Order, public ::testing::WithParamInterface<Line> {
 protected:
  Texts run(const Line& line, Differences differences) {
    const std::string key = Room::key(line, differences);
    const auto filled = [&](std::string sql) {
      for (const auto& [name, value] :
           {std::pair{std::string(":topic"), room->topic}, {std::string(":key"), key}}) {
        for (std::size_t at = 0; (at = sql.find(name)) != std::string::npos;)
          sql.replace(at, name.size(), value);
      }
      return sql;
    };
    if (differences == Differences::one) room->pause();
    pqxx::connection c1(room->db.dsn());
    pqxx::connection c2(room->db.dsn());
    pqxx::work t1(c1);
    t1.exec(filled(line.t1_locks));
    pqxx::work t2(c2);
    auto t2_goes_on = std::async(std::launch::async, [&] { t2.exec(filled(line.t2)); });
    test::eventually("T2 waits for T1", [&] {
      return room->db.value("select wait_event_type from pg_stat_activity where pid = " +
                            std::to_string(c2.backendpid())) == "Lock";
    });
    if (*line.t1_enqueues != '\0') t1.exec(filled(line.t1_enqueues));
    t1.commit();
    t2_goes_on.get();
    if (differences == Differences::two) {
      EXPECT_EQ(room->arrived(key), Texts{"T1"});
    }
    t2.commit();
    room->resume();
    return room->arrived(key);
  }
};

TEST_P(OrderOfAKey, IsAsDocumented) {
  EXPECT_EQ(run(GetParam(), Differences::one), GetParam().arrive);
}

const auto name_of = [](const auto& line) { return std::string(line.param.name); };
INSTANTIATE_TEST_SUITE_P(RightWays, OrderOfAKey, ::testing::ValuesIn(right_lines), name_of);
INSTANTIATE_TEST_SUITE_P(WrongWays, OrderOfAKey, ::testing::ValuesIn(wrong_lines), name_of);

// A difference that ends between the two commits must not change what is right; what is wrong, it
// would only hide.
class OrderAcrossDifferences : public OrderOfAKey {};
TEST_P(OrderAcrossDifferences, IsTheSame) {
  EXPECT_EQ(run(GetParam(), Differences::two), GetParam().arrive);
}
INSTANTIATE_TEST_SUITE_P(RightWays, OrderAcrossDifferences, ::testing::ValuesIn(right_lines),
                         name_of);

// The relay refuses to start on such a sequence. This is why.
TEST_F(Order, IsBrokenByASequenceWithACache) {
  room->pause();
  room->db.sql("alter sequence outbox.message_seq_seq cache 20");
  {
    pqxx::connection a(room->db.dsn());
    pqxx::connection b(room->db.dsn());
    const auto enqueue = [&](pqxx::connection& c, const std::string& key, const std::string& who) {
      pqxx::work tx(c);
      tx.exec("insert into account values ('" + key +
              "', 1) on conflict (key) do update set n = account.n + 1");
      tx.exec("select outbox.enqueue('" + room->topic + "', '" + key + "', '" + who + "')");
      tx.commit();
    };
    enqueue(a, "cached-other", "warms up the cache of this session");
    enqueue(b, "cached", "T1");
    enqueue(a, "cached", "T2");
  }
  room->db.sql("alter sequence outbox.message_seq_seq cache 1");
  room->resume();
  EXPECT_EQ(room->arrived("cached"), wrong);
}

// T1 does not see what T2 wrote, so it comes first in the serial order; yet it enqueues last, and
// nothing fails.
TEST_F(Order, IsNotTheSerialOrderOfSerializableTransactionsWithoutALock) {
  room->db.sql("insert into account values ('serial', 0)");
  room->pause();
  pqxx::connection c1(room->db.dsn());
  pqxx::connection c2(room->db.dsn());
  pqxx::nontransaction t1(c1);
  pqxx::nontransaction t2(c2);
  t1.exec("begin isolation level serializable");
  EXPECT_EQ(t1.exec("select n from account where key = 'serial'")[0][0].as<int>(), 0);
  t2.exec("begin isolation level serializable");
  t2.exec("update account set n = 1 where key = 'serial'");
  t2.exec("select outbox.enqueue('" + room->topic + "', 'serial', 'T2')");
  t2.exec("commit");
  t1.exec("select outbox.enqueue('" + room->topic + "', 'serial', 'T1')");
  t1.exec("commit");
  room->resume();
  EXPECT_EQ(room->arrived("serial"), wrong);
}

}  // namespace
}  // namespace relay
