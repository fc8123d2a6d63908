// SPDX-License-Identifier: Apache-2.0
// The checker of the shop must be able to fail: each kind of wrong is made by hand, and found.
#include "tests/support/shop_verdict.h"

#include <gtest/gtest.h>

#include <pqxx/pqxx>
#include <string>

#include "tests/support/kafka_log.h"
#include "tests/support/scratch_servers.h"
#include "tests/support/transaction.h"

namespace relay::test {
namespace {

// A transactional producer of effects, as the relay should be.
class Sender : public TransactionalSender {
 public:
  explicit Sender(const std::string& brokers) : TransactionalSender(brokers, "sender") {}
  void send(const std::string& id, const std::string& topic = "shop.emails",
            const std::string& key = "anna") {
    TransactionalSender::send(id, topic, key);
  }
};

// Three effects of one key are committed: a, b and c, in this order; two more were planned.
class ShopVerdictTest : public testing::Test {
 protected:
  ShopVerdictTest() : sender_(kafka_.brokers()) {}

  void SetUp() override {
    for (const char* topic : {"shop.emails", "shop.charges", "shop.uploads"})
      kafka_.create_topic(topic, 1);
    dsn_ = shared_postgres().dsn(shared_postgres().create_database());
    pqxx::connection connection(dsn_);
    pqxx::nontransaction(connection).exec(R"(
      create schema shop;
      create table shop.attempt (id bigint primary key, planned integer);
      create table shop.effect (id text primary key, key text, nth bigint, kind text);
      insert into shop.attempt values (1, 5);
      insert into shop.effect
      values ('a', 'anna', 1, 'emails'), ('b', 'anna', 2, 'emails'), ('c', 'anna', 3, 'emails'))");
  }

  // Sends these in one committed transaction.
  void deliver(const std::vector<std::string>& ids) {
    sender_.begin();
    for (const std::string& id : ids) sender_.send(id);
    sender_.commit();
  }
  ShopVerdict verdict(std::chrono::milliseconds timeout = std::chrono::seconds(30)) const {
    return check_shop(dsn_, kafka_.brokers(), timeout);
  }

  ScratchKafka kafka_;
  Sender sender_;
  std::string dsn_;
};

TEST_F(ShopVerdictTest, FindsNothingWrongWithARightRunWhateverWasAborted) {
  deliver({"a", "b"});
  sender_.begin();
  sender_.send("c");
  sender_.send("never committed");
  sender_.abort();
  deliver({"c"});
  const ShopVerdict v = verdict();
  EXPECT_TRUE(v.good());
  EXPECT_EQ(v.committed, 3);
  EXPECT_EQ(v.rolled_back, 2);
  EXPECT_EQ(v.arrived, 3);
}

TEST_F(ShopVerdictTest, CountsEachKindOfWrong) {
  deliver({"b", "a", "b", "x"});
  sender_.begin();
  sender_.send("c",
               "shop.charges");  // committed, but for another topic: a ghost here, and lost there
  sender_.commit();
  const ShopVerdict v = verdict();
  EXPECT_FALSE(v.good());
  EXPECT_EQ(v.arrived, 2);
  EXPECT_EQ(v.repeated, 1);
  EXPECT_EQ(v.lost, 1);
  EXPECT_EQ(v.ghosts, 2);
  EXPECT_EQ(v.reordered, 1);
  EXPECT_EQ(v.examples.size(), 5U);
}

TEST_F(ShopVerdictTest, SaysUnknownInPlaceOfLostWhileATransactionIsOpen) {
  deliver({"a", "b"});
  sender_.begin();
  sender_.send("c");
  const ShopVerdict hidden = verdict(std::chrono::seconds(2));
  EXPECT_FALSE(hidden.good());
  EXPECT_EQ(hidden.unread.size(), 1U);
  EXPECT_EQ(read_log(kafka_.brokers(), {"shop.emails"}, Isolation::read_uncommitted).records.size(),
            3U);
  sender_.commit();
  EXPECT_TRUE(verdict().good());
}

TEST_F(ShopVerdictTest, DoesNotCallARunGoodThatCommittedNothing) {
  pqxx::connection connection(dsn_);
  pqxx::nontransaction(connection).exec("delete from shop.effect");
  EXPECT_FALSE(verdict().good());
}

}  // namespace
}  // namespace relay::test
