// SPDX-License-Identifier: Apache-2.0
// Every example in the documentation works. The pages are one story: their `sql` blocks and the
// `sh run` blocks are executed as printed, in order, on servers that ask for passwords as Debian's
// do, with the configuration of the README.
//
// The first line of an `sql` block is a comment with the command that connects, psql and its login;
// a block without one continues with the login of the block before it. Behind `sql`: `left` and
// `last` end the story; `wrong` marks what runs, and must not be copied.
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <sstream>

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

std::vector<Block> blocks_in(const std::filesystem::path& page) {
  static const std::regex fence("```(\\w*) *(.*)");
  std::vector<Block> found;
  std::istringstream lines(contents(page));
  std::string line;
  std::optional<Block> open;
  for (int number = 1; std::getline(lines, line); ++number) {
    std::smatch match;
    if (!std::regex_match(line, match, fence)) {
      if (open) open->text += line + "\n";
    } else if (open) {
      found.push_back(*open);
      open.reset();
    } else {
      open = Block{page.filename().string(), number, match[1], match[2], ""};
    }
  }
  EXPECT_FALSE(open) << open->place() << " is never closed";
  return found;
}

// The fenced blocks of a page, by its name.
std::vector<Block> blocks_of(const std::string& name) {
  for (const auto& page : pages()) {
    if (page.filename() == name) return blocks_in(page);
  }
  ADD_FAILURE() << "there is no page " << name;
  return {};
}

// The fenced blocks of one language, of all pages that have one.
std::map<std::string, std::vector<Block>> blocks(const std::string& language) {
  std::map<std::string, std::vector<Block>> found;
  for (const auto& page : pages()) {
    for (Block& block : blocks_in(page)) {
      if (block.language == language) found[block.page].push_back(std::move(block));
    }
  }
  return found;
}

std::vector<std::string> psql(const std::string& statements, const std::string& dsn) {
  return {
      "/usr/bin/env", "psql",     "-X", "-v", "ON_ERROR_STOP=1", "-c", "set lock_timeout = '10s'",
      "-c",           statements, dsn};
}

void write_program(const std::filesystem::path& file, const std::string& text) {
  std::ofstream(file) << "#!/usr/bin/env bash\n" << text << '\n';
  std::filesystem::permissions(file, std::filesystem::perms::owner_all);
}

// A folder in which a reader of the documentation works, beside servers at free ports. The server
// of PostgreSQL asks for passwords over TCP. psql finds those that the pages print.
class Story : public ::testing::Test {
 protected:
  Story() : postgres({"auth=scram"}), folder(postgres.folder() / "reader") {
    std::filesystem::create_directories(folder / "bin");
    // The user postgres owns the cluster and needs no password at its socket.
    write_program(folder / "bin/sudo",
                  R"([ "$1 $2" = "-u postgres" ] && shift 2 && exec env "$@")");
    write_program(folder / "bin/kafka-topics.sh",
                  ". " OUTBOX_SOURCE_DIR
                  "/scripts/lib.sh\n"
                  "exec java -cp \"$KAFKA_HOME/*\" org.apache.kafka.tools.TopicCommand \"$@\"");
    std::filesystem::create_symlink(test::program_path("outbox-relay"),
                                    folder / "bin/outbox-relay");
    std::filesystem::permissions(folder, std::filesystem::perms::owner_all);
  }

  // As printed, but for Kafka's port: PostgreSQL's is in the environment.
  std::string here(std::string text) const {
    static const std::regex printed("127\\.0\\.0\\.1:9092");
    return std::regex_replace(text, printed, kafka.brokers());
  }

  std::vector<std::string> shell(const std::string& line) const {
    return {"/usr/bin/env", "bash", "-c", "set -euo pipefail; cd " + folder.string() + "; " + line};
  }

  test::Process::Environment environment(const std::string& line) const {
    test::Process::Environment set{
        {"PATH", (folder / "bin").string() + ":" + std::getenv("PATH")},
        {"PGPORT", std::to_string(postgres.port())},
    };
    if (line.starts_with("sudo")) {
      set["PGHOST"] = postgres.folder() / "postgres";
      set["PGUSER"] = "postgres";
    } else if (line.starts_with("psql")) {
      set["PGPASSFILE"] = folder / "pgpass";
    }
    return set;
  }

  test::Finished run(const std::string& line) const {
    return test::run_command(shell(line), environment(line));
  }

  // What a reader would type when psql asks.
  void note_passwords(const std::string& text) const {
    static const std::regex created("create role (\\w+) login password '([^']+)'");
    std::ofstream file(folder / "pgpass", std::ios::app);
    for (std::sregex_iterator it(text.begin(), text.end(), created), end; it != end; ++it)
      file << "*:*:*:" << (*it)[1] << ':' << (*it)[2] << '\n';
    std::filesystem::permissions(folder / "pgpass", std::filesystem::perms::owner_read |
                                                        std::filesystem::perms::owner_write);
  }

  void run_sql(const Block& block) {
    if (block.text.starts_with("-- ")) login = block.text.substr(3, block.text.find('\n') - 3);
    ASSERT_FALSE(login.empty()) << block.place() << " does not say who runs it";
    note_passwords(block.text);
    std::ofstream(folder / "block.sql") << "set lock_timeout = '10s';\n" << block.text;
    const auto done = run(login + " -X -v ON_ERROR_STOP=1 <block.sql");
    EXPECT_EQ(done.code, 0) << block.place() << ", " << login << ":\n" << done.output;
    EXPECT_EQ(done.output.find("WARNING"), std::string::npos) << block.place() << done.output;
    last_output = done.output;
  }

  void run_shell(const Block& block) {
    std::istringstream lines(here(block.text));
    for (std::string line; std::getline(lines, line);) {
      if (line.starts_with("outbox-relay run")) {
        relay.emplace(shell("exec " + line), environment(line));
      } else if (line.starts_with("outbox-relay trace")) {
        SCOPED_TRACE(block.place() + ": " + line);
        EXPECT_NO_THROW(
            test::eventually("the message is in Kafka",
                             [&] { return run(line).output.find("offset") != std::string::npos; }))
            << run(line).output << relay->output();
      } else {
        const auto done = run(line);
        EXPECT_EQ(done.code, 0) << block.place() << ": " << line << '\n' << done.output;
      }
    }
  }

  // The blocks of a page that are executed, without those of the end.
  void read(const std::string& page) {
    login.clear();
    for (const Block& block : blocks_of(page)) {
      if (block.language == "toml" && page == "README.md") {
        std::ofstream(folder / "relay.toml") << here(block.text);
      } else if (block.language == "sh" && block.says("run")) {
        run_shell(block);
      } else if (block.language == "sql" && !block.says("last") && !block.says("left")) {
        run_sql(block);
      }
    }
  }

  test::ScratchPostgres postgres;  // of its own: logins are the whole server's
  test::ScratchKafka kafka;
  std::filesystem::path folder;
  std::optional<test::Process> relay;
  std::string login;
  std::string last_output;
};

TEST_F(Story, TheExamplesOfAllPagesWorkInOrderAsPrinted) {
  read("README.md");
  ASSERT_TRUE(relay) << "the README starts no relay";
  read("ordering.md");
  read("deploy.md");
  read("consumers.md");
  std::vector<Block> end;
  for (const Block& block : blocks_of("deploy.md")) {
    if (block.says("left") || block.says("last")) end.push_back(block);
  }
  ASSERT_EQ(end.size(), 2U);
  test::eventually("nothing is left", [&] {
    run_sql(end[0]);
    return std::regex_search(last_output, std::regex("0 *\\| *0 *\\| *0 *\\| *0\n"));
  });
  relay->signal(SIGTERM);
  EXPECT_EQ(relay->wait(), 0) << relay->output();
  read("runbook.md");
  run_sql(end[1]);
}

// No page but these has statements or a configuration, and each of them does.
TEST(DocsTest, EveryExampleIsPartOfTheStory) {
  std::string seen;
  for (const char* language : {"sql", "toml"}) {
    for (const auto& [page, examples] : blocks(language)) {
      if (page != "sql.md") seen += page + " ";  // which has a test of its own
    }
  }
  EXPECT_EQ(seen, "README.md consumers.md deploy.md ordering.md runbook.md README.md ");
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
