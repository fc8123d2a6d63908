// SPDX-License-Identifier: Apache-2.0
// A cancelled wait for the synchronous standby shows only as a warning, so both kinds of session
// must hear warnings.
#include <gtest/gtest.h>

#include "relay/postgres/pqxx_session.h"
#include "relay/postgres/stream_session.h"
#include "tests/support/scratch_servers.h"

namespace relay::postgres {
namespace {

constexpr const char* notice = "do $$ begin raise notice 'unimportant'; end $$";
constexpr const char* warning = "do $$ begin raise warning 'first'; raise warning 'second'; end $$";

TEST(SessionTest, TheControlSessionHearsTheFirstWarningOnce) {
  auto control = PqxxSession::connect(test::shared_postgres().dsn());
  ASSERT_TRUE(control) << control.error().text();
  ASSERT_TRUE((*control)->run("noticing", notice));
  EXPECT_FALSE((*control)->take_warning());
  ASSERT_TRUE((*control)->run("warning", warning));
  const auto heard = (*control)->take_warning();
  ASSERT_TRUE(heard);
  EXPECT_NE(heard->find("first"), std::string::npos) << *heard;
  EXPECT_FALSE((*control)->take_warning());
}

TEST(SessionTest, TheHotSessionHearsTheFirstWarningOnce) {
  auto session = StreamSession::connect(test::shared_postgres().dsn());
  ASSERT_TRUE(session) << session.error().text();
  ASSERT_TRUE((*session)->query(notice, Deadline(Millis{10'000})));
  EXPECT_FALSE((*session)->take_warning());
  ASSERT_TRUE((*session)->query(warning, Deadline(Millis{10'000})));
  EXPECT_EQ((*session)->take_warning(), "first");
  EXPECT_FALSE((*session)->take_warning());
}

}  // namespace
}  // namespace relay::postgres
