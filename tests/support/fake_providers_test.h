// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>

#include "tests/support/providers.h"

namespace relay::test {

// Tests of one suite share their fakes, and each uses keys of its own.
class FakeProvidersTest : public ::testing::Test {
 protected:
  using Json = FakeProviders::Json;

  // `at`: the server that faults are for.
  explicit FakeProvidersTest(const char* at) : at_(at) {}
  static void SetUpTestSuite() { fakes = std::make_unique<FakeProviders>(); }
  static void TearDownTestSuite() { fakes.reset(); }

  static outbox::Provider::Deadline in(std::chrono::milliseconds time) {
    return outbox::BootClock::now() + time;
  }
  // So that the log of one test is not the log of another.
  std::string new_name() {
    return std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()) + "-" +
           std::to_string(++count_);
  }
  void fault(const outbox::Request& request, Json fault) const {
    fault["at"] = at_;
    fault["match"] = request.provider_key;
    fakes->fault(fault);
  }

  inline static std::unique_ptr<FakeProviders> fakes;

 private:
  const char* const at_;
  int count_ = 0;
};

}  // namespace relay::test
