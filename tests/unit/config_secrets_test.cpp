// SPDX-License-Identifier: Apache-2.0
// Where a password may come from, and that no message ever shows one.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "relay/config/config.h"
#include "relay/config/reference.h"

namespace relay::config {
namespace {

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

class ConfigSecretsTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "outbox-secrets-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    directory_ = name;
    write("relay.toml", "");
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::string path(const std::string& name) const { return (directory_ / name).string(); }
  std::string write(const std::string& name, const std::string& content, mode_t mode = 0600) const {
    std::ofstream(path(name), std::ios::binary) << content;
    EXPECT_EQ(::chmod(path(name).c_str(), mode), 0);
    return path(name);
  }
  // With what is required besides `environment`, and a relay.toml of `content`.
  Result<Config> load_with(Environment environment, const std::string& content = "") const {
    environment.emplace("OUTBOX_RELAY_POSTGRES_DSN", "host=db1 dbname=shop");
    environment.emplace("OUTBOX_RELAY_KAFKA_BROKERS", "k1:9092");
    environment.emplace("OUTBOX_RELAY_TOPICS_ALLOW", "*");
    return load(write("relay.toml", content), environment);
  }
  std::string mistakes(const Environment& environment, const std::string& content = "") const {
    const auto config = load_with(environment, content);
    EXPECT_FALSE(config);
    return config ? "" : config.error().text();
  }

 private:
  std::filesystem::path directory_;
};

TEST_F(ConfigSecretsTest, PasswordsAreReadFromTheirFilesWithoutTheNewlineAtTheEnd) {
  const auto config =
      load_with({{"OUTBOX_RELAY_POSTGRES_PASSWORD_FILE", write("pg", "hunter2\n")},
                 {"OUTBOX_RELAY_KAFKA_PASSWORD_FILE", write("kafka", " two words\r\n", 0440)}});
  ASSERT_TRUE(config) << config.error().text();
  EXPECT_EQ(config->postgres.password.reveal(), "hunter2");
  EXPECT_EQ(config->kafka.password.reveal(), " two words");
}

TEST_F(ConfigSecretsTest, PasswordFileThatEverybodyMayReadIsRefused) {
  const std::string text =
      mistakes({{"OUTBOX_RELAY_POSTGRES_PASSWORD_FILE", write("pg", "hunter2", 0644)}});
  EXPECT_TRUE(contains(text, "can be read or written by every user")) << text;
  EXPECT_TRUE(contains(text, "HINT: chmod o-rw")) << text;
  EXPECT_FALSE(contains(text, "hunter2")) << text;
}

TEST_F(ConfigSecretsTest, PasswordFileThatIsAbsentEmptyHugeOrNoFileIsRefused) {
  const auto with = [&](const std::string& file) {
    return mistakes({{"OUTBOX_RELAY_KAFKA_PASSWORD_FILE", file}});
  };
  EXPECT_TRUE(contains(with(path("absent")), "cannot be opened: No such file"));
  EXPECT_TRUE(contains(with(write("empty", "\n")), "is empty"));
  EXPECT_TRUE(contains(with(write("huge", std::string(70'000, 'x'))), "is longer than 64 KiB"));
  EXPECT_TRUE(contains(with(path("")), "is not a regular file"));
  ASSERT_EQ(::mkfifo(path("fifo").c_str(), 0600), 0);
  EXPECT_TRUE(contains(with(path("fifo")), "is not a regular file"));
}

TEST_F(ConfigSecretsTest, PasswordInTheDsnIsTakenFromTheEnvironmentButNotFromTheFile) {
  for (const std::string dsn :
       {"host=db1 password=hunter2", "postgresql://relay:hunter2@db1/shop",
        "postgresql://db1/shop?password=hunter2", "host=db1 sslpassword=hunter2"}) {
    const auto config = load_with({{"OUTBOX_RELAY_POSTGRES_DSN", dsn}});
    ASSERT_TRUE(config) << config.error().text();
    EXPECT_EQ(config->postgres.dsn.reveal(), dsn);

    const std::string text = mistakes({}, "[postgres]\ndsn = \"" + dsn + "\"\n");
    EXPECT_TRUE(contains(text, "relay.toml:2:7: postgres.dsn: the value contains a password"))
        << text;
    EXPECT_TRUE(contains(text, "postgres.password_file")) << text;
    EXPECT_FALSE(contains(text, "hunter2")) << text;
  }
}

TEST_F(ConfigSecretsTest, SecretPropertyInTheFileIsRefused) {
  const std::string sasl = mistakes({}, "[kafka.properties]\nsasl.password = \"hunter2\"\n");
  EXPECT_TRUE(contains(sasl, "relay.toml:2:17: kafka.properties: \"sasl.password\" is a secret"))
      << sasl;
  EXPECT_TRUE(contains(sasl, "kafka.password_file")) << sasl;
  EXPECT_FALSE(contains(sasl, "hunter2")) << sasl;
  const std::string key = mistakes({}, "[kafka.properties]\n\"ssl.key.password\" = \"hunter2\"\n");
  EXPECT_TRUE(contains(key, "OUTBOX_RELAY_KAFKA_PROPERTIES=\"ssl.key.password=…\"")) << key;
  EXPECT_FALSE(contains(key, "hunter2")) << key;
}

TEST_F(ConfigSecretsTest, PasswordGivenTwiceIsAMistake) {
  const std::string file = write("secret", "hunter2");
  EXPECT_TRUE(contains(mistakes({{"OUTBOX_RELAY_POSTGRES_DSN", "host=db1 password=hunter2"},
                                 {"OUTBOX_RELAY_POSTGRES_PASSWORD_FILE", file}}),
                       "postgres.dsn contains a password as well"));
  EXPECT_TRUE(contains(mistakes({{"OUTBOX_RELAY_KAFKA_PROPERTIES", "sasl.password=hunter2"},
                                 {"OUTBOX_RELAY_KAFKA_PASSWORD_FILE", file}}),
                       "kafka.properties sets sasl.password as well"));
}

TEST_F(ConfigSecretsTest, APasswordOfConsumersWhoseDatabaseIsNotNamedIsAMistake) {
  const Environment environment = {
      {"OUTBOX_RELAY_CONSUMER_PASSWORD_FILE", write("secret", "hunter2")}};
  EXPECT_TRUE(
      contains(mistakes(environment), "consumer.password_file is set, and consumer.dsn is not"));
}

// The file holds the relay's login; an administrator names another one in the environment.
TEST_F(ConfigSecretsTest, PasswordOfTheFileIsNotUsedForTheDsnOfTheEnvironment) {
  const std::string toml =
      "kafka.brokers = [\"k\"]\ntopics.allow = [\"*\"]\n[postgres]\ndsn = "
      "\"user=relay\"\npassword_file = \"" +
      write("secret", "hunter2") + "\"\n";
  const auto of_the_file = load(write("relay.toml", toml), {});
  ASSERT_TRUE(of_the_file) << of_the_file.error().text();
  EXPECT_EQ(of_the_file->postgres.password.reveal(), "hunter2");
  for (const char* dsn : {"user=postgres", "user=postgres password=other"}) {
    const auto config = load(write("relay.toml", toml), {{"OUTBOX_RELAY_POSTGRES_DSN", dsn}});
    ASSERT_TRUE(config) << config.error().text();
    EXPECT_TRUE(config->postgres.password.empty());
  }
  const auto both = load(write("relay.toml", toml),
                         {{"OUTBOX_RELAY_POSTGRES_DSN", "user=postgres"},
                          {"OUTBOX_RELAY_POSTGRES_PASSWORD_FILE", write("admin", "other")}});
  ASSERT_TRUE(both) << both.error().text();
  EXPECT_EQ(both->postgres.password.reveal(), "other");

  const std::string unreadable =
      "kafka.brokers = [\"k\"]\ntopics.allow = [\"*\"]\nkafka.password_file = \"/nowhere\"\n"
      "[postgres]\ndsn = \"user=relay\"\npassword_file = \"/nowhere\"\n";
  const auto without = load(write("relay.toml", unreadable),
                            {{"OUTBOX_RELAY_POSTGRES_DSN", "user=postgres"},
                             {"OUTBOX_RELAY_KAFKA_PROPERTIES", "sasl.password=other"}});
  EXPECT_TRUE(without) << without.error().text();
}

TEST_F(ConfigSecretsTest, VariableWithoutItsSectionIsAMistakeThatNamesTheOption) {
  for (const auto& [name, meant] :
       Environment{{"OUTBOX_RELAY_NAME", "OUTBOX_RELAY_RELAY_NAME"},
                   {"OUTBOX_RELAY_MODE", "OUTBOX_RELAY_RELAY_MODE"},
                   {"OUTBOX_RELAY_DSN", "OUTBOX_RELAY_POSTGRES_DSN"},
                   {"OUTBOX_RELAY_PASSWORD_FILE", "OUTBOX_RELAY_POSTGRES_PASSWORD_FILE"}}) {
    const std::string text = mistakes({{name, "hunter2"}});
    EXPECT_TRUE(contains(text, name + ": no option has this name")) << text;
    EXPECT_TRUE(contains(text, "did you mean " + meant + "?")) << text;
    EXPECT_FALSE(contains(text, "hunter2")) << text;
  }
}

// Every way to get a value wrong that holds a secret, or stands where one was meant.
TEST_F(ConfigSecretsTest, NoErrorShowsASecret) {
  const std::vector<Environment> environments = {
      {{"OUTBOX_RELAY_POSTGRES_DSN", "host=db1 password=very hunter2"}},
      {{"OUTBOX_RELAY_POSTGRES_DSN", "host=db1 password='hunter2"}},
      {{"OUTBOX_RELAY_POSTGRES_DSN", "postgresql://relay:hunter2@[db1/shop"}},
      {{"OUTBOX_RELAY_POSTGRES_DSN", "postgresql://relay:%zzhunter2@db1/shop"}},
      {{"OUTBOX_RELAY_POSTGRES_DSN", "hunter2"}},
      {{"OUTBOX_RELAY_POSTGRES_PASSWORD", "hunter2"}},
      {{"OUTBOX_RELAY_KAFKA_PASSWORD", "hunter2"}},
      {{"OUTBOX_RELAY_KAFKA_PROPERTIES", "sasl.password=a,hunter2"}},
      {{"OUTBOX_RELAY_KAFKA_PROPERTIES", "sasl.password=a,hunter2=b"}},
      {{"OUTBOX_RELAY_KAFKA_PROPERTIES", "sasl.password=a,b,compression.type=hunter2"}},
      {{"OUTBOX_RELAY_KAFKA_PROPERTIES", "hunter2"}},
      {{"OUTBOX_RELAY_KAFKA_PROPERTIES", "sasl.passwort=hunter2"}},
      {{"OUTBOX_RELAY_KAFKA_PROPERTIES", "=hunter2"}},
      {{"OUTBOX_RELAY_KAFKA_PROPERTIES", "sasl.oauthbearer.client.secret=hunter2,nonsense"}}};
  for (const Environment& environment : environments) {
    const std::string text = mistakes(environment);
    EXPECT_FALSE(contains(text, "hunter2")) << text;
  }
  for (const char* content :
       {"[postgres]\ndsn = [\"hunter2\"]\n", "[postgres]\npassword = \"hunter2\"\n",
        "[postgres]\ndsn = \"hunter2\"\n", "[postgres]\ndsn = hunter2\n",
        "[postgres]\ndsn = \"hunter2\n", "[postgres]\ndsn = \"a\"\ndsn = \"hunter2\"\n",
        "[kafka.properties]\nsasl.password = [\"hunter2\"]\n", "password = \"hunter2\"\n",
        "[kafka]\nproperties = \"sasl.password=hunter2\"\n"}) {
    const std::string text = mistakes({}, content);
    EXPECT_FALSE(contains(text, "hunter2")) << text;
  }
}

TEST_F(ConfigSecretsTest, EffectiveConfigurationShowsEveryValueButNoSecret) {
  const auto config =
      load_with({{"OUTBOX_RELAY_POSTGRES_DSN", "host=db1 dbname=hunter1"},
                 {"OUTBOX_RELAY_POSTGRES_PASSWORD_FILE", write("pg", "hunter2")},
                 {"OUTBOX_RELAY_KAFKA_PROPERTIES", "client.id=a\"b,sasl.password=hunter3"},
                 {"OUTBOX_RELAY_RETENTION_KEEP", "90m"}});
  ASSERT_TRUE(config) << config.error().text();
  const std::string text = effective_toml(*config);
  EXPECT_FALSE(contains(text, "hunter")) << text;
  for (const char* line :
       {"dsn = \"***\"\n", "password_file = \"***\"\n", "name = \"main\"\n", "keep = \"90m\"\n",
        "batch_bytes_max = \"8MiB\"\n", "prune_rows_per_second = 20000\n", "allow = [\"*\"]\n",
        "allow_unverified_server = false\n", "progress_topic = \"outbox-progress.main\"\n",
        "\"client.id\" = \"a\\\"b\"\n", "\"sasl.password\" = \"***\"\n"}) {
    EXPECT_TRUE(contains(text, line)) << line << text;
  }
}

}  // namespace
}  // namespace relay::config
