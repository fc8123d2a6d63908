// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "relay/core/ports.h"
#include "relay/postgres/options.h"
#include "relay/postgres/reader.h"
#include "relay/postgres/session.h"

namespace outbox::postgres {

// The journal in outbox.batch and outbox.parked, and the owner of the relay's two sessions.
//
// open() runs on the reader's session, because only there a snapshot and the pages read by it are known to be from the same
// unbroken server; everything else runs on the control session, open_release() as well: nothing was read before it.
class PgJournal : public Journal {
 public:
  PgJournal(const Options& options, Reader& reader) : options_(options), reader_(reader) {}

  Result<Identity> connect() override;
  Result<std::optional<Batch>> newest() override;
  Result<std::optional<Predecessor>> before(std::int64_t number) override;
  Result<bool> knows(const Uuid& token) override;
  Result<void> open(Batch& next, std::span<const Rejection> parked, const std::optional<Confirmed>& confirmed,
                    bool renew_lease) override;
  Result<bool> open_release(Batch& next, const std::optional<Confirmed>& confirmed) override;
  Result<void> mark(std::int64_t epoch, const Confirmed& confirmed) override;
  Result<void> park(std::int64_t epoch, const Batch& batch, std::span<const Rejection> parked) override;
  Result<std::vector<std::string>> topics_with_blocked_keys() override;
  Result<std::vector<std::size_t>> blocked(std::int64_t number, std::span<const Message* const> messages) override;

  // REQUIRES: connect() has succeeded.
  Control& control() { return *control_; }
  bool connected() const { return control_ != nullptr; }
  // Of the database that connect() found last.
  const Identity& identity() const { return identity_; }
  // The hot session's socket, or -1.
  int fd() const { return hot_ ? hot_->fd() : -1; }

 private:
  Error why_not_opened(const Batch& next);
  Result<bool> holds_lease(std::int64_t epoch);

  const Options& options_;
  Reader& reader_;
  std::unique_ptr<Session> hot_;
  std::unique_ptr<Control> control_;
  Identity identity_;
};

// The columns of outbox.batch b that batch_of() reads, in their order.
extern const char* const batch_columns;
// A row of the journal, whose columns begin with number `first` of `row`.
//   refused   a snapshot or a word that this relay does not know.
Result<Batch> batch_of(const pqxx::row& row, int first = 0);

// {"topic": {"partition": [first, last]}}
std::string offsets_json(const Offsets& offsets);

}  // namespace outbox::postgres
