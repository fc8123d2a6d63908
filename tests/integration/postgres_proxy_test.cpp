// SPDX-License-Identifier: Apache-2.0
// The proxy before a real server: each order does what its name says, and nothing else is
// disturbed.
#include "tests/support/postgres_proxy.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>

#include <cerrno>
#include <future>
#include <optional>

#include "tests/support/checker.h"

namespace relay {
namespace {

using test::PostgresProxy;
using Then = test::PostgresProxy::Then;

PostgresProxy::Filter begins(const std::string& with) {
  return [with](const std::string& text) { return text.starts_with(with); };
}

// A connection by the proxy, whose statements are what they look like: transactions are the test's
// own.
struct Client {
  explicit Client(const std::string& dsn) : connection(dsn), tx(connection) {}
  pqxx::result exec(const std::string& sql) { return tx.exec(sql); }
  int pid() { return exec("select pg_backend_pid()")[0][0].as<int>(); }

  pqxx::connection connection;
  pqxx::nontransaction tx;
};

class PostgresProxyTest : public ::testing::Test {
 protected:
  PostgresProxyTest()
      : server(test::shared_postgres()),
        direct_dsn(server.dsn(server.create_database())),
        proxy(server.port()) {
    direct.emplace(direct_dsn);
    direct->exec("create table t (id integer primary key, v text)");
    client.emplace(dsn());
  }

  std::string dsn() const { return proxy.dsn(direct_dsn); }
  bool there(int id) {
    return !direct->exec("select from t where t.id = " + std::to_string(id)).empty();
  }
  bool served(int pid) {
    return !direct->exec("select from pg_stat_activity a where a.pid = " + std::to_string(pid))
                .empty();
  }
  void gone(int pid) {
    test::eventually("the server notices the end of a connection", [&] { return !served(pid); });
  }
  // On a thread of its own, for what is not answered at once.
  std::future<pqxx::result> later(const std::string& sql) {
    return std::async(std::launch::async, [this, sql] { return client->exec(sql); });
  }
  static void ends(std::future<pqxx::result>& statement) {
    test::eventually("a statement ends",
                     [&] { return statement.wait_for(Millis{0}) == std::future_status::ready; });
  }
  static bool waits(const std::future<pqxx::result>& statement) {
    return statement.wait_for(Millis{300}) == std::future_status::timeout;
  }

  test::ScratchPostgres& server;
  const std::string direct_dsn;
  PostgresProxy proxy;
  std::optional<Client> direct;
  std::optional<Client> client;
};

// --- Orders ------------------------------------------------------------------------------------

TEST_F(PostgresProxyTest, ALostRequestIsNeverSeenByTheServer) {
  const int pid = client->pid();
  const auto held = proxy.hold(begins("insert"), Then::lose_request);
  client->exec("select 1");
  EXPECT_THROW(client->exec("insert into t values (1)"), pqxx::broken_connection);
  held->caught();
  EXPECT_EQ(held->text(), "insert into t values (1)");
  EXPECT_EQ(held->backend(), pid);
  gone(pid);
  EXPECT_FALSE(there(1));
  Client(dsn()).exec("insert into t values (1)");  // an order catches once
  EXPECT_TRUE(there(1));
}

TEST_F(PostgresProxyTest, ALostAnswerLeavesTheClientInDoubtAboutWhatIsCommitted) {
  const int pid = client->pid();
  const auto held = proxy.hold(begins("commit"), Then::lose_answer);
  client->exec("begin");
  client->exec("insert into t values (1)");
  EXPECT_FALSE(there(1));
  EXPECT_THROW(client->exec("commit"), pqxx::broken_connection);
  held->caught();
  EXPECT_TRUE(there(1));
  EXPECT_FALSE(held->refused());
  gone(pid);
}

TEST_F(PostgresProxyTest, ALostAnswerCanBeARefusal) {
  client->exec("insert into t values (1)");
  const auto held = proxy.hold(begins("insert"), Then::lose_answer);
  EXPECT_THROW(client->exec("insert into t values (1)"), pqxx::broken_connection);
  held->caught();
  EXPECT_TRUE(held->refused());
}

TEST_F(PostgresProxyTest, ABackendThatEndsInPlaceOfAnAnswerIsALostAnswer) {
  const auto held = proxy.hold(begins("select pg_sleep"), Then::lose_answer);
  const int pid = client->pid();
  auto sleeping = later("select pg_sleep(60)");
  test::eventually("it sleeps", [&] {
    return !direct
                ->exec(
                    "select from pg_stat_activity a where a.wait_event = 'PgSleep' and a.pid = " +
                    std::to_string(pid))
                .empty();
  });
  direct->exec("select pg_terminate_backend(" + std::to_string(pid) + ")");
  held->caught();
  EXPECT_TRUE(held->refused());
  ends(sleeping);
  EXPECT_THROW(sleeping.get(), pqxx::broken_connection);
}

TEST_F(PostgresProxyTest, AStatementThatIsCutAmidReachesTheServer) {
  direct->exec("begin");
  direct->exec("lock table t in exclusive mode");
  const auto held = proxy.hold(begins("insert"), Then::cut_amid);
  EXPECT_THROW(client->exec("insert into t values (1)"), pqxx::broken_connection);
  held->caught();
  EXPECT_FALSE(there(1));
  direct->exec("commit");
  test::eventually("the server has acted on it", [&] { return there(1); });
}

TEST_F(PostgresProxyTest, AStalledStatementStopsItsConnectionAloneUntilItIsReleased) {
  const auto held = proxy.hold(begins("insert"), Then::stall);
  auto stalled = later("insert into t values (1)");
  held->caught();
  Client(dsn()).exec("insert into t values (2)");
  EXPECT_TRUE(waits(stalled));
  EXPECT_FALSE(there(1));
  EXPECT_TRUE(there(2));
  held->release();
  ends(stalled);
  stalled.get();
  EXPECT_TRUE(there(1));
}

TEST_F(PostgresProxyTest, AStalledStatementThatIsDroppedIsLostWithItsConnection) {
  const int pid = client->pid();
  const auto held = proxy.hold(begins("insert"), Then::stall);
  auto stalled = later("insert into t values (1)");
  held->caught();
  held->drop();
  ends(stalled);
  EXPECT_THROW(stalled.get(), pqxx::broken_connection);
  gone(pid);
  EXPECT_FALSE(there(1));
}

TEST_F(PostgresProxyTest, AnOrderThatIsForgottenCatchesNothing) {
  proxy.forget(proxy.hold(begins("insert"), Then::lose_request));
  client->exec("insert into t values (1)");
  EXPECT_TRUE(there(1));
}

TEST_F(PostgresProxyTest, AStatementWithParametersIsCaughtByItsText) {
  const auto held = proxy.hold(begins("insert into t values ($1"), Then::lose_answer);
  EXPECT_THROW(client->tx.exec_params("insert into t values ($1, $2)", 1, "one"),
               pqxx::broken_connection);
  held->caught();
  EXPECT_EQ(held->text(), "insert into t values ($1, $2)");
  EXPECT_TRUE(there(1));
}

TEST_F(PostgresProxyTest, APreparedStatementIsCaughtWhenItIsExecuted) {
  client->connection.prepare("add", "insert into t values ($1)");
  client->tx.exec_prepared("add", 1);
  const auto held = proxy.hold(begins("insert"), Then::lose_request);
  EXPECT_THROW(client->tx.exec_prepared("add", 2), pqxx::broken_connection);
  held->caught();
  EXPECT_EQ(held->text(), "insert into t values ($1)");
  EXPECT_TRUE(there(1));
  EXPECT_FALSE(there(2));
}

TEST_F(PostgresProxyTest, MuchPassesUnchangedInBothDirections) {
  const std::string much(20 << 20, 'x');
  client->tx.exec_params("insert into t values (1, $1)", much);
  EXPECT_FALSE(direct->exec("select from t where t.v = repeat('x', 20 << 20)").empty());
  EXPECT_EQ(client->exec("select t.v from t")[0][0].as<std::string>(), much);
  EXPECT_EQ(client->exec("select i from generate_series(1, 100000) i").size(), 100'000);
}

TEST_F(PostgresProxyTest, ACancellationPasses) {
  const auto held = proxy.hold(begins("select pg_sleep"), Then::stall);
  auto sleeping = later("select pg_sleep(60)");
  held->caught();
  held->release();
  test::eventually("it sleeps", [&] {
    return !direct->exec("select from pg_stat_activity a where a.wait_event = 'PgSleep'").empty();
  });
  client->connection.cancel_query();
  ends(sleeping);
  EXPECT_THROW(sleeping.get(), pqxx::sql_error);
}

// --- Faults that need no statement -------------------------------------------------------------

TEST_F(PostgresProxyTest, ACutEndsAllConnectionsThatThereAre) {
  const int pid = client->pid();
  const auto held = proxy.hold(begins("insert"), Then::stall);
  auto stalled = later("insert into t values (1)");
  held->caught();
  proxy.cut();
  ends(stalled);
  EXPECT_THROW(stalled.get(), pqxx::broken_connection);
  gone(pid);
  EXPECT_FALSE(there(1));
  EXPECT_NE(Client(dsn()).pid(), pid);
}

TEST_F(PostgresProxyTest, ACutAndARefusalAreResets) {
  const auto reset = [](const test::Socket& socket) {
    char byte = 0;
    return recv(socket.fd(), &byte, 1, MSG_DONTWAIT) < 0 && errno == ECONNRESET;
  };
  const auto connected = test::connect_to_loopback(proxy.port());
  test::eventually("a connection is reset", [&] {
    proxy.cut();  // over again, because it may not have been accepted yet
    return reset(connected);
  });
  proxy.refuse(true);
  const auto refused = test::connect_to_loopback(proxy.port());
  test::eventually("a new connection is reset", [&] { return reset(refused); });
}

TEST_F(PostgresProxyTest, WhatIsSwallowedIsSeenByNobodyAndNobodyHearsOfAnEnd) {
  const int pid = client->pid();
  proxy.swallow(true);
  auto swallowed = later("insert into t values (1)");
  EXPECT_THROW(Client(dsn() + " connect_timeout=2"), pqxx::broken_connection);
  EXPECT_TRUE(waits(swallowed));
  EXPECT_TRUE(served(pid));
  proxy.swallow(false);
  ends(swallowed);
  EXPECT_THROW(swallowed.get(), pqxx::broken_connection);
  gone(pid);
  EXPECT_FALSE(there(1));
  Client(dsn()).exec("insert into t values (1)");
  EXPECT_TRUE(there(1));
}

TEST_F(PostgresProxyTest, TheServerDoesNotHearOfAClientThatEndsWhileAllIsSwallowed) {
  const int pid = client->pid();
  client->exec("begin");
  client->exec("insert into t values (1)");
  proxy.swallow(true);
  client.reset();
  EXPECT_THROW(Client(dsn() + " connect_timeout=2"), pqxx::broken_connection);
  EXPECT_TRUE(served(pid));
  proxy.swallow(false);
  gone(pid);
  EXPECT_FALSE(there(1));
}

TEST_F(PostgresProxyTest, WhoIsRefusedDoesNotDisturbWhoIsConnected) {
  proxy.refuse(true);
  EXPECT_THROW(Client{dsn()}, pqxx::broken_connection);
  client->exec("insert into t values (1)");
  EXPECT_TRUE(there(1));
  proxy.refuse(false);
  Client(dsn()).exec("insert into t values (2)");
  EXPECT_TRUE(there(2));
}

TEST_F(PostgresProxyTest, AServerThatIsAwayIsAnEndForTheClient) {
  PostgresProxy nowhere(test::bound_to_loopback().port());
  EXPECT_THROW(Client{nowhere.dsn(direct_dsn)}, pqxx::broken_connection);
}

// --- FaultSchedule -----------------------------------------------------------------------------

Millis time_of(const std::function<void()>& what) {
  const auto begin = Clock::now();
  what();
  return std::chrono::duration_cast<Millis>(Clock::now() - begin);
}

TEST_F(PostgresProxyTest, ALatencyDelaysEachDirectionOnce) {
  proxy.schedule({Millis{150}, 0});
  EXPECT_GE(time_of([&] { client->exec("select 1"); }), Millis{300});
  // As on a long line, not a slow one: what is sent together comes together.
  EXPECT_LT(
      time_of([&] { client->exec("select repeat('x', 1000) from generate_series(1, 5000)"); }),
      Millis{10'000});
}

TEST_F(PostgresProxyTest, ABandwidthIsALimitInEachDirection) {
  proxy.schedule({Millis{0}, 64 << 10});
  EXPECT_GE(time_of([&] { client->exec("select repeat('x', 48 << 10)"); }), Millis{740});
  const std::string much(32 << 10, 'x');
  EXPECT_GE(time_of([&] { client->tx.exec_params("insert into t values (1, $1)", much); }),
            Millis{490});
}

TEST_F(PostgresProxyTest, ABetterWeatherIsFeltByWhatIsOnItsWay) {
  proxy.schedule({Millis{60'000}, 0});
  auto slow = later("insert into t values (1)");
  EXPECT_TRUE(waits(slow));
  proxy.schedule({Millis{0}, 1});
  EXPECT_TRUE(waits(slow));
  proxy.schedule({});
  ends(slow);
  slow.get();
  EXPECT_TRUE(there(1));
}

TEST_F(PostgresProxyTest, AWeatherOutOfBoundsIsRefused) {
  EXPECT_THROW(proxy.schedule({Millis{60'001}, 0}), std::invalid_argument);
  EXPECT_THROW(proxy.schedule({Millis{-1}, 0}), std::invalid_argument);
  EXPECT_THROW(proxy.schedule({Millis{0}, -1}), std::invalid_argument);
}

TEST_F(PostgresProxyTest, TheProxyEndsWhateverIsOnItsWay) {
  std::optional<PostgresProxy> ending(server.port());
  Client stalled(ending->dsn(direct_dsn));
  Client slow(ending->dsn(direct_dsn));
  const auto held = ending->hold(begins("insert"), Then::stall);
  auto insert =
      std::async(std::launch::async, [&] { return stalled.exec("insert into t values (1)"); });
  held->caught();
  ending->schedule({Millis{60'000}, 1});
  auto select = std::async(std::launch::async, [&] { return slow.exec("select 1"); });
  EXPECT_TRUE(waits(select));
  ending.reset();
  ends(insert);
  ends(select);
  EXPECT_THROW(insert.get(), pqxx::broken_connection);
  EXPECT_THROW(select.get(), pqxx::broken_connection);
}

// --- A relay -----------------------------------------------------------------------------------

TEST(PostgresProxyRelay, ARelayDeliversThroughTheProxyWhateverIsLostOfItsStatements) {
  test::TestOutbox db;
  PostgresProxy proxy(db.postgres().port());
  const std::string topic = db.topic("t");
  test::create_counters(db);
  auto relay = db.relay({{"OUTBOX_RELAY_POSTGRES_DSN", proxy.dsn(db.dsn())}});
  relay.says("to=streaming");
  const auto opens = [](const std::string& text) {
    return text.find(" insert into outbox.batch") != std::string::npos;
  };
  for (const Then then : {Then::lose_request, Then::lose_answer, Then::cut_amid}) {
    const auto held = proxy.hold(opens, then);
    test::write(db, topic, 20);
    held->caught();
    db.wait_until_idle();
  }
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  const auto verdict = test::check_delivery(db, {topic});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
}

}  // namespace
}  // namespace relay
