// SPDX-License-Identifier: Apache-2.0
// Consumers that are killed around the commit of their inbox, and what became of the messages.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "tests/support/consuming.h"
#include "tests/support/effect_report.h"
#include "tests/support/test_inbox.h"

namespace relay::test {

class DyingConsumers {
 public:
  enum class Company {
    none,    // the next one comes back under the name of the one that died, and gets its partitions
             // at once
    steady,  // another consumer lives all the time, and takes the partitions over when the group
             // has missed the dead one
  };
  // REQUIRES: in company, a broker that allows sessions of 2 s.
  DyingConsumers(ScratchPostgres& postgres, ScratchKafka& kafka, Company company);

  // A consumer lives while records arrive, some of them twice, and dies.
  void one_dies(std::uint64_t lot, const Process::Environment& environment = {});
  // Returns when each record has its effect, or it is too late. `asked` and `executed` count
  // from the last call on.
  EffectReport check_delivery(Millis within = Millis{60'000});
  TestOutbox& db() { return db_; }

 private:
  void produce(int count);
  outbox::ConsumerOptions options() const;
  std::int64_t count(const std::string& what) { return std::stoll(db_.value("select " + what)); }

  TestInbox db_;
  ScratchKafka& kafka_;
  const Company company_;
  const std::string dsn_;
  const std::string topic_;
  int produced_ = 0;
  EffectReport found_;
  std::int64_t asked_before_ = 0, executed_before_ = 0;
  std::optional<RunningConsumer> steady_;
};

}  // namespace relay::test
