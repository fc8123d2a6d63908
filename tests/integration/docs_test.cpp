// SPDX-License-Identifier: Apache-2.0
// Every example in the documentation works: `sql` blocks are run by psql against a PostgreSQL with
// the schema, page by page and in their order; `toml` blocks pass as configuration.
//
// The words behind `sql` say who runs it: `owner` (who also ran init), `duty`, `mailer`, or by
// default the application's login `shop`. A page creates its logins itself; what is marked `last`
// runs at its end. `wrong` marks what runs, and must not be copied.
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <sstream>

#include "relay/config/config.h"
#include "tests/support/checker.h"

namespace relay {
namespace {

struct Block {
  std::string page;
  int line = 0;
  std::string language;
  std::string words;
  std::string text;

  std::string place() const { return page + ":" + std::to_string(line); }
  bool says(const std::string& word) const {
    return (" " + words + " ").find(" " + word + " ") != std::string::npos;
  }
};

std::string contents(const std::filesystem::path& file) {
  std::ifstream in(file);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

std::vector<std::filesystem::path> pages() {
  std::vector<std::filesystem::path> all;
  for (const char* page : {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"}) {
    all.push_back(std::filesystem::path(OUTBOX_SOURCE_DIR) / page);
  }
  for (const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::path(OUTBOX_SOURCE_DIR) / "docs")) {
    if (entry.path().extension() == ".md") all.push_back(entry.path());
  }
  return all;
}

// The fenced blocks of one language, of all pages.
std::map<std::string, std::vector<Block>> blocks(const std::string& language) {
  static const std::regex fence("```(\\w*) *(.*)");
  std::map<std::string, std::vector<Block>> found;
  for (const auto& page : pages()) {
    std::istringstream lines(contents(page));
    std::string line;
    std::optional<Block> open;
    for (int number = 1; std::getline(lines, line); ++number) {
      std::smatch match;
      if (!std::regex_match(line, match, fence)) {
        if (open) open->text += line + "\n";
      } else if (open) {
        if (open->language == language) found[open->page].push_back(*open);
        open.reset();
      } else {
        open = Block{page.filename().string(), number, match[1], match[2], ""};
      }
    }
    EXPECT_FALSE(open) << open->place() << " is never closed";
  }
  return found;
}

std::vector<std::string> psql(const std::string& statements, const std::string& dsn) {
  return {
      "/usr/bin/env", "psql",     "-X", "-v", "ON_ERROR_STOP=1", "-c", "set lock_timeout = '10s'",
      "-c",           statements, dsn};
}

void run_in_psql(const Block& block, const test::ScratchPostgres& postgres,
                 const std::string& database) {
  const std::string user = block.says("owner")    ? "postgres"
                           : block.says("duty")   ? "duty"
                           : block.says("mailer") ? "mailer"
                                                  : "shop";
  const auto done = test::run_command(psql(block.text, postgres.dsn(database, user)), {});
  EXPECT_EQ(done.code, 0) << block.place() << " as " << user << ":\n" << block.text << done.output;
  EXPECT_EQ(done.output.find("WARNING"), std::string::npos) << block.place() << ":\n"
                                                            << done.output;
}

TEST(DocsTest, EverySqlExampleRuns) {
  const auto all = blocks("sql");
  ASSERT_GE(all.size(), 3U);
  for (const auto& [page, examples] : all) {
    test::ScratchPostgres postgres;  // of its own: logins are the whole server's
    test::TestOutbox db(postgres, nullptr, "outbox,inbox,effect");
    for (const Block& block : examples) {
      if (!block.says("last")) run_in_psql(block, postgres, db.database());
    }
    const char* const used = page == "consumers.md"
                                 ? "select count(*) from effect.effect where state = 'done'"
                                 : "select count(*) from outbox.message";
    const bool sends_nothing = page == "deploy.md" || page == "runbook.md";
    EXPECT_EQ(db.value(used) == "0", sends_nothing) << page << " does nothing";
    for (const Block& block : examples) {
      if (block.says("last")) run_in_psql(block, postgres, db.database());
    }
  }
}

TEST(DocsTest, EveryConfigurationIsComplete) {
  const auto all = blocks("toml");
  ASSERT_GE(all.size(), 1U);
  const std::filesystem::path file = std::filesystem::path(testing::TempDir()) /
                                     ("docs-test-" + std::to_string(getpid()) + ".toml");
  for (const auto& [page, examples] : all) {
    for (const Block& block : examples) {
      std::ofstream(file) << block.text;
      const auto config = config::load(file.string(), {});
      EXPECT_TRUE(config) << block.place() << ":\n" << (config ? "" : config.error().text());
    }
  }
  std::filesystem::remove(file);
}

// As the page says: the relay runs until its query says that nothing is left, is stopped, and
// the schema goes.
class BackingOut : public ::testing::Test {
 protected:
  BackingOut() : db(postgres) {
    static const auto all = blocks("sql");
    for (const Block& block : all.at("deploy.md")) {
      if (block.says("left")) what_is_left += block.text;
      if (block.says("last")) removal += block.text;
    }
    topic = db.topic("t");
    db.environment["OUTBOX_RELAY_TOPICS_ALLOW"] = topic;
  }

  std::string left() const {
    const auto rows = db.sql(what_is_left);
    std::string out;
    for (const auto& field : rows[0]) out += std::string(field.c_str()) + " ";
    return out;
  }

  test::Finished remove() const { return test::run_command(psql(removal, db.dsn()), {}); }
  bool is_there() const {
    return db.value("select to_regclass('outbox.message') is not null") == "t";
  }

  test::ScratchPostgres postgres;  // of its own: the roles go as well
  test::TestOutbox db;
  std::string topic;
  std::string what_is_left;
  std::string removal;
};

TEST_F(BackingOut, LosesNothing) {
  EXPECT_EQ(left(), "0 0 0 0 ");
  test::create_counters(db);
  test::write(db, topic, 30);
  db.sql("insert into outbox.message (topic, key, payload) values ('elsewhere', 'k', 'x 1')");
  db.sql("select outbox.enqueue('" + topic +
         "', 's', 's 1', deliver_at => clock_timestamp() + interval '1 hour')");
  EXPECT_EQ(left(), "91 0 0 1 ");
  {
    auto doomed = db.relay({{"OUTBOX_CRASH_AT", "opened"}}, "relay-with-crash-points");
    EXPECT_EQ(doomed.wait(), -SIGKILL) << doomed.output();
  }
  EXPECT_EQ(left(), "0 1 1 1 ");
  auto relay = db.relay();
  test::eventually("only what needs a decision is left", [&] { return left() == "0 0 1 1 "; });
  EXPECT_NE(remove().output.find("something is left"), std::string::npos);
  ASSERT_EQ(db.command({"parked", "discard", "--all", "--why", "nobody reads it"}).code, 0);
  test::eventually("only what is scheduled is left", [&] { return left() == "0 0 0 1 "; });
  EXPECT_NE(remove().output.find("something is left"), std::string::npos);
  db.sql("update outbox.scheduled set deliver_at = clock_timestamp()");
  test::eventually("nothing is left", [&] { return left() == "0 0 0 0 "; });
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  EXPECT_EQ(left(), "0 0 0 0 ");
  const auto verdict = test::check_delivery(db, {topic});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
  EXPECT_EQ(verdict.parked, 1) << verdict;
  const auto done = remove();
  EXPECT_EQ(done.code, 0) << done.output;
  EXPECT_THROW(db.sql("select outbox.enqueue('t', 'k', 'x')"), std::exception);
}

TEST_F(BackingOut, WaitsForATransactionThatIsOpenAndKeepsWhatItWrote) {
  pqxx::connection application(db.dsn());
  pqxx::work open(application);
  open.exec("insert into outbox.message (topic, key, payload) values ('" + topic +
            "', 'k', 'x 1')");
  EXPECT_EQ(left(), "0 0 0 0 ");
  test::Process removing(psql(removal, db.dsn()), {});
  test::eventually("the removal waits for the transaction", [&] {
    return db.value(
               "select count(*) from pg_locks l where l.relation = 'outbox.message'::regclass and "
               "not l.granted") == "1";
  });
  open.commit();
  EXPECT_NE(removing.wait(), 0);
  EXPECT_NE(removing.output().find("something is left"), std::string::npos) << removing.output();
  ASSERT_TRUE(is_there());
  db.deliver();
  EXPECT_EQ(
      test::read_log(db.kafka().brokers(), {topic}, test::Isolation::read_committed).records.size(),
      1U);
  const auto done = remove();
  EXPECT_EQ(done.code, 0) << done.output;
  EXPECT_FALSE(is_there());
}

// What is shown of a program is a piece of one that the tests build and run.
TEST(DocsTest, EveryPieceOfAProgramStandsInAnExample) {
  std::string programs;
  for (const char* example : {"enqueue", "workers"}) {
    for (const auto& entry : std::filesystem::directory_iterator(
             std::filesystem::path(OUTBOX_SOURCE_DIR) / "examples" / example)) {
      programs += contents(entry.path());
    }
  }
  for (const char* language : {"cpp", "cmake"}) {
    const auto all = blocks(language);
    EXPECT_FALSE(all.empty()) << language;
    for (const auto& [page, examples] : all) {
      for (const Block& block : examples)
        EXPECT_NE(programs.find(block.text), std::string::npos) << block.place() << ":\n"
                                                                << block.text;
    }
  }
}

// How a heading is named in a link: small letters, hyphens for blanks, nothing else.
std::string anchor(const std::string& heading) {
  std::string out;
  for (const char c : heading) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_')
      out += static_cast<char>(std::tolower(c));
    if (c == ' ') out += '-';
  }
  return out;
}

bool has_section(const std::filesystem::path& page, const std::string& wanted) {
  std::istringstream lines(contents(page));
  for (std::string line; std::getline(lines, line);) {
    const auto text = line.find_first_not_of('#');
    if (text != 0 && text != std::string::npos && line[text] == ' ' &&
        anchor(line.substr(text + 1)) == wanted)
      return true;
  }
  return false;
}

TEST(DocsTest, EveryLinkLeadsSomewhere) {
  static const std::regex link("\\]\\(([^)#:]*)(?:#([^)]*))?\\)");  // [text](page.md#section)
  int links = 0;
  for (const auto& page : pages()) {
    const std::string text = contents(page);
    for (std::sregex_iterator it(text.begin(), text.end(), link), end; it != end; ++it, ++links) {
      const auto target = (*it)[1].length() == 0 ? page : page.parent_path() / (*it)[1].str();
      const std::string section = (*it)[2];
      EXPECT_TRUE(std::filesystem::exists(target)) << page.filename() << " links to " << (*it)[0];
      EXPECT_TRUE(section.empty() || has_section(target, section))
          << page.filename() << " links to " << (*it)[0];
    }
  }
  EXPECT_GT(links, 10);
}

}  // namespace
}  // namespace relay
