// SPDX-License-Identifier: Apache-2.0
// Every value that a column can hold goes through every command, as text and as JSON.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/test_outbox.h"

namespace relay {
namespace {

using nlohmann::json;

class ValuesTest : public ::testing::Test {
 protected:
  // The JSON of a command that ends well, or finds nothing; it must print its text as well.
  json answer(std::vector<std::string> words) {
    const auto text = db.command(words);
    words.emplace_back("--json");
    const auto done = db.command(words);
    std::string all;
    for (const auto& word : words) all += word + " ";
    EXPECT_TRUE(done.code == 0 || done.code == 1) << all << done.code << "\n" << done.output;
    EXPECT_EQ(text.code, done.code) << all << text.output;
    for (const unsigned char c : text.output)
      EXPECT_TRUE(c >= ' ' || c == '\n') << all << "prints a control character";
    json parsed = json::parse(done.output, nullptr, false);
    EXPECT_TRUE(parsed.is_object()) << all << done.output;
    return parsed;
  }

  test::TestOutbox db;
};

TEST_F(ValuesTest, EveryTimeThatAMessageCanBeScheduledFor) {
  const std::pair<const char*, const char*> times[] = {
      {"infinity", "infinity"},
      {"-infinity", "-infinity"},
      {"294276-12-31 23:59:59.999999+00", "294276-12-31T23:59:59.999999Z"},
      {"9999-12-31 23:59:59+00", "9999-12-31T23:59:59.000000Z"},
      {"0044-03-15 12:00:00+00 BC", "0044-03-15T12:00:00.000000Z BC"},
      {"4714-11-24 00:00:00+00 BC", "4714-11-24T00:00:00.000000Z BC"},
      {"2026-03-29 02:30:00.5+01", "2026-03-29T01:30:00.500000Z"}};
  for (const auto& [written, shown] : times) {
    const std::string id = db.value("select outbox.enqueue('t', 'k', 'v', deliver_at => '" +
                                    std::string(written) + "')");
    const json traced = answer({"trace", id});
    EXPECT_EQ(traced["messages"][0]["deliver_at"], shown) << traced;
    const json listed = answer({"scheduled", "list"});
    const auto& all = listed["scheduled"];
    EXPECT_TRUE(std::any_of(all.begin(), all.end(), [&](const json& s) {
      return s["id"] == id && s["deliver_at"] == shown;
    })) << listed;
  }
  answer({"status"});
}

// Parked, because no topic is allowed. What text and bytes can hold: control characters, the
// largest code point, bytes that are no text, nothing.
TEST_F(ValuesTest, EveryValueOfAMessage) {
  const std::string awkward = R"(E'\x01\x1b[31m"\\ \r\n\u2028\U0010FFFF')";
  for (const std::string& columns : std::vector<std::string>{
           "null, null, null, null", "''::bytea, ''::bytea, '{}', null",
           "'\\x00ff'::bytea, '\\xc3'::bytea, '[]', null",
           "convert_to(" + awkward + ", 'UTF8'), convert_to(" + awkward +
               ", 'UTF8'), jsonb_build_object('a', " + awkward + ", '', ''), " + awkward,
           std::string("decode(repeat('00', 1048576), 'hex'), decode(repeat('ff', 100000), 'hex'), "
                       "jsonb_build_object('h', repeat('x', 1000000)), repeat('d', 1024)")}) {
    db.sql("insert into outbox.message (topic, key, payload, headers, dedup_key) values (" +
           awkward + ", " + columns + ")");
  }
  db.environment["OUTBOX_RELAY_TOPICS_ALLOW"] = "nothing";
  auto relay = db.relay();
  db.wait_until_idle();
  EXPECT_EQ(answer({"parked", "list"})["parked"].size(), 5U);
  for (const auto& row : db.sql("select m.id::text, m.dedup_key from outbox.message m")) {
    EXPECT_EQ(answer({"trace", row[0].c_str()})["messages"].size(), 1U);
    answer({"parked", "show", row[0].c_str()});
    if (!row[1].is_null()) {
      EXPECT_EQ(answer({"trace", "--key", row[1].c_str()})["messages"].size(), 1U);
    }
  }
}

}  // namespace
}  // namespace relay
