// SPDX-License-Identifier: Apache-2.0
// The workers of examples/workers, from the commit of an order to what the providers did, with kill
// -9 in between.
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>

#include "tests/support/providers.h"
#include "tests/support/test_outbox.h"

namespace relay {
namespace {

class Workers : public ::testing::Test {
 protected:
  static constexpr int orders = 25;

  Workers()
      : folder_(std::filesystem::path(testing::TempDir()) /
                ("workers-" + std::to_string(getpid()))) {
    std::filesystem::create_directories(folder_);
    // What the configuration of each example says that it needs.
    worker_dsn_ = db_.login("inbox_consumer, effect_worker");
    configure("charge", "[bank]\nclaim_ttl_seconds = 2\nurl = \"" + providers_.payments() + "\"\n");
    configure("email",
              "[mail]\nclaim_ttl_seconds = 2\nrequire_tls = false\nfrom = "
              "\"shop@example.com\"\nin_doubt_policy = \"hold\"\nurl = \"" +
                  providers_.mail() + "\"\n");
    configure("upload", "[store]\nclaim_ttl_seconds = 2\nurl = \"" + providers_.store() + "\"\n");
  }
  ~Workers() override { std::filesystem::remove_all(folder_); }

  void configure(const std::string& kind, const std::string& provider) {
    topics_[kind] = db_.topic(kind);
    std::ofstream(folder_ / (kind + ".toml"))
        << "[kafka]\nbrokers = \"" << db_.kafka().brokers() << "\"\ngroup = \"" << db_.name()
        << kind << "\"\ntopic = \"" << topics_[kind]
        << "\"\n[kafka.properties]\n\"session.timeout.ms\" = \"6000\"\n[postgres]\ndsn = \""
        << worker_dsn_ << "\"\n"
        << provider;
  }
  test::Process start(const std::string& kind) {
    return test::Process({test::program_path(kind + "-worker"), folder_ / (kind + ".toml")},
                         {{"BANK_API_KEY", "not-a-secret"}});
  }
  static std::string id(const std::string& kind, int order) {
    return "order-" + std::to_string(order) + "-" + kind;
  }
  void order(int number) {
    for (const auto& [kind, topic] : topics_) {
      const std::string key = id(kind, number);
      db_.sql("select outbox.enqueue('" + topic + "', 'c', '{\"order\": " + std::to_string(number) +
              ", \"cents\": 100, \"email\": \"" + key +
              "@customers.example\"}'::jsonb, dedup_key => '" + key + "')");
    }
  }
  std::size_t times(const std::string& kind, int order) const {
    const std::string key = id(kind, order);
    if (kind == "charge") return providers_.effects("payments", key);
    return kind == "email" ? providers_.effects("mail", key + "@customers.example")
                           : providers_.effects("store", "/receipts/" + key + ".json");
  }
  long count(const std::string& states) {
    return std::stol(
        db_.value("select count(*) from effect.effect where state in (" + states + ")"));
  }

  test::TestOutbox db_{test::shared_postgres(), &test::shared_kafka(), "outbox,inbox,effect"};
  test::FakeProviders providers_;
  std::filesystem::path folder_;
  std::string worker_dsn_;
  std::map<std::string, std::string> topics_;
};

TEST_F(Workers, CarryOutEachEffectOnceAlthoughTheyAreKilled) {
  for (int n = 1; n <= orders; ++n) order(n);
  db_.deliver();
  for (const int done_before : {10, 30, 50}) {
    std::vector<test::Process> doomed;
    for (const char* kind : {"charge", "email", "upload"}) doomed.push_back(start(kind));
    test::eventually("some are executed",
                     [&] { return count("'done', 'needs_review'") >= done_before; });
    for (const auto& process : doomed) process.signal(SIGKILL);
  }
  std::vector<test::Process> workers;
  for (const char* kind : {"charge", "email", "upload"}) workers.push_back(start(kind));
  test::eventually(
      "nothing is left to rules", [&] { return count("'done', 'needs_review'") == 3 * orders; },
      Millis{120'000});

  for (int n = 1; n <= orders; ++n) {
    EXPECT_EQ(times("charge", n), 1U) << n;
    EXPECT_EQ(times("upload", n), 1U) << n;
    const std::string state =
        db_.value("select state from effect.effect where effect_key = '" + id("email", n) + "'");
    EXPECT_LE(times("email", n), 1U) << n;
    EXPECT_EQ(state == "done" && times("email", n) != 1, false) << n;
  }
  EXPECT_EQ(
      count("'needs_review'"),
      std::stol(db_.value("select count(*) from effect.needs_review where provider = 'mail'")));
  for (auto& worker : workers) {
    worker.signal(SIGTERM);
    EXPECT_EQ(worker.wait(), 0) << worker.output();
  }
  const auto traced = db_.command({"trace", "--key", id("charge", 1)});
  EXPECT_NE(traced.output.find("at bank: done"), std::string::npos) << traced.output;
  EXPECT_NE(traced.output.find("request req_"), std::string::npos) << traced.output;
}

TEST_F(Workers, ParkAMessageThatCannotBePlanned) {
  db_.sql("select outbox.enqueue('" + topics_["charge"] +
          "', 'k', '{\"order\": 1, \"cents\": -5}'::jsonb, dedup_key => 'negative')");
  db_.sql("select outbox.enqueue('" + topics_["charge"] +
          "', 'k2', 'no JSON', dedup_key => 'garbage')");
  order(2);
  db_.deliver();
  auto worker = start("charge");
  test::eventually("the good one is charged", [&] { return times("charge", 2) == 1; });
  test::eventually("the others are parked",
                   [&] { return db_.value("select count(*) from inbox.parked") == "2"; });
  EXPECT_NE(db_.value("select error_text from inbox.parked where dedup_key = 'negative'")
                .find("-5 cents cannot be charged"),
            std::string::npos);
  worker.signal(SIGTERM);
  EXPECT_EQ(worker.wait(), 0) << worker.output();
}

TEST_F(Workers, SayWhatIsWrongWithTheirConfiguration) {
  const auto none = test::run_command({test::program_path("email-worker")}, {});
  EXPECT_EQ(none.code, 2) << none.output;
  EXPECT_NE(none.output.find("one argument is needed"), std::string::npos) << none.output;
  std::ofstream(folder_ / "bad.toml") << "[kafka]\nbrokers = \"127.0.0.1:1\"\n";
  const auto bad =
      test::run_command({test::program_path("upload-worker"), folder_ / "bad.toml"}, {});
  EXPECT_EQ(bad.code, 2) << bad.output;
  EXPECT_NE(bad.output.find("is missing in the configuration"), std::string::npos) << bad.output;
}

}  // namespace
}  // namespace relay
