// SPDX-License-Identifier: Apache-2.0
// Effects at providers that fail: executed by workers with the real adapters, and checked by the
// providers' own log.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <random>
#include <string>

#include "outbox/effect_worker.h"
#include "tests/support/effect_checker.h"

namespace relay::test {

class EffectTrials {
 public:
  enum class Kind { charges, charges_without_keys, uploads, mail_held, mail_resent };
  static constexpr std::array<Kind, 5> kinds{Kind::charges, Kind::charges_without_keys,
                                             Kind::uploads, Kind::mail_held, Kind::mail_resent};
  static const char* name(Kind kind);

  explicit EffectTrials(ScratchPostgres& postgres) : db_(postgres) {}

  // 18 effects of this kind with one or two faults each: returns when none is left that a rule
  // resolves, or it is too late.
  EffectReport round(Kind kind, int number, std::mt19937_64& random);
  TestOutbox& db() { return db_; }

 private:
  using Json = FakeProviders::Json;

  std::vector<PlannedEffect> plans(Kind kind, int number) const;
  std::unique_ptr<outbox::Provider> adapter(Kind kind) const;
  void execute(Kind kind, const std::string& provider, EffectReport& found);

  TestLedger db_;
  FakeProviders providers_;
};

}  // namespace relay::test
