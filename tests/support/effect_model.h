// SPDX-License-Identifier: Apache-2.0
// The rules of the effect ledger once more, in C++ and without a database; and a random run that
// compares the two.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/test_ledger.h"

namespace relay::test {

struct ModelRules {
  bool hold = true;    // in_doubt_policy
  bool window = true;  // the provider deduplicates by its key
  bool supports_lookup = false;
  int in_doubt_attempts_max = 3;
};

struct ModelAttempt {
  std::string kind;
  std::string phase{};  // empty: not finished
  std::string answer{};
  bool late = false;
};

class ModelEffect {
 public:
  enum class Key { none, live, dead };

  std::string state = "planned";
  std::int64_t epoch = 0;
  int generation = 1;
  int doubts = 0;
  Key key = Key::none;
  bool doubtful = false;  // some attempt is in doubt, or was when the effect was settled
  bool overdue = false;   // its claim has expired, and nobody has looked yet
  std::string evidence{};
  std::map<std::int64_t, ModelAttempt> attempts{};

  // What claim() makes of it when it is its turn: the kind of the attempt, or nothing if no attempt
  // is made.
  std::optional<std::string> take(const ModelRules& rules);
  // What claim() makes of it when its claim has expired.
  void expire(const ModelRules& rules);
  // Returns what settle() must return.
  std::string settle(const ModelRules& rules, std::int64_t of, const std::string& phase,
                     const std::string& answer, bool breaker_open);
  // Returns the new state, or nothing if the decision must be refused.
  std::optional<std::string> resolve(const ModelRules& rules, const std::string& resolution);

 private:
  std::string next_step(const ModelRules& rules) const;
  bool executed() const;
  void settled(const std::string& how, const std::string& why);
  std::string doubt(const ModelRules& rules, bool counts);
};

// Random operations against a ledger and the model. Returns what the model objects to first, or
// nothing.
std::optional<std::string> compare_with_model(TestLedger& db, std::uint64_t seed, int rounds);

}  // namespace relay::test
