// SPDX-License-Identifier: Apache-2.0
// What became of effects that were asked for, of messages or of providers. All but the first three
// are zero if all is well.
#pragma once

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

namespace relay::test {

struct EffectReport {
  std::int64_t asked = 0;
  std::int64_t executed = 0;      // at least once
  std::int64_t needs_review = 0;  // doubts that an operator must resolve
  std::int64_t repeated = 0;      // further times
  std::int64_t lost = 0;          // never executed, and nobody was notified
  std::int64_t reordered = 0;
  std::int64_t stuck = 0;    // not settled in time, or a doubt that is nobody's
  std::int64_t journal = 0;  // the inbox or the ledger says what is not so
  std::int64_t exits =
      0;  // processes that ended otherwise than they should, and errors that were reported
  std::vector<std::string> examples{};  // of what is wrong, the first few

  bool good() const {
    return asked > 0 && repeated + lost + reordered + stuck + journal + exits == 0;
  }

  // Adds `how_many` to what is wrong.
  void wrong(std::int64_t EffectReport::*what, const std::string& example,
             std::int64_t how_many = 1) {
    this->*what += how_many;
    if (how_many > 0 && examples.size() < 5) examples.push_back(example);
  }
};

inline std::ostream& operator<<(std::ostream& out, const EffectReport& f) {
  out << "asked " << f.asked << ", executed " << f.executed << ", left to an operator "
      << f.needs_review << ", repeated " << f.repeated << ", lost " << f.lost << ", reordered "
      << f.reordered << ", stuck " << f.stuck << ", journal " << f.journal << ", exits " << f.exits;
  for (const std::string& example : f.examples) out << "; " << example;
  return out;
}

}  // namespace relay::test
