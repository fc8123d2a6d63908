// SPDX-License-Identifier: Apache-2.0
// Compares what the shop committed with what providers executed, by the providers' own log. The
// ledger is asked only for what it was in doubt about.
#pragma once

#include <array>
#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

namespace relay::test {

// Counts effects of one kind.
struct EffectsOfKind {
  std::string kind;               // emails, charges or uploads
  std::int64_t asked = 0;         // rows of shop.effect
  std::int64_t executed = 0;      // asked, and in the log
  std::int64_t repeated = 0;      // further times in the log
  std::int64_t lost = 0;          // asked, and not in the log
  std::int64_t ghosts = 0;        // in the log, and not asked
  std::int64_t in_doubt = 0;      // of which the ledger once did not know
  std::int64_t resolved = 0;      // of those: done or failed now
  std::int64_t contradicted = 0;  // done in the ledger and not in the log, or failed and in the log
};

struct EffectsVerdict {
  std::array<EffectsOfKind, 3> kinds{
      {{.kind = "emails"}, {.kind = "charges"}, {.kind = "uploads"}}};
  static constexpr std::size_t examples_max = 10;
  std::vector<std::string> examples{};  // of what is wrong, the first few

  bool good() const;
};

// `log` is a file of JSON lines as tests/support/providers.py writes them. Throws when a server
// does not answer, or the log cannot be read.
EffectsVerdict check_effects(const std::string& dsn, const std::string& log);

// Prints the closing table.
std::ostream& operator<<(std::ostream& out, const EffectsVerdict& verdict);

}  // namespace relay::test
