// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "relay/core/ports.h"
#include "relay/postgres/database.h"
#include "relay/postgres/options.h"

namespace relay::postgres {

// The journal in outbox.batch and outbox.parked.
//
// open() runs on the hot session, because only there a snapshot and the pages read by it are known
// to be from the same unbroken server; everything else runs on the control session, open_release()
// as well: nothing was read before it. Used by the loop's thread.
class PgJournal : public Journal {
 public:
  PgJournal(const Options& options, PgDatabase& database)
      : options_(options), database_(database) {}

  Result<std::optional<Batch>> newest() override;
  Result<std::optional<Predecessor>> before(std::int64_t number) override;
  Result<bool> knows(const Uuid& token) override;
  Result<void> open(Batch& next, std::span<const Rejection> parked,
                    const std::optional<Confirmed>& confirmed, bool renew_lease) override;
  Result<bool> open_release(Batch& next, const std::optional<Confirmed>& confirmed) override;
  Result<void> mark_delivered(std::int64_t epoch, const Confirmed& confirmed) override;
  Result<void> park(std::int64_t epoch, const Batch& batch,
                    std::span<const Rejection> parked) override;
  Result<std::vector<std::string>> topics_with_blocked_keys(std::size_t count_max) override;
  Result<std::vector<std::size_t>> blocked(std::int64_t number,
                                           std::span<const Message* const> messages) override;

 private:
  Error why_not_opened(const Batch& next);
  Result<bool> holds_lease(std::int64_t epoch);
  std::vector<Parameter> open_parameters(const Batch& next, std::span<const Rejection> parked,
                                         const std::optional<Confirmed>& confirmed,
                                         bool renew_lease);
  PqxxSession& control() { return database_.control(); }

  const Options& options_;
  PgDatabase& database_;
};

// A row of the journal, whose columns are those of sql/relay/batch_columns.sql, and begin with
// number `first` of `row`.
//   refused   a snapshot or a word that this relay does not know.
Result<Batch> batch_of(const pqxx::row& row, int first = 0);

// {"topic": {"partition": [first, last]}}
std::string offsets_json(const Offsets& offsets);

}  // namespace relay::postgres
