// SPDX-License-Identifier: Apache-2.0
// Units, the table of options, and the files that are generated from it.
#include "relay/config/reference.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <limits>
#include <random>
#include <set>
#include <sstream>
#include <string>

#include "relay/config/config.h"
#include "relay/config/options.h"
#include "relay/config/parse.h"
#include "tests/support/generated_file.h"

namespace relay::config {
namespace {

using namespace std::chrono_literals;

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(Units, DurationsAndSizesAreReadInEveryUnit) {
  EXPECT_EQ(*parse_duration("20ms"), 20ms);
  EXPECT_EQ(*parse_duration("5s"), 5s);
  EXPECT_EQ(*parse_duration("1m"), 60s);
  EXPECT_EQ(*parse_duration("24h"), 24h);
  EXPECT_EQ(*parse_duration("2d"), 48h);
  EXPECT_EQ(*parse_duration("0s"), 0ms);
  EXPECT_EQ(*parse_size("500B"), 500);
  EXPECT_EQ(*parse_size("1kB"), 1'000);
  EXPECT_EQ(*parse_size("1KiB"), 1'024);
  EXPECT_EQ(*parse_size("3MB"), 3'000'000);
  EXPECT_EQ(*parse_size("8MiB"), 8'388'608);
  EXPECT_EQ(*parse_size("1GB"), 1'000'000'000);
  EXPECT_EQ(*parse_size("1GiB"), 1'073'741'824);
}

TEST(Units, NothingIsGuessed) {
  for (const char* text :
       {"", "20", "ms", "20 ms", " 20ms", "20ms ", "1.5s", "-1s", "+1s", "1h30m", "5S", "5sec",
        "1e3s", "0x1s", "99999999999999999999s", "9223372036854775807d", "8MiB"}) {
    const auto parsed = parse_duration(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_FALSE(parsed.error().hint.empty());
  }
  for (const char* text : {"", "8", "8M", "8mb", "8Mib", "8 MiB", "1.5MiB", "-1B", "8MiB8",
                           "9223372036854775807GiB", "5s"}) {
    EXPECT_FALSE(parse_size(text)) << text;
  }
}

TEST(Units, WhatIsFormattedIsReadBackAsTheSameValue) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int i = 0; i < 20'000; ++i) {
    // Few bits or many, and often a multiple of a unit.
    const auto bits = random() >> (1 + random() % 63);
    const std::int64_t factors[] = {1, 1'000, 60'000, 3'600'000, 1'024, 1'048'576};
    const std::int64_t factor = factors[random() % 6];
    const auto value =
        static_cast<std::int64_t>(bits / static_cast<std::uint64_t>(factor)) * factor;
    const auto duration = parse_duration(format_duration(Millis{value}));
    ASSERT_TRUE(duration) << value;
    ASSERT_EQ(duration->count(), value);
    const auto size = parse_size(format_size(value));
    ASSERT_TRUE(size) << value;
    ASSERT_EQ(*size, value);
  }
}

TEST(Units, LargestUnitThatDividesIsUsed) {
  EXPECT_EQ(format_duration(90min), "90m");
  EXPECT_EQ(format_duration(0ms), "0ms");
  EXPECT_EQ(format_duration(24h), "1d");
  EXPECT_EQ(format_size(8 << 20), "8MiB");
  EXPECT_EQ(format_size(1'000), "1kB");
  EXPECT_EQ(format_size(0), "0B");
}

TEST(Lists, AreSplitAtCommasThatAreNotEscaped) {
  using Texts = std::vector<std::string>;
  EXPECT_EQ(split_list("a, b ,c"), (Texts{"a", "b", "c"}));
  EXPECT_EQ(split_list(R"(a\,b,c\\,d\e)"), (Texts{"a,b", "c\\", "d\\e"}));
  EXPECT_EQ(split_list("a,,b"), (Texts{"a", "", "b"}));
  EXPECT_EQ(split_list("a\\"), Texts{"a\\"});
}

TEST(Names, OfRelaysTopicsAndBrokersAreChecked) {
  for (const char* good : {"main", "a", "shop-1.eu_west"})
    EXPECT_TRUE(check_relay_name(good)) << good;
  EXPECT_TRUE(check_relay_name(std::string(64, 'a')));
  EXPECT_FALSE(check_relay_name(std::string(65, 'a')));
  for (const char* bad : {"", "Main", "a b", "a/b", "ä"})
    EXPECT_FALSE(check_relay_name(bad)) << bad;

  for (const char* good : {"*", "shop.*", "orders", "A_b-c.1"})
    EXPECT_TRUE(check_topic_pattern(good)) << good;
  for (const char* bad : {"", ".", "..", "a*b", "*a", "a**", "a b", "a/b"})
    EXPECT_FALSE(check_topic_pattern(bad)) << bad;
  EXPECT_TRUE(check_topic_name(std::string(249, 'a')));
  EXPECT_FALSE(check_topic_name(std::string(250, 'a')));
  EXPECT_FALSE(check_topic_name("shop.*"));

  for (const char* good : {"k1", "k1:9092", "SSL://k1:9093", "[::1]", "[::1]:9092", "10.0.0.1:1"}) {
    EXPECT_TRUE(check_broker(good)) << good;
  }
  for (const char* bad :
       {"", ":9092", "k1:", "k1:0", "k1:65536", "k1:http", "k1 :9092", "SSL://"}) {
    EXPECT_FALSE(check_broker(bad)) << bad;
  }
}

TEST(Names, MistypedOnesFindTheNearest) {
  EXPECT_EQ(nearest("idel", {"idle", "ttl"}), "idle");
  EXPECT_EQ(nearest("broker", {"brokers", "properties"}), "brokers");
  EXPECT_EQ(nearest("nonsense", {"idle", "ttl"}), std::nullopt);
}

TEST(Options, EveryOneIsComplete) {
  std::set<std::string> names;
  for (const Option& option : options()) {
    const std::string name = full_name(option);
    EXPECT_TRUE(names.insert(environment_name(option)).second) << name;
    EXPECT_TRUE(option.help.ends_with('.')) << name;
    EXPECT_FALSE(option.standard.empty() && option.example.empty()) << name;
    EXPECT_FALSE(option.required && !option.standard.empty()) << name;
    EXPECT_EQ(option.type == Type::choice, !option.choices.empty()) << name;
    EXPECT_EQ(!range_text(option).empty(), option.max > option.min) << name;
    EXPECT_EQ(find(option.section, option.key), &option);
    const std::string ending = "Defaults to " + std::string(option.standard) + ".";
    EXPECT_TRUE(option.standard.empty() || help_of(option).ends_with(ending)) << name;
  }
}

TEST(Options, RangesAreEnforcedAtBothEnds) {
  for (const Option& option : options()) {
    if (range_text(option).empty()) continue;
    const auto written = [&](std::int64_t value) {
      return option.type == Type::integer ? std::to_string(value)
             : option.type == Type::size  ? format_size(value)
                                          : format_duration(Millis{value});
    };
    Config config;
    EXPECT_TRUE(assign(option, written(option.min), config)) << full_name(option);
    EXPECT_TRUE(assign(option, written(option.max), config)) << full_name(option);
    EXPECT_FALSE(assign(option, written(option.min - 1), config)) << full_name(option);
    EXPECT_FALSE(assign(option, written(option.max + 1), config)) << full_name(option);
  }
}

TEST(Options, ChoicesAndEnumsAgree) {
  Config config;
  for (const auto mode : {Mode::exactly_once, Mode::at_least_once}) {
    ASSERT_TRUE(assign(*find("relay", "mode"), to_string(mode), config));
    EXPECT_EQ(config.relay.mode, mode);
    EXPECT_EQ(parse_mode(to_string(mode)), mode);
  }
  for (const auto order : {KeyOrder::key, KeyOrder::message}) {
    ASSERT_TRUE(assign(*find("delivery", "order"), to_string(order), config));
    EXPECT_EQ(config.delivery.order, order);
    EXPECT_EQ(parse_key_order(to_string(order)), order);
  }
  for (const auto answer : {OnLostProgress::resend, OnLostProgress::stop}) {
    ASSERT_TRUE(assign(*find("delivery", "on_lost_progress"), to_string(answer), config));
    EXPECT_EQ(config.delivery.on_lost_progress, answer);
    EXPECT_EQ(parse_on_lost_progress(to_string(answer)), answer);
  }
  const log::Level levels[] = {log::Level::debug, log::Level::info, log::Level::warn,
                               log::Level::error};
  const char* const level_names[] = {"debug", "info", "warn", "error"};
  for (std::size_t i = 0; i < 4; ++i) {
    ASSERT_TRUE(assign(*find("log", "level"), level_names[i], config));
    EXPECT_EQ(config.log.level, levels[i]);
  }
  ASSERT_TRUE(assign(*find("log", "format"), "json", config));
  EXPECT_EQ(config.log.format, log::Format::json);
}

// Takes the comment signs from the options of the annotated file, which begin without a blank.
std::string uncommented(const std::string& toml) {
  std::istringstream lines(toml);
  std::string out;
  for (std::string line; std::getline(lines, line);) {
    const bool option = line.size() > 1 && line[0] == '#' && line[1] != ' ';
    if (!contains(line, "password_file =")) out += (option ? line.substr(1) : line) + "\n";
  }
  return out;
}

TEST(AnnotatedFile, SaysTheDefaultsAndNamesWhatIsMissing) {
  const std::string path = testing::TempDir() + "/annotated.toml";
  std::ofstream(path) << uncommented(annotated_toml());
  const auto all = load(path, {});
  ASSERT_TRUE(all) << all.error().text();
  std::ofstream(path) << annotated_toml();
  const auto none = load(path, {{"OUTBOX_RELAY_POSTGRES_DSN", all->postgres.dsn.reveal()},
                                {"OUTBOX_RELAY_KAFKA_BROKERS", "kafka1:9092,kafka2:9092"},
                                {"OUTBOX_RELAY_TOPICS_ALLOW", "orders,shop.*"},
                                {"OUTBOX_RELAY_KAFKA_PROPERTIES", "compression.type=lz4"}});
  ASSERT_TRUE(none) << none.error().text();
  EXPECT_EQ(effective_toml(*all), effective_toml(*none));

  const auto unset = load(path, {});
  ASSERT_FALSE(unset);
  for (const char* name :
       {"postgres.dsn is missing", "kafka.brokers is missing", "topics.allow is missing"}) {
    EXPECT_TRUE(contains(unset.error().text(), name)) << unset.error().text();
  }
}

TEST(Reference, NamesEveryOptionEverywhere) {
  for (const Option& option : options()) {
    const std::string variable = environment_name(option);
    EXPECT_TRUE(contains(annotated_toml(), variable)) << variable;
    EXPECT_TRUE(contains(reference_markdown(), variable)) << variable;
    EXPECT_TRUE(contains(help_text(), "  " + std::string(option.key) + " (")) << variable;
  }
}

TEST(Reference, HelpFitsATerminal) {
  std::istringstream lines(help_text());
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100U) << line;
}

TEST(GeneratedFiles, RelayTomlIsCurrent) {
  test::expect_current("config/relay.toml", annotated_toml());
}
TEST(GeneratedFiles, ConfigurationMdIsCurrent) {
  test::expect_current("docs/configuration.md", reference_markdown());
}

}  // namespace
}  // namespace relay::config
