// SPDX-License-Identifier: Apache-2.0
// What load() takes from a file and the environment, and what it says about mistakes.
#include "relay/config/config.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "relay/config/kafka_properties.h"

namespace relay::config {
namespace {

using namespace std::chrono_literals;

const std::string kRequired =
    "[postgres]\ndsn = \"host=db1 dbname=shop\"\n[kafka]\nbrokers = [\"k1:9092\"]\n[topics]\nallow "
    "= [\"shop.*\"]\n";

const Environment kRequiredEnvironment = {
    {"OUTBOX_RELAY_POSTGRES_DSN", "postgresql://relay:hunter2@db1/shop"},
    {"OUTBOX_RELAY_KAFKA_BROKERS", "k1:9092, k2:9092"},
    {"OUTBOX_RELAY_TOPICS_ALLOW", "orders,shop.*"}};

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// Each test works in an empty directory of its own, so that no relay.toml lies about.
class ConfigTest : public testing::Test {
 protected:
  void SetUp() override {
    before_ = std::filesystem::current_path();
    std::string name = (std::filesystem::temp_directory_path() / "outbox-config-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    directory_ = name;
    std::filesystem::current_path(directory_);
  }
  void TearDown() override {
    std::filesystem::current_path(before_);
    std::filesystem::remove_all(directory_);
  }

  static void write(const std::string& path, const std::string& content, mode_t mode = 0640) {
    std::ofstream(path, std::ios::binary) << content;
    ASSERT_EQ(::chmod(path.c_str(), mode), 0);
  }
  static Result<Config> load_text(const std::string& content, const Environment& environment = {}) {
    write("relay.toml", content);
    return load("relay.toml", environment);
  }
  // The text of the error that `content` must give.
  static std::string mistakes(const std::string& content, const Environment& environment = {}) {
    const auto config = load_text(content, environment);
    EXPECT_FALSE(config) << content;
    if (config) return "";
    EXPECT_EQ(config.error().fault, Fault::usage);
    return config.error().text();
  }
  static std::string mistakes_in_properties(const std::string& line) {
    return mistakes(kRequired + "[kafka.properties]\n" + line + "\n");
  }

 private:
  std::filesystem::path before_;
  std::filesystem::path directory_;
};

TEST_F(ConfigTest, FileWithOnlyTheRequiredOptionsHasTheDefaultsOfTheOthers) {
  const auto config = load_text(kRequired);
  ASSERT_TRUE(config) << config.error().text();
  EXPECT_EQ(config->relay.name, "main");
  EXPECT_EQ(config->relay.mode, Mode::exactly_once);
  EXPECT_EQ(config->postgres.dsn.reveal(), "host=db1 dbname=shop");
  EXPECT_TRUE(config->postgres.password.empty());
  EXPECT_EQ(config->postgres.pooler, "none");
  EXPECT_FALSE(config->postgres.allow_unverified_server);
  EXPECT_EQ(config->kafka.brokers, std::vector<std::string>{"k1:9092"});
  EXPECT_EQ(config->kafka.progress_topic, "outbox-progress.main");
  EXPECT_EQ(config->topics.allow, std::vector<std::string>{"shop.*"});
  EXPECT_EQ(config->topics.missing_after, 5s);
  EXPECT_EQ(config->delivery.order, KeyOrder::key);
  EXPECT_EQ(config->delivery.on_lost_progress, OnLostProgress::resend);
  EXPECT_EQ(config->delivery.batch_messages_max, 20'000);
  EXPECT_EQ(config->delivery.batch_bytes_max, 8 << 20);
  EXPECT_EQ(config->delivery.message_bytes_max, 1 << 20);
  EXPECT_EQ(config->poll.idle, 20ms);
  EXPECT_EQ(config->lease.ttl, 5s);
  EXPECT_EQ(config->retention.keep, 24h);
  EXPECT_EQ(config->retention.prune_rows_per_second, 20'000);
  EXPECT_EQ(config->log.format, log::Format::text);
  EXPECT_EQ(config->log.level, log::Level::info);
  EXPECT_EQ(config->file, "relay.toml");
}

TEST_F(ConfigTest, EnvironmentAloneWorks) {
  if (std::filesystem::exists("/etc/outbox-relay/relay.toml"))
    GTEST_SKIP() << "this machine runs a relay";
  const auto config = load(std::nullopt, kRequiredEnvironment);
  ASSERT_TRUE(config) << config.error().text();
  EXPECT_EQ(config->file, "");
  EXPECT_EQ(config->postgres.dsn.reveal(), "postgresql://relay:hunter2@db1/shop");
  EXPECT_EQ(config->kafka.brokers, (std::vector<std::string>{"k1:9092", "k2:9092"}));
  EXPECT_EQ(config->topics.allow, (std::vector<std::string>{"orders", "shop.*"}));
}

TEST_F(ConfigTest, ALineBreakIsRefusedInAUriAndSeparatesKeywords) {
  auto environment = kRequiredEnvironment;
  for (const char* dsn : {"postgresql://relay:hunter2@db1/shop\n",
                          "postgres://relay:hunter2@db1/shop\r\n", "postgresql://db1\t/shop"}) {
    environment["OUTBOX_RELAY_POSTGRES_DSN"] = dsn;
    const std::string text = mistakes("", environment);
    EXPECT_TRUE(contains(text, "contains a line break") && contains(text, "HINT: remove it"))
        << text;
    EXPECT_FALSE(contains(text, "hunter2")) << text;
  }
  environment["OUTBOX_RELAY_POSTGRES_DSN"] = "host=db1\ndbname=shop\n";
  EXPECT_TRUE(load_text("", environment));
}

TEST_F(ConfigTest, FileInTheWorkingDirectoryIsReadWithoutBeingNamed) {
  if (std::filesystem::exists("/etc/outbox-relay/relay.toml"))
    GTEST_SKIP() << "this machine runs a relay";
  write("relay.toml", kRequired + "[relay]\nname = \"shop\"\n");
  const auto config = load(std::nullopt, {});
  ASSERT_TRUE(config) << config.error().text();
  EXPECT_EQ(config->file, "./relay.toml");
  EXPECT_EQ(config->kafka.progress_topic, "outbox-progress.shop");
}

TEST_F(ConfigTest, WithoutAFileTheErrorsSayWhereItWasLookedFor) {
  const auto config = load(std::nullopt, {{"OUTBOX_RELAY_POSTGRES_DSN", "dbname=shop"}});
  ASSERT_FALSE(config);
  EXPECT_TRUE(contains(config.error().text(),
                       "no configuration file (/etc/outbox-relay/relay.toml, ./relay.toml): "
                       "kafka.brokers is missing; it is required\nHINT: "))
      << config.error().text();
}

TEST_F(ConfigTest, EnvironmentWinsOverTheFile) {
  const auto config = load_text(kRequired + "[poll]\nidle = \"30ms\"\n[log]\nlevel = \"debug\"\n",
                                {{"OUTBOX_RELAY_POLL_IDLE", "2s"},
                                 {"OUTBOX_RELAY_TOPICS_ALLOW", "*"},
                                 {"OUTBOX_RELAY_RELAY_MODE", "at-least-once"},
                                 {"OUTBOX_RELAY_POSTGRES_ALLOW_UNVERIFIED_SERVER", "true"}});
  ASSERT_TRUE(config) << config.error().text();
  EXPECT_EQ(config->poll.idle, 2s);
  EXPECT_EQ(config->topics.allow, std::vector<std::string>{"*"});
  EXPECT_EQ(config->relay.mode, Mode::at_least_once);
  EXPECT_TRUE(config->postgres.allow_unverified_server);
  EXPECT_EQ(config->log.level, log::Level::debug);
}

TEST_F(ConfigTest, VariableThatIsEmptyCountsAsNotSet) {
  const auto config =
      load_text(kRequired + "[poll]\nidle = \"30ms\"\n", {{"OUTBOX_RELAY_POLL_IDLE", ""}});
  ASSERT_TRUE(config) << config.error().text();
  EXPECT_EQ(config->poll.idle, 30ms);
}

TEST_F(ConfigTest, AllMistakesAreReportedAtOnceWithTheirPlaces) {
  const std::string text = mistakes(
      "[relay]\n"                      // 1
      "name = \"Shop One\"\n"          // 2
      "mode = \"exactly_once\"\n"      // 3
      "[postgres]\n"                   // 4
      "dns = \"host=db1\"\n"           // 5
      "[topics]\n"                     // 6
      "allow = [\"ok\",\n"             // 7
      "         \"a*b\"]\n"            // 8
      "[poll]\n"                       // 9
      "idle = 20\n"                    // 10
      "[delivery]\n"                   // 11
      "batch_messages_max = 0\n"       // 12
      "batch_bytes_max = \"8 MiB\"\n"  // 13
      "[kafka.properties]\n"           // 14
      "acks = 1\n"                     // 15
      "[leese]\n"                      // 16
      "ttl = \"5s\"\n",                // 17
      {{"OUTBOX_RELAY_LOG_LEVEL", "loud"}, {"OUTBOX_RELAY_KAFKA_BROKER", "k1"}});
  const std::vector<std::string> expected = {
      "relay.toml:2:8: relay.name: \"Shop One\" is not a name for a relay\nHINT: use 1 to 64",
      "relay.toml:3:8: relay.mode: \"exactly_once\" is not one of the choices\nHINT: did you mean "
      "\"exactly-once\"?",
      "relay.toml:4:2: postgres.dsn is missing; it is required\nHINT: write dsn = \"host=",
      "relay.toml:5:1: there is no option \"postgres.dns\"\nHINT: did you mean postgres.dsn?",
      "relay.toml:8:10: topics.allow: \"a*b\" is not a name for a topic\nHINT: ",
      "relay.toml:10:8: poll.idle: a number without quotes where a duration belongs\nHINT: write "
      "it in quotes and with "
      "its unit: idle = \"20ms\"",
      "relay.toml:12:22: delivery.batch_messages_max: 0 is out of range\nHINT: the range is 1 to "
      "1000000.",
      "relay.toml:13:19: delivery.batch_bytes_max: \"8 MiB\" has the unit \" MiB\", which does not "
      "exist\nHINT: ",
      "relay.toml:14:2: kafka.brokers is missing; it is required\nHINT: ",
      "relay.toml:15:8: kafka.properties: \"acks\" is set by the relay: a message counts as "
      "delivered",
      "relay.toml:16:2: there is no section \"leese\"\nHINT: did you mean [lease]?",
      "OUTBOX_RELAY_LOG_LEVEL: log.level: \"loud\" is not one of the choices\nHINT: the choices "
      "are debug, info",
      "OUTBOX_RELAY_KAFKA_BROKER: no option has this name\nHINT: did you mean "
      "OUTBOX_RELAY_KAFKA_BROKERS?"};
  std::size_t from = 0;
  for (const std::string& mistake : expected) {
    const auto at = text.find(mistake, from);
    EXPECT_NE(at, std::string::npos) << mistake << "\nis not, or not in its place, in\n" << text;
    if (at != std::string::npos) from = at + 1;
  }
  std::size_t hints = 0;
  for (auto at = text.find("\nHINT: "); at != std::string::npos; at = text.find("\nHINT: ", at + 1))
    ++hints;
  EXPECT_EQ(hints, expected.size()) << text;
}

TEST_F(ConfigTest, DatabaseWithoutAnOutboxNeedsNoKafka) {
  const auto config =
      load(std::nullopt, {{"OUTBOX_RELAY_POSTGRES_DSN", "dbname=billing"}}, Required::postgres);
  ASSERT_TRUE(config) << config.error().text();
  EXPECT_TRUE(config->kafka.brokers.empty());
  const auto without =
      load(std::nullopt, {{"OUTBOX_RELAY_TOPICS_ALLOW", "a*b"}}, Required::postgres);
  ASSERT_FALSE(without);
  EXPECT_TRUE(contains(without.error().text(), "postgres.dsn is missing"))
      << without.error().text();
  EXPECT_TRUE(contains(without.error().text(), "\"a*b\" is not a name")) << without.error().text();
  EXPECT_FALSE(contains(without.error().text(), "kafka.brokers")) << without.error().text();
}

TEST_F(ConfigTest, FileThatIsNotTomlIsReportedWithItsPlaceBesideTheEnvironmentsMistakes) {
  const std::string text = mistakes("[poll]\nidle = 20ms\n", {{"OUTBOX_RELAY_LEASE_TTL", "1"}});
  EXPECT_TRUE(contains(text, "relay.toml:2:10: ")) << text;
  EXPECT_TRUE(contains(text, "OUTBOX_RELAY_LEASE_TTL: lease.ttl: \"1\" has no unit")) << text;
  EXPECT_FALSE(contains(text, "is missing")) << text;
  EXPECT_TRUE(contains(mistakes("[poll]\nidle = \"1s\"\nidle = \"2s\"\n"), "relay.toml:3:"));
}

TEST_F(ConfigTest, FileThatCannotBeReadIsAMistake) {
  const auto absent = load("absent.toml", kRequiredEnvironment);
  ASSERT_FALSE(absent);
  EXPECT_TRUE(contains(absent.error().text(),
                       "absent.toml: the configuration file cannot be opened: No such file"));
  const auto directory = load(".", kRequiredEnvironment);
  ASSERT_FALSE(directory);
  EXPECT_TRUE(contains(directory.error().text(), "is a directory"));
}

TEST_F(ConfigTest, WrongTypesAreMistakesAndNeverBecomeDefaults) {
  EXPECT_TRUE(contains(mistakes(kRequired + "[delivery]\nbatch_messages_max = \"20000\"\n"),
                       "relay.toml:8:22: delivery.batch_messages_max: a text in quotes where a "
                       "whole number belongs\n"
                       "HINT: write it without quotes: batch_messages_max = 20000"));
  EXPECT_TRUE(contains(mistakes(kRequired + "[retention]\nkeep = 1.5\n"),
                       "a number with a fraction where a duration"));
  EXPECT_TRUE(contains(mistakes(kRequired + "[log]\nlevel = true\n"),
                       "relay.toml:8:9: log.level: true or false where"));
  EXPECT_TRUE(
      contains(mistakes(kRequired + "[relay]\nname = [\"a\"]\n"), "a list where a text belongs"));
  EXPECT_TRUE(contains(mistakes("[topics]\nallow = [\"a\", 3]\n"),
                       "relay.toml:2:15: topics.allow: a number"));
  EXPECT_TRUE(contains(mistakes(kRequired + "[delivery]\nbatch_messages_max = 2.0\n"),
                       "a number with a fraction"));
  EXPECT_TRUE(contains(mistakes("poll = 3\n"),
                       "relay.toml:1:1: a number without quotes where the section [poll]"));
  EXPECT_TRUE(
      contains(mistakes("[[poll]]\nidle = \"1s\"\n"), "a list where the section [poll] belongs"));
}

TEST_F(ConfigTest, OptionInTheWrongPlaceIsSentToItsSection) {
  EXPECT_TRUE(contains(mistakes("mode = \"exactly-once\"\n"), "HINT: write it below [relay]."));
  EXPECT_TRUE(
      contains(mistakes(kRequired + "[relay]\nttl = \"5s\"\n"), "HINT: did you mean lease.ttl?"));
}

TEST_F(ConfigTest, ListMayBeOneTextWithCommas) {
  const auto config = load_text(
      "[postgres]\ndsn=\"host=a\"\n[kafka]\nbrokers = \"k1, k2:9093\"\n[topics]\nallow=\"*\"\n");
  ASSERT_TRUE(config) << config.error().text();
  EXPECT_EQ(config->kafka.brokers, (std::vector<std::string>{"k1", "k2:9093"}));
  EXPECT_TRUE(contains(mistakes("[topics]\nallow = []\n"),
                       "relay.toml:2:9: topics.allow: the list is empty"));
}

TEST_F(ConfigTest, PropertiesMayBeWrittenWithAndWithoutQuotesAndTheEnvironmentIsMerged) {
  const auto config =
      load_text(kRequired +
                    "[kafka.properties]\ncompression.type = \"lz4\"\n\"client.id\" = \"a\"\n"
                    "socket.keepalive.enable = true\nbatch.num.messages = 500\n",
                {{"OUTBOX_RELAY_KAFKA_PROPERTIES",
                  R"(client.id=b, debug = broker\,eos,sasl.password=x\,y=z)"}});
  ASSERT_TRUE(config) << config.error().text();
  const std::vector<std::pair<std::string, std::string>> expected = {
      {"batch.num.messages", "500"},
      {"client.id", "b"},
      {"compression.type", "lz4"},
      {"debug", "broker,eos"},
      {"socket.keepalive.enable", "true"}};
  EXPECT_EQ(config->kafka.properties, expected);
  ASSERT_EQ(config->kafka.secret_properties.size(), 1U);
  EXPECT_EQ(config->kafka.secret_properties[0].first, "sasl.password");
  EXPECT_EQ(config->kafka.secret_properties[0].second.reveal(), "x,y=z");
}

TEST_F(ConfigTest, PropertiesOfTheProtocolAreRefusedWithTheReason) {
  for (const char* name : {"transactional.id",
                           "enable.idempotence",
                           "acks",
                           "request.required.acks",
                           "transaction.timeout.ms",
                           "message.timeout.ms",
                           "delivery.timeout.ms",
                           "partitioner",
                           "max.in.flight",
                           "enable.gapless.guarantee",
                           "max.in.flight.requests.per.connection",
                           "retries",
                           "message.send.max.retries",
                           "isolation.level",
                           "enable.partition.eof",
                           "bootstrap.servers",
                           "metadata.broker.list",
                           "socket.nagle.disable",
                           "dr_msg_cb",
                           "linger.ms",
                           "queue.buffering.max.ms",
                           "queue.buffering.max.messages",
                           "queue.buffering.max.kbytes",
                           "message.max.bytes",
                           "log.queue",
                           "metadata.recovery.strategy"}) {
    const std::string text = mistakes_in_properties(std::string("\"") + name + "\" = 1");
    EXPECT_TRUE(contains(text, std::string("\"") + name + "\" is set by the relay: ")) << text;
  }
  EXPECT_TRUE(contains(mistakes_in_properties("bootstrap.servers = \"k\""),
                       "HINT: remove it, and set kafka.brokers."));
}

TEST_F(ConfigTest, PropertiesThatLibrdkafkaRefusesAreMistakes) {
  EXPECT_TRUE(contains(mistakes_in_properties("compresion.type = \"lz4\""),
                       "\"compresion.type\" is unknown to librdkafka"));
  EXPECT_TRUE(contains(mistakes_in_properties("compression.type = \"lz5\""),
                       "is not accepted by librdkafka: Invalid value"));
  EXPECT_TRUE(contains(mistakes_in_properties("debug = [\"all\"]"),
                       "\"debug\" is a list where a single value belongs"));
  EXPECT_TRUE(
      contains(mistakes_in_properties("debug = \"all\"\n\"debug\" = \"eos\""), "relay.toml:9:1"));
  EXPECT_TRUE(contains(mistakes_in_properties("client.id = \"a\"\n\"client.id\" = \"b\""),
                       "\"client.id\" is set twice"));
}

TEST_F(ConfigTest, KeysAndPassphrasesAreSecretsUnderWhateverName) {
  for (const char* name :
       {"sasl.password", "ssl.keystore.password", "ssl.key.pem", "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.assertion.private.key.pem",
        "sasl.oauthbearer.assertion.private.key.passphrase"}) {
    EXPECT_TRUE(config::is_secret_property(name)) << name;
  }
  for (const char* name : {"ssl.key.location", "ssl.certificate.pem", "ssl.ca.pem", "client.id"}) {
    EXPECT_FALSE(config::is_secret_property(name)) << name;
  }
}

TEST_F(ConfigTest, APoolerIsInTransactionModeOrNeedNotBeNamed) {
  EXPECT_EQ(
      load_text(kRequired, {{"OUTBOX_RELAY_POSTGRES_POOLER", "transaction"}})->postgres.pooler,
      "transaction");
  EXPECT_TRUE(
      contains(mistakes("[postgres]\npooler = \"session\"\n"), "is not one of the choices"));
}

TEST_F(ConfigTest, LargestMessageMustFitABatch) {
  const std::string text = mistakes(kRequired + "[delivery]\nmessage_bytes_max = \"16MiB\"\n");
  EXPECT_TRUE(contains(text, "relay.toml:8:21: delivery.message_bytes_max (16MiB) is larger than"))
      << text;
}

TEST_F(ConfigTest, ProgressTopicIsNotForMessages) {
  const std::string text = mistakes("[topics]\nallow = [\"outbox-progress.main\"]\n");
  EXPECT_TRUE(contains(text, "\"outbox-progress.main\" is the relay's own progress topic")) << text;
}

// A relay with topics.allow = ["*"] could send messages to it.
TEST_F(ConfigTest, ProgressTopicHasTheReservedPrefix) {
  const std::string text = mistakes("[kafka]\nprogress_topic = \"shop.progress\"\n");
  EXPECT_TRUE(contains(text, "does not begin with outbox-progress.")) << text;
}

TEST_F(ConfigTest, VariablesThatKubernetesMakesOfServicesAreNotMistakes) {
  Environment environment = kRequiredEnvironment;
  environment["OUTBOX_RELAY_SERVICE_HOST"] = "10.0.0.1";
  environment["OUTBOX_RELAY_PORT"] = "tcp://10.0.0.1:9187";
  environment["OUTBOX_RELAY_KAFKA_SERVICE_PORT_CLIENT"] = "9092";
  environment["OUTBOX_RELAY_KAFKA_PORT_9092_TCP_ADDR"] = "10.0.0.2";
  write("relay.toml", "");
  EXPECT_TRUE(load("relay.toml", environment));
}

TEST_F(ConfigTest, ProcessEnvironmentHoldsOurVariablesOnly) {
  ASSERT_EQ(::setenv("OUTBOX_RELAY_POLL_IDLE", "7ms=", 1), 0);
  const Environment environment = process_environment();
  ::unsetenv("OUTBOX_RELAY_POLL_IDLE");
  EXPECT_EQ(environment.at("OUTBOX_RELAY_POLL_IDLE"), "7ms=");
  EXPECT_FALSE(environment.contains("PATH"));
}

}  // namespace
}  // namespace relay::config
