// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>

#include "relay/core/ports.h"
#include "relay/postgres/options.h"
#include "relay/postgres/pqxx_session.h"
#include "relay/postgres/stream_session.h"

namespace relay::postgres {

// The database of one relay process: its two sessions, which PgReader, PgJournal and PgLease use.
//
//   hot       reads pages and opens batches, because only there a snapshot and the pages read by it
//             are known to be from the same unbroken server.
//   control   everything else.
//
// Used by the loop's thread.
class PgDatabase : public Database {
 public:
  explicit PgDatabase(const Options& options) : options_(options) {}

  // Closes both sessions, opens new ones and makes the start-up checks. After an error there is no
  // session.
  Result<Identity> connect() override;

  // REQUIRES: the last connect() has succeeded.
  StreamSession& hot() { return *hot_; }
  PqxxSession& control() { return *control_; }
  // Of the server that connect() found last.
  const Identity& identity() const { return identity_; }
  // Rises with each hot session: what was read on an earlier one is void.
  std::int64_t generation() const { return generation_; }
  // The socket on which an answer to the hot session is due, or -1.
  int fd() const { return hot_ && hot_->busy() ? hot_->fd() : -1; }

  // From now on this is the hot session. For tests of the reader alone, which need no checks.
  void use(std::unique_ptr<StreamSession> hot);

 private:
  const Options& options_;
  std::unique_ptr<StreamSession> hot_;
  std::unique_ptr<PqxxSession> control_;
  Identity identity_;
  std::int64_t generation_ = 0;
};

}  // namespace relay::postgres
