// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "relay/core/ports.h"
#include "relay/postgres/database.h"
#include "relay/postgres/options.h"
#include "relay/postgres/page_query.h"

namespace relay::postgres {

// Reads outbox.message by differences of snapshots, on the hot session. A page takes these steps,
// each of which sends one query and goes on when its answer has come:
//
//   polling   take a snapshot; nothing more if no transaction has ended since the base
//   counting  are there more fresh rows than fit into one page?
//   seeking   if so: from which seq on
//   copying   the rows, as binary COPY; they stay where libpq put them, and belong to the page
//   ending    the result of the COPY
//
// What it knows beyond the journal (a base advanced over empty differences, a page read ahead)
// holds only for the session in which it was read; behind PgDatabase::connect() it is forgotten,
// and reset() must follow. Used by the loop's thread; only reread() blocks.
//
// A statement may take long. One whose answer stops coming although the server does not work on it
// has lost its connection, and is an error.
class PgReader : public Reader {
 public:
  PgReader(const Options& options, PgDatabase& database) : options_(options), database_(database) {}

  void reset(const Cursor& cursor) override;
  Result<void> want() override;
  Result<bool> advance() override;
  std::optional<Page> take() override;
  Result<Page> reread(const Batch& batch) override;

 private:
  enum class Step { idle, polling, counting, seeking, copying, ending, done };

  // Whether a statement is under way, so that the session cannot be used for another.
  bool busy() const { return step_ != Step::idle && step_ != Step::done; }
  void follow_session();
  Result<void> send(Step step, const std::string& sql);
  Result<void> start_copy();
  Result<void> check_silence();
  Result<void> cut_copy_short();
  Result<bool> finish_statement();
  Result<void> on_answer();
  Result<void> on_poll();
  Result<void> on_count();
  Result<void> on_seek();
  Result<bool> read_rows();
  Result<bool> on_copy();
  Result<bool> on_end();
  Result<void> wait(Deadline deadline);
  void nothing_found(const Snapshot& upto);
  std::int64_t row_limit() const;
  bool metered() const;

  const Options& options_;
  PgDatabase& database_;
  std::int64_t generation_ = 0;  // of the session that is read on
  Cursor cursor_;
  Step step_ = Step::idle;
  Clock::time_point asked_at_{};  // of the statement under way: sent, or found to be worked on
  PgResult answer_;               // of the statement under way
  std::optional<Page> page_;      // being read, or read
  std::int64_t limit_ = 0;        // row limit of the statement under way
  std::int64_t bytes_max_ = 0;    // and its byte bound
  bool cut_ = false;              // the page is full: rows behind it were discarded
  std::int64_t discarded_bytes_ = 0;
  bool cancelled_ = false;  // the COPY under way: far too much would have to be discarded
  std::int64_t bytes_per_message_ = 0;  // average seen; 0: not known yet
};

}  // namespace relay::postgres
