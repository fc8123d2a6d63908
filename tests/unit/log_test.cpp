// SPDX-License-Identifier: Apache-2.0
#include "relay/base/log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>
#include <vector>

namespace relay::log {
namespace {

// What `write` sends to standard error.
std::string captured(const std::function<void()>& write) {
  testing::internal::CaptureStderr();
  write();
  return testing::internal::GetCapturedStderr();
}

// The fields of a text line: what stands behind time, level and event.
std::string written_value(std::string_view value) {
  const std::string line = captured([&] { event(Level::info, "probe", {{"v", value}}); });
  const auto at = line.find("v=");
  return line.substr(at + 2, line.size() - at - 3);
}

// Whether `text` is `form`, in which each '9' stands for any digit.
bool has_form(std::string_view text, std::string_view form) {
  return std::equal(text.begin(), text.end(), form.begin(), form.end(),
                    [](char c, char f) { return f == '9' ? c >= '0' && c <= '9' : c == f; });
}

// Standard error, as a pipe that takes nothing more until it is read.
class FullPipe {
 public:
  FullPipe() : before_(dup(STDERR_FILENO)) {
    if (pipe2(ends_.data(), O_CLOEXEC | O_NONBLOCK) != 0) throw std::runtime_error("pipe2");
    const std::string page(4'096, '.');
    while (write(ends_[1], page.data(), page.size()) > 0) continue;
    fcntl(ends_[1], F_SETFL, 0);  // who writes now, waits
    dup2(ends_[1], STDERR_FILENO);
  }
  ~FullPipe() {
    dup2(before_, STDERR_FILENO);
    for (const int end : {before_, ends_[0], ends_[1]}) close(end);
  }
  std::string read_all() const {
    std::string all(1 << 20, '\0');
    const ssize_t n = read(ends_[0], all.data(), all.size());
    all.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
    return all.substr(std::min(all.size(), all.find_first_not_of('.')));
  }

 private:
  const int before_;
  std::array<int, 2> ends_{};
};

class LogTest : public testing::Test {
 protected:
  void SetUp() override { start(Format::text, Level::info); }
  void TearDown() override { start(Format::text, Level::info); }
};

TEST_F(LogTest, TextLineHasTimeLevelEventAndFields) {
  const std::string line = captured([] {
    event(Level::info, "state_changed", {{"from", "standby"}, {"to", std::string("recovering")}});
  });
  EXPECT_TRUE(
      has_form(line, "9999-99-99T99:99:99.999Z info  state_changed from=standby to=recovering\n"))
      << line;
}

TEST_F(LogTest, WhatAFullPipeDoesNotTakeIsLeftOutAndCounted) {
  const FullPipe pipe;
  for (int i = 0; i < 3; ++i) event(Level::info, "not_taken");
  EXPECT_EQ(pipe.read_all(), "");
  event(Level::info, "taken", {{"long", std::string(10'000, 'x')}});
  const std::string written = pipe.read_all();
  EXPECT_NE(written.find("error log_lines_dropped lines=3\n"), std::string::npos) << written;
  EXPECT_NE(written.find("info  taken long=" + std::string(10'000, 'x') + "\n"), std::string::npos)
      << written.size();
  EXPECT_EQ(written.find("not_taken"), std::string::npos) << written;
}

TEST_F(LogTest, LevelsAreAlignedAndNamed) {
  start(Format::text, Level::debug);
  for (const auto& [level, name] :
       {std::pair{Level::debug, "Z debug probe\n"}, std::pair{Level::warn, "Z warn  probe\n"},
        std::pair{Level::error, "Z error probe\n"}}) {
    EXPECT_TRUE(captured([level = level] { event(level, "probe"); }).ends_with(name)) << name;
  }
}

TEST_F(LogTest, NumbersAndBooleansAreWrittenPlain) {
  const std::string line = captured([] {
    event(Level::info, "probe", {{"n", -3}, {"big", std::uint32_t{7}}, {"x", 0.5}, {"yes", true}});
  });
  EXPECT_TRUE(line.ends_with("probe n=-3 big=7 x=0.5 yes=true\n")) << line;
}

TEST_F(LogTest, EventsBelowTheLevelAreDropped) {
  EXPECT_EQ(captured([] { event(Level::debug, "probe"); }), "");
  start(Format::text, Level::error);
  EXPECT_EQ(captured([] { event(Level::warn, "probe"); }), "");
  EXPECT_NE(captured([] { event(Level::error, "probe"); }), "");
}

TEST_F(LogTest, ValuesThatCouldBeMisreadAreQuoted) {
  EXPECT_EQ(written_value("plain-value_1.2/3:4"), "plain-value_1.2/3:4");
  EXPECT_EQ(written_value(""), R"("")");
  EXPECT_EQ(written_value("two words"), R"("two words")");
  EXPECT_EQ(written_value("a=b"), R"("a=b")");
  EXPECT_EQ(written_value(R"(say "x")"), R"("say \"x\"")");
  EXPECT_EQ(written_value(R"(back\slash)"), R"("back\\slash")");
}

TEST_F(LogTest, ValuesCannotForgeALineOrDriveATerminal) {
  EXPECT_EQ(written_value("a\n2026-01-01T00:00:00.000Z error forged"),
            R"("a\n2026-01-01T00:00:00.000Z error forged")");
  EXPECT_EQ(written_value("\r\t"), R"("\r\t")");
  EXPECT_EQ(written_value("\x1b[31mred"), R"("\x1b[31mred")");
  EXPECT_EQ(written_value("\x7f"), R"("\x7f")");
  EXPECT_EQ(written_value("\xc2\x9b"
                          "31m"),
            R"("\xc2\x9b31m")");  // CSI as a C1 control character
  EXPECT_EQ(written_value(std::string_view("a\0b", 3)), R"("a\x00b")");
}

TEST_F(LogTest, Utf8IsKeptAndBrokenUtf8IsEscaped) {
  EXPECT_EQ(written_value("grün€😀"), "grün€😀");
  EXPECT_EQ(written_value("a\xff"), R"("a\xff")");
  EXPECT_EQ(written_value("\xc3"), R"("\xc3")");
  EXPECT_EQ(written_value("\xc0\xaf"), R"("\xc0\xaf")");
  EXPECT_EQ(written_value("\xed\xa0\x80"), R"("\xed\xa0\x80")");
  EXPECT_EQ(written_value("\xf4\x90\x80\x80"), R"("\xf4\x90\x80\x80")");
}

TEST_F(LogTest, JsonLineIsOneObjectWithTypedFields) {
  start(Format::json, Level::info);
  const std::string line = captured([] {
    event(Level::warn, "probe", {{"text", "a \"b\"\nc"}, {"n", 5}, {"x", 0.5}, {"yes", false}});
  });
  EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1);
  const auto object = nlohmann::json::parse(line);
  EXPECT_TRUE(has_form(object.at("time").get<std::string>(), "9999-99-99T99:99:99.999Z")) << line;
  EXPECT_EQ(object.at("level"), "warn");
  EXPECT_EQ(object.at("event"), "probe");
  EXPECT_EQ(object.at("text"), "a \"b\"\nc");
  EXPECT_EQ(object.at("n"), 5);
  EXPECT_EQ(object.at("x"), 0.5);
  EXPECT_EQ(object.at("yes"), false);
}

TEST_F(LogTest, JsonTakesAnyBytesAndStaysAscii) {
  start(Format::json, Level::info);
  const std::string line = captured([] {
    event(Level::info, "probe", {{"v", "a\xff\x1b\x7f\xc2\x9b"}});
  });
  EXPECT_TRUE(std::all_of(line.begin(), line.end() - 1, [](char c) {
    return c >= 0x20 && c < 0x7f;
  })) << line;
  EXPECT_EQ(nlohmann::json::parse(line).at("v"), "a\xef\xbf\xbd\x1b\x7f\xc2\x9b");
}

TEST_F(LogTest, LinesOfSeveralThreadsDoNotMix) {
  constexpr int kThreads = 4;
  constexpr int kLines = 200;
  const std::string padding(300, 'p');
  const std::string all = captured([&] {
    std::vector<std::jthread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < kLines; ++i) event(Level::info, "probe", {{"v", padding}});
      });
    }
  });
  std::istringstream lines(all);
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    EXPECT_TRUE(line.ends_with("Z info  probe v=" + padding)) << line;
  }
  EXPECT_EQ(count, kThreads * kLines);
}

}  // namespace
}  // namespace relay::log
