// SPDX-License-Identifier: Apache-2.0
// `effects` shows operators what is known about effects and records what they decide; `trace`
// follows a message to its effect.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/test_outbox.h"

namespace relay {
namespace {

using nlohmann::json;
using test::TestOutbox;

class EffectsCommand : public ::testing::Test {
 protected:
  EffectsCommand() {
    db.sql("select effect.register('bank', '{\"in_doubt_policy\": \"hold\"}')");
    db.sql("select inbox.register('mailer')");
  }
  // Plans an effect and returns its id.
  std::string plan(const std::string& key, const std::string& dedup_key = "m-1") {
    return db.value("select effect.plan('bank', '" + key +
                    "', '{\"path\": \"/charges\"}', 'cents=4200', '" + dedup_key + "', '42 EUR')");
  }
  void attempt(const std::string& end) {
    const auto claim = db.sql("select effect_id, epoch from effect.claim('bank', 'worker-1')");
    ASSERT_EQ(claim.size(), 1U);
    db.sql(std::string("select effect.settle(") + claim[0][0].c_str() + ", " + claim[0][1].c_str() +
           ", " + end + ")");
  }
  json run(std::vector<std::string> arguments, int code = 0) {
    arguments.insert(arguments.begin(), "effects");
    arguments.emplace_back("--json");
    const auto done = db.command(arguments);
    EXPECT_EQ(done.code, code) << done.output;
    return json::parse(done.output.substr(std::min(done.output.find('{'), done.output.size())),
                       nullptr, false);
  }

  TestOutbox db{test::shared_postgres(), &test::shared_kafka(), "outbox,inbox,effect"};
};

TEST_F(EffectsCommand, ListsThoseOfWhichNobodyKnows) {
  const std::string lost = plan("lost");
  attempt("'sent', error => 'the connection was closed'");
  plan("good");
  attempt("'answered', 'done', 201, 'req-7', 'ch-7'");

  const json listed = run({"list"});
  ASSERT_EQ(listed["total"], 1) << listed;
  const json& e = listed["effects"][0];
  EXPECT_EQ(e["id"], std::stoll(lost));
  EXPECT_EQ(e["state"], "needs_review");
  EXPECT_EQ(e["next_step"], "operator");
  EXPECT_EQ(e["last_attempt"]["phase"], "sent");
  EXPECT_EQ(e["last_attempt"]["error"], "the connection was closed");
  EXPECT_EQ(run({"list", "--state", "all"})["total"], 2);
  EXPECT_EQ(run({"list", "--state", "done"})["effects"][0]["object"], "ch-7");
  EXPECT_EQ(run({"list", "--provider", "another"})["total"], 0);

  const auto text = db.command({"effects", "list"});
  EXPECT_EQ(text.code, 0);
  EXPECT_NE(
      text.output.find("an operator must decide: `outbox-relay effects resolve " + lost + "`"),
      std::string::npos)
      << text.output;
}

TEST_F(EffectsCommand, ShowsTheEvidence) {
  const std::string id = plan("shown");
  attempt("'answered', 'failing', 500, 'req-1', response => 'oops'");
  const auto text = db.command({"effects", "show", id});
  EXPECT_EQ(text.code, 0);
  EXPECT_NE(text.output.find("answer failing 500, request req-1"), std::string::npos)
      << text.output;
  EXPECT_EQ(text.output.find("oops"), std::string::npos)
      << "an answer is a payload: " << text.output;

  const json e = run({"show", id, "--payload"})["effect"];
  EXPECT_EQ(e["body"], "cents=4200");
  EXPECT_EQ(e["target"]["path"], "/charges");
  ASSERT_EQ(e["history"].size(), 1U);
  EXPECT_EQ(e["history"][0]["kind"], "call");
  EXPECT_EQ(e["history"][0]["worker"], "worker-1");
  EXPECT_EQ(e["history"][0]["response"], "oops");
  run({"show", "4711"}, 1);
}

TEST_F(EffectsCommand, RecordsDecisionsWithNameAndReason) {
  const std::string id = plan("decided");
  attempt("'sent'");
  const json done = run({"resolve", id, "--done", "--object", "ch-9", "--why",
                         "the bank's list shows it", "--by", "ann"});
  EXPECT_EQ(done["resolved"][0]["state"], "done");
  const json e = run({"show", id})["effect"];
  EXPECT_EQ(e["state"], "done");
  EXPECT_EQ(e["evidence"], "decision");
  EXPECT_EQ(e["object"], "ch-9");
  EXPECT_EQ(e["history"][1]["decision"], "done");
  EXPECT_EQ(e["history"][1]["decided_by"], "ann");
  EXPECT_EQ(e["history"][1]["why"], "the bank's list shows it");
  run({"resolve", id, "--failed", "--why", "changed my mind"}, 1);
  run({"resolve", "4711", "--failed", "--why", "no such thing"}, 1);
}

TEST_F(EffectsCommand, SendsAgainWithAnotherKey) {
  const std::string id = plan("again");
  attempt("'sent'");
  EXPECT_EQ(
      run({"resolve", id, "--resend", "--why", "the bank has nothing"})["resolved"][0]["state"],
      "planned");
  EXPECT_EQ(db.value("select provider_key from effect.claim('bank', 'worker-2')"), "again##2");
  run({"resolve", id, "--failed", "--why", "too late: it is under way"}, 1);
}

TEST_F(EffectsCommand, SaysWhatIsMissing) {
  const std::string id = plan("rights");
  attempt("'sent'");
  const auto as = [&](const std::string& role) {
    return test::Process::Environment{{"OUTBOX_RELAY_CONSUMER_DSN", db.login(role)}};
  };
  const auto observer = as("effect_observer");
  EXPECT_EQ(db.command({"effects", "list"}, observer).code, 0);
  EXPECT_EQ(db.command({"effects", "show", id}, observer).code, 0);
  const auto payload = db.command({"effects", "show", id, "--payload"}, observer);
  EXPECT_EQ(payload.code, 5);
  EXPECT_NE(payload.output.find("HINT: grant the role effect_operator to your login"),
            std::string::npos)
      << payload.output;
  EXPECT_EQ(db.command({"effects", "resolve", id, "--done", "--why", "x"}, observer).code, 5);
  EXPECT_EQ(
      db.command({"effects", "resolve", id, "--done", "--why", "x"}, as("effect_operator")).code,
      0);

  TestOutbox bare;
  const auto none = bare.command({"effects", "list"});
  EXPECT_EQ(none.code, 5);
  EXPECT_NE(none.output.find("HINT: run `outbox-relay init --schema effect` in this database"),
            std::string::npos)
      << none.output;
}

TEST_F(EffectsCommand, TraceFollowsAMessageToItsEffect) {
  const std::string topic = db.topic("t");
  const std::string message =
      db.value("insert into outbox.message (topic, key, payload) values ('" + topic +
               "', 'k', 'x') returning id");
  db.deliver();
  db.sql("select inbox.accept('mailer', '" + topic + "', '" + message + "', clock_timestamp())");
  const std::string id = plan("traced", message);
  attempt("'answered', 'done', 201, 'req-7', 'ch-7'");

  const auto text = db.command({"trace", message});
  EXPECT_EQ(text.code, 0) << text.output;
  for (const std::string& part :
       {std::string("message ") + message + ": delivered", std::string("offset 0"),
        std::string("by mailer at"), id + " at bank: done",
        std::string("request req-7, object ch-7")}) {
    EXPECT_NE(text.output.find(part), std::string::npos) << part << "\n" << text.output;
  }
  const auto answer = db.command({"trace", message, "--json"});
  const json j = json::parse(answer.output)["messages"][0];
  EXPECT_EQ(j["consumed"][0]["consumer"], "mailer");
  EXPECT_EQ(j["consumed"][0]["state"], "handled");
  EXPECT_EQ(j["effects"][0]["request_id"], "req-7");

  // Without a right to look at the consumers' side it says nothing of it; where that side is away
  // it says so, and the rest.
  db.sql("create role \"planner-" + db.name() +
         "\" login in role outbox_observer, effect_planner, inbox_consumer");
  const std::string planner = db.postgres().dsn(db.database(), "planner-" + db.name());
  const auto unseen =
      db.command({"trace", message, "--json"}, {{"OUTBOX_RELAY_POSTGRES_DSN", planner}});
  EXPECT_EQ(unseen.code, 0) << unseen.output;
  EXPECT_TRUE(json::parse(unseen.output)["messages"][0]["effects"].is_null()) << unseen.output;
  const auto away =
      db.command({"trace", message}, {{"OUTBOX_RELAY_CONSUMER_DSN", "host=127.0.0.1 port=1"}});
  EXPECT_EQ(away.code, 3) << away.output;
  EXPECT_NE(away.output.find("message " + message + ": delivered"), std::string::npos)
      << away.output;
  EXPECT_NE(away.output.find("read back from Kafka"), std::string::npos) << away.output;

  TestOutbox bare;
  const std::string alone = bare.value(
      "insert into outbox.message (topic, key, payload) values ('x', 'k', 'x') returning id");
  const json without = json::parse(bare.command({"trace", alone, "--json"}).output)["messages"][0];
  EXPECT_TRUE(without["effects"].is_null() && without["consumed"].is_null()) << without;
}

TEST_F(EffectsCommand, LooksAtTheConsumersDatabase) {
  TestOutbox consumer(test::shared_postgres(), nullptr, "inbox,effect");
  consumer.sql("select effect.register('bank', '{\"in_doubt_policy\": \"hold\"}')");
  consumer.sql("select effect.plan('bank', 'elsewhere', '{}', '')");
  db.environment["OUTBOX_RELAY_CONSUMER_DSN"] = consumer.dsn();
  const json listed = run({"list", "--state", "all"});
  ASSERT_EQ(listed["total"], 1) << listed;
  EXPECT_EQ(listed["effects"][0]["effect_key"], "elsewhere");
}

}  // namespace
}  // namespace relay
