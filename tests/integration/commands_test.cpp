// SPDX-License-Identifier: Apache-2.0
// The command line on real servers: what each command prints, what it needs, and how it exits.
#include <gtest/gtest.h>
#include <signal.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "tests/support/checker.h"

namespace relay {
namespace {

using nlohmann::json;
using test::TestOutbox;

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

class CommandsTest : public ::testing::Test {
 protected:
  CommandsTest() : topic(db.topic("t")) {}

  std::string expect(int code, const std::vector<std::string>& words) {
    const auto done = db.command(words);
    EXPECT_EQ(done.code, code) << words[0] << ": " << done.output;
    return done.output;
  }
  json expect_json(int code, const std::vector<std::string>& words) {
    const std::string output = expect(code, words);
    const auto answer = json::parse(output, nullptr, false);
    EXPECT_TRUE(answer.is_object() && answer["schema"] == 1) << output;
    return answer.is_object() ? answer : json::object();
  }
  void put(const std::string& headers = "null") {
    db.sql("insert into outbox.message (topic, key, payload, headers) values ('" + topic +
           "', convert_to('k' || clock_timestamp(), 'UTF8'), "
           "'secret payload', " +
           headers + ")");
  }
  void log_in_as(const std::string& role) {
    const std::string login = role + "-" + db.name();
    db.sql("create role \"" + login + "\" login" + (role.empty() ? "" : " in role " + role));
    db.environment["OUTBOX_RELAY_POSTGRES_DSN"] = db.postgres().dsn(db.database(), login);
  }

  TestOutbox db;
  std::string topic;
};

TEST_F(CommandsTest, StatusCountsWhatThereIs) {
  json s = expect_json(0, {"status", "--json"});
  EXPECT_EQ(s["state"], "no relay");
  EXPECT_EQ(s["pending"], 0);
  EXPECT_TRUE(s["lease_holder"].is_null() && s["batch_in_doubt"].is_null() &&
              s["last_delivered_at"].is_null())
      << s;
  put();
  put("'[]'");
  db.sql("select outbox.enqueue('" + topic +
         "', 'k'::text, 'x'::text, deliver_at => '2100-01-01')");
  s = expect_json(0, {"status", "--json"});
  EXPECT_EQ(s["pending"], 2);
  EXPECT_EQ(s["scheduled"], 1);
  EXPECT_GE(s["oldest_pending_seconds"].get<double>(), 0);
  {
    auto doomed = db.relay({{"OUTBOX_CRASH_AT", "opened"}}, "relay-with-crash-points");
    EXPECT_EQ(doomed.wait(), -SIGKILL);
  }
  test::eventually("the dead relay's lease is over", [&] {
    return !expect_json(0, {"status", "--json"})["batch_in_doubt"].is_null();
  });
  s = expect_json(0, {"status", "--json"});
  EXPECT_EQ(s["batch_in_doubt"]["number"], 1);
  EXPECT_EQ(s["pending"], 1);  // of the batch in doubt; the other one is parked
  EXPECT_GT(s["oldest_pending_seconds"].get<double>(), 0);
  expect(1, {"status", "--max-age", "3600"});  // nobody has the lease
  EXPECT_EQ(s["parked"]["bad_headers"], 1) << s;
  auto relay = db.relay();
  db.wait_until_idle();
  s = expect_json(0, {"status", "--json"});
  EXPECT_EQ(s["state"], "idle") << s;
  EXPECT_TRUE(s["batch_in_doubt"].is_null()) << s;
  EXPECT_TRUE(s["oldest_pending_seconds"].is_null()) << s;
  expect(0, {"status", "--max-age", "3600"});
  EXPECT_EQ(s["parked_total"], 1);
  EXPECT_EQ(s["relay"], db.name());
  EXPECT_TRUE(contains(s["lease_holder"], std::to_string(relay.pid()))) << s;
  const std::string text = expect(0, {"status"});
  EXPECT_TRUE(contains(text, "1 (1 bad_headers)") && contains(text, "state         idle")) << text;
}

TEST_F(CommandsTest, StatusIsWatchedThroughOutagesUntilASignal) {
  test::Process watch({test::program_path("outbox-relay"), "status", "--watch", "--json"},
                      db.environment);
  watch.says("\"pending\":0");
  put();
  watch.says("\"pending\":1");
  db.sql(
      "select pg_terminate_backend(a.pid) from pg_stat_activity a where a.datname = "
      "current_database() and a.pid <> pg_backend_pid()");
  watch.says("outbox-relay: PostgreSQL");
  put();
  watch.says("\"pending\":2");
  watch.signal(SIGTERM);
  EXPECT_EQ(watch.wait(), 0);
}

TEST_F(CommandsTest, ParkedMessagesAreListedAndShown) {
  put("'[]'");
  put("'{\"outbox-x\": \"1\"}'");
  db.sql("insert into outbox.message (topic, key, payload) values ('no topic', 'k', '\\x00ff')");
  db.deliver();
  const json all = expect_json(0, {"parked", "list", "--json"});
  ASSERT_EQ(all["parked"].size(), 3U) << all;
  EXPECT_EQ(all["total"], 3);
  EXPECT_EQ(expect_json(0, {"parked", "list", "--json", "--topic", "no topic"})["parked"].size(),
            1U);
  EXPECT_EQ(
      expect_json(0, {"parked", "list", "--json", "--class", "topic_invalid"})["parked"].size(),
      1U);
  EXPECT_EQ(expect_json(0, {"parked", "list", "--json", "--class", "too_large"})["parked"].size(),
            0U);
  const json first = expect_json(0, {"parked", "list", "--json", "--limit", "1"});
  EXPECT_TRUE(first["parked"].size() == 1 && first["total"] == 3) << first;
  EXPECT_TRUE(contains(expect(0, {"parked", "list"}), "3 parked"));

  const std::string id = all["parked"][0]["id"];
  EXPECT_EQ(expect_json(0, {"parked", "show", id, "--json"})["parked"][0]["error_class"],
            "bad_headers");
  EXPECT_FALSE(contains(expect(0, {"parked", "show", id}), "secret payload"));
  EXPECT_TRUE(contains(expect(0, {"parked", "show", id, "--payload"}), "secret payload"));
  const json bytes = expect_json(
      0, {"parked", "show", all["parked"][2]["id"], "--payload", "--json"})["parked"][0];
  EXPECT_TRUE(bytes["payload"] == "00ff" && bytes["payload_encoding"] == "hex" &&
              bytes["key"] == "k")
      << bytes;
  EXPECT_EQ(
      expect_json(1, {"parked", "show", "00000000-0000-7000-8000-000000000001", "--json"})["parked"]
          .size(),
      0U);
  EXPECT_TRUE(
      contains(expect(1, {"parked", "show", "00000000-0000-7000-8000-000000000001"}), "HINT: "));
  EXPECT_TRUE(contains(expect(2, {"parked", "show", "7"}), "no message id"));
}

TEST_F(CommandsTest, AnObserverSeesEverythingButPayloads) {
  put("'[]'");
  db.deliver();
  const std::string id = db.value("select p.id from outbox.parked p");
  log_in_as("outbox_observer");
  expect_json(0, {"status", "--json"});
  EXPECT_EQ(expect_json(0, {"parked", "list", "--json"})["parked"].size(), 1U);
  expect_json(0, {"parked", "show", id, "--json"});
  EXPECT_TRUE(contains(expect(5, {"parked", "show", id, "--payload"}),
                       "HINT: grant the role outbox_operator"));
  log_in_as("outbox_operator");
  EXPECT_TRUE(contains(expect(0, {"parked", "show", id, "--payload"}), "secret payload"));
  log_in_as("");
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
           {"status"}, {"parked", "list"}, {"parked", "show", id}}) {
    EXPECT_TRUE(contains(expect(5, words), "HINT: grant the role outbox_observer")) << words[0];
  }
}

TEST_F(CommandsTest, PruneDeletesWhatIsOldWhileNoRelayRuns) {
  db.environment["OUTBOX_RELAY_RETENTION_KEEP"] = "3650d";  // or the relay would prune first
  put();
  put("'[]'");
  db.deliver();
  db.sql("update outbox.batch set opened_at = opened_at - interval '2 days'");
  put();
  db.deliver();
  db.environment["OUTBOX_RELAY_RETENTION_KEEP"] = "24h";
  EXPECT_TRUE(contains(expect(0, {"prune", "--dry-run"}), "would delete 2 messages and 0 batches"));
  EXPECT_EQ(db.value("select count(*) from outbox.message"), "3");
  EXPECT_TRUE(contains(expect(0, {"prune"}), "deleted 2 messages and 0 batches"));
  EXPECT_EQ(db.value("select count(*) from outbox.message"), "1");
  EXPECT_EQ(db.value("select count(*) from outbox.parked"), "1");
  auto relay = db.relay();
  relay.says("to=streaming");
  const std::string refused = expect(5, {"prune"});
  EXPECT_TRUE(contains(refused, "a relay is active") && contains(refused, "HINT: ")) << refused;
}

TEST_F(CommandsTest, CommandsOnTheDatabaseAloneNeedNoKafka) {
  db.environment.erase("OUTBOX_RELAY_KAFKA_BROKERS");
  db.environment.erase("OUTBOX_RELAY_TOPICS_ALLOW");
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"init"},
                                             {"status"},
                                             {"parked", "list"},
                                             {"scheduled", "list"},
                                             {"prune"},
                                             {"prune", "--dry-run"}})
    expect(0, words);
  EXPECT_TRUE(contains(expect(2, {"check"}), "kafka.brokers is missing"));
}

TEST_F(CommandsTest, ServersThatAreAwayHaveExitCodesOfTheirOwn) {
  db.environment["OUTBOX_RELAY_KAFKA_PROGRESS_TOPIC"] = "outbox-progress.x";
  db.environment["OUTBOX_RELAY_KAFKA_BROKERS"] = "127.0.0.1:1";
  EXPECT_TRUE(contains(expect(4, {"init", "--kafka"}), "Kafka"));
  db.environment["OUTBOX_RELAY_POSTGRES_DSN"] =
      "host=127.0.0.1 port=1 dbname=x user=x password=hidden";
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"init"},
                                             {"status"},
                                             {"trace", "--seq", "1"},
                                             {"parked", "list"},
                                             {"prune"},
                                             {"prune", "--dry-run"}}) {
    const std::string output = expect(3, words);
    EXPECT_FALSE(contains(output, "hidden")) << output;
  }
}

TEST_F(CommandsTest, ADatabaseWithoutTheSchemaIsRefusedByEveryCommandThatNeedsIt) {
  db.sql("drop schema outbox cascade");
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"status"},
                                             {"trace", "--seq", "1"},
                                             {"parked", "list"},
                                             {"prune"},
                                             {"prune", "--dry-run"},
                                             {"check"},
                                             {"run"}}) {
    EXPECT_TRUE(contains(expect(5, words), "outbox-relay init")) << words[0];
  }
}

TEST_F(CommandsTest, ConfigAndVersionTellWhatTheyKnow) {
  db.environment["OUTBOX_RELAY_POSTGRES_DSN"] += " password=hidden";
  const std::string shown = expect(0, {"config"});
  EXPECT_TRUE(contains(shown, "name = \"" + db.name() + "\"") && contains(shown, "dsn = \"***\""))
      << shown;
  EXPECT_FALSE(contains(shown, "hidden")) << shown;
  EXPECT_TRUE(contains(expect(0, {"config", "--defaults"}), "#idle = \"20ms\""));
  const std::string file = testing::TempDir() + "/" + db.name() + ".toml";
  std::ofstream(file) << "[poll]\nidle = 7\n";
  const std::string wrong = expect(2, {"config", "--check", file});
  EXPECT_TRUE(contains(wrong, ":2:") && contains(wrong, "HINT: ")) << wrong;
  std::ofstream(file) << "[poll]\nidle = \"7ms\"\n";
  EXPECT_TRUE(contains(expect(0, {"config", "--check", file}), "no errors"));
  EXPECT_TRUE(contains(expect(0, {"config", "--config", file}), "idle = \"7ms\""));
  EXPECT_TRUE(contains(expect(2, {"status", "--config", file + ".gone"}), file + ".gone"));
  const json version = expect_json(0, {"version", "--json"});
  EXPECT_EQ(version["version"], OUTBOX_VERSION);
  EXPECT_EQ(version["outbox_schema"].dump(),
            db.value("select max(v.number) from outbox.schema_version v"));
  EXPECT_TRUE(version["inbox_schema"].is_number() && version["effect_schema"].is_number())
      << version;
  EXPECT_TRUE(contains(expect(0, {"version"}), "librdkafka"));
}

TEST_F(CommandsTest, MistakesOfTheCommandLineAreExplained) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> mistakes = {
      {{""}, "there is no command"},
      {{"statsu"}, "did you mean status?"},
      {{"parked", "lst"}, "did you mean list?"},
      {{"parked"}, "a command is missing"},
      {{"--frob"}, "--frob"},
      {{"status", "--frob"}, "--frob"},
      {{"status", "more"}, "more"},
      {{"status", "--config"}, "--config"},
      {{"trace"}, "exactly one of"},
      {{"trace", "a", "--key", "b"}, "exactly one of"},
      {{"trace", "--key", "a", "--seq", "1"}, "exactly one of"},
      {{"trace", "--seq", "many"}, "--seq"},
      {{"trace", "not-an-id"}, "no message id"},
      {{"parked", "show"}, "ID"},
      {{"parked", "list", "--limit", "0"}, "--limit: must be 1 or more"},
      {{"init", "--dry-run", "--print-sql"}, "excludes"},
      {{"init", "--from", "1"}, "requires"},
      {{"init", "--print-sql", "--schema", "inbox,effect", "--from", "1"}, "name one"},
      {{"init", "--print-sql", "--from", "99"}, "has no version 99"},
      {{"parked", "discard", "--topic", "", "--class", "too_large", "--why", "x"},
       "--topic: is empty"},
      {{"replay", "--since", "2026-01-01", "--topic", ""}, "--topic: is empty"},
      {{"replay", "--resume", "1", "--topic", "t"}, "excludes"},
      {{"config", "--defaults", "--check", "x"}, "excludes"},
  };
  for (const auto& [words, what] : mistakes) {
    const std::string output = expect(2, words);
    EXPECT_TRUE(contains(output, what) && contains(output, "HINT: ") &&
                contains(output, "outbox-relay"))
        << output;
  }
  EXPECT_EQ(test::run_command({test::program_path("outbox-relay")}, {}).code, 2);
}

// Every command of `path`, those below it included, with its help.
void collect_help(const std::vector<std::string>& path, std::map<std::string, std::string>& out) {
  std::vector<std::string> words = {test::program_path("outbox-relay")};
  words.insert(words.end(), path.begin(), path.end());
  words.emplace_back("--help");
  const auto done = test::run_command(words, {});
  EXPECT_EQ(done.code, 0) << done.output;
  std::string name = "outbox-relay";
  for (const auto& word : path) name += " " + word;
  out[name] = done.output;
  std::istringstream lines(done.output);
  bool commands = false;
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(' ')) commands = line == "Commands:";
    if (!commands || !line.starts_with("  ") || line.starts_with("   ")) continue;
    std::vector<std::string> below = path;
    below.push_back(line.substr(2, line.find(' ', 2) - 2));
    collect_help(below, out);
  }
}

// The long options and arguments that a text describes: of help, the labels; of the document, the
// first column of a table.
std::set<std::string> flags_in(const std::string& text, const std::string& mark) {
  std::set<std::string> flags;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(mark) || line.starts_with(mark + " ")) continue;
    const auto end = line.find(mark == "  " ? "  " : "` |", mark.size());
    std::istringstream words(line.substr(mark.size(), end - mark.size()));
    for (std::string word; words >> word;) {
      if (word.starts_with("--")) flags.insert(word);
    }
  }
  return flags;
}

TEST(Help, FitsAndAgreesWithTheReferencePage) {
  std::map<std::string, std::string> help;
  collect_help({}, help);
  EXPECT_EQ(help.size(), 24U);
  std::ostringstream page;
  page << std::ifstream(OUTBOX_SOURCE_DIR "/docs/commands.md").rdbuf();
  for (const auto& [command, text] : help) {
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100U) << line;
    EXPECT_TRUE(contains(text, "Usage: " + command)) << text;
    if (std::set<std::string>{"outbox-relay", "outbox-relay parked", "outbox-relay scheduled",
                              "outbox-relay effects"}
            .contains(command))
      continue;
    EXPECT_TRUE(contains(text, "Exit codes: 0 ")) << text;
    const std::string heading = "## " + command.substr(command.find(' ') + 1) + "\n";
    const auto at = page.str().find(heading);
    ASSERT_NE(at, std::string::npos) << "docs/commands.md has no \"" << heading << '"';
    const std::string section = page.str().substr(at, page.str().find("\n## ", at) - at);
    auto flags = flags_in(text.substr(0, text.find("\nConfiguration:")), "  ");
    flags.erase("--help");
    flags.erase("--config");  // described once, at the top
    EXPECT_EQ(flags, flags_in(section, "| `")) << "docs/commands.md is stale at " << heading;
  }
}

}  // namespace
}  // namespace relay
