// SPDX-License-Identifier: Apache-2.0
// The checker of the shop must be able to fail: each kind of wrong is made by hand, and found.
#include "tests/support/shop_verdict.h"

#include <gtest/gtest.h>
#include <librdkafka/rdkafka.h>

#include <array>
#include <memory>
#include <pqxx/pqxx>
#include <string>

#include "tests/support/kafka_log.h"
#include "tests/support/scratch_servers.h"

namespace relay::test {
namespace {

constexpr int timeout_ms = 15'000;

void require(rd_kafka_error_t* error) {
  const std::unique_ptr<rd_kafka_error_t, decltype(&rd_kafka_error_destroy)> owned(
      error, rd_kafka_error_destroy);
  if (error != nullptr) throw std::runtime_error(rd_kafka_error_string(error));
}

// A transactional producer of effects, as the relay should be.
class Sender {
 public:
  explicit Sender(const std::string& brokers) : client_(nullptr, rd_kafka_destroy) {
    std::array<char, 512> error{};
    rd_kafka_conf_t* conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "bootstrap.servers", brokers.c_str(), error.data(), error.size());
    rd_kafka_conf_set(conf, "transactional.id", "sender", error.data(), error.size());
    client_.reset(rd_kafka_new(RD_KAFKA_PRODUCER, conf, error.data(), error.size()));
    require(rd_kafka_init_transactions(client_.get(), timeout_ms));
  }

  void begin() { require(rd_kafka_begin_transaction(client_.get())); }
  void commit() { require(rd_kafka_commit_transaction(client_.get(), timeout_ms)); }
  void abort() { require(rd_kafka_abort_transaction(client_.get(), timeout_ms)); }
  void send(const std::string& id, const std::string& topic = "shop.emails",
            const std::string& key = "anna") {
    const auto code =
        rd_kafka_producev(client_.get(), RD_KAFKA_V_TOPIC(topic.c_str()), RD_KAFKA_V_PARTITION(0),
                          RD_KAFKA_V_KEY(key.data(), key.size()),
                          RD_KAFKA_V_HEADER("dedup-key", id.data(), id.size()), RD_KAFKA_V_END);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR ||
        rd_kafka_flush(client_.get(), timeout_ms) != RD_KAFKA_RESP_ERR_NO_ERROR) {
      throw std::runtime_error("cannot send " + id);
    }
  }

 private:
  std::unique_ptr<rd_kafka_t, decltype(&rd_kafka_destroy)> client_;
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
