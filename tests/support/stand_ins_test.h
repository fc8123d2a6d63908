// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>

#include "tests/support/providers.h"

namespace relay::test {

// Tests of one suite share their stand-ins, and each uses keys of its own.
class StandInsTest : public ::testing::Test {
 protected:
  using Json = StandIns::Json;

  // `at`: the server that faults are for.
  explicit StandInsTest(const char* at) : at_(at) {}
  static void SetUpTestSuite() { stand_ins = std::make_unique<StandIns>(); }
  static void TearDownTestSuite() { stand_ins.reset(); }

  static Provider::Deadline in(std::chrono::milliseconds time) { return std::chrono::steady_clock::now() + time; }
  // So that the log of one test is not the log of another.
  std::string new_name() { return std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()) + "-" + std::to_string(++count_); }
  void fault(const Request& request, Json fault) const {
    fault["at"] = at_;
    fault["match"] = request.provider_key;
    stand_ins->fault(fault);
  }

  inline static std::unique_ptr<StandIns> stand_ins;

 private:
  const char* const at_;
  int count_ = 0;
};

}  // namespace relay::test
