// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "relay/base/clock.h"
#include "relay/base/uuid.h"
#include "relay/postgres/connection.h"
#include "relay/postgres/pooler.h"

namespace relay::postgres {

// The hot session: one libpq connection, without blocking, on which pages are read and batches are
// opened.
//
//   send()     a query; next() returns its results as they arrive, up to null.
//   query()    the same to its end, with a deadline.
//   execute()  a statement with parameters, prepared when it is first used.
//
// Through a pooler in transaction mode each query is one transaction, whose first statements set
// what the session would, and name the backend that serves it; next() keeps that result to itself.
// Not thread safe.
class StreamSession {
 public:
  static Result<std::unique_ptr<StreamSession>> connect(const std::string& connection,
                                                        Pooler pooler = Pooler::none);

  int fd() const { return PQsocket(conn_.get()); }
  // Names the backend behind this session, as its setting outbox_relay.session: it is gone with the
  // backend. A process id could return after a restart of the server, and the one that libpq knows
  // may be the pooler's. Through a pooler, the tag names all backends that this session was given,
  // as long as the server they belong to has not crashed: see serving_backend_sql().
  const std::string& backend_tag() const { return backend_tag_; }
  PGconn* raw() const { return conn_.get(); }

  // The process that serves the statement under way, or served the last one.
  std::int64_t backend_pid() const;
  // How long ago the server sent anything; zero where the operating system does not say.
  Millis silence() const;

  // Sends a simple query; its results are those of next(), with some in front through a pooler.
  // False: the connection is broken.
  bool send(const std::string& sql);
  PgResult next();
  // Whether a query was sent whose last result next() has not returned yet: nothing else can be
  // sent.
  bool busy() const { return busy_; }

  // Runs a simple query to its end and returns the last result. An answer that does not come in
  // time makes the session unusable, and the error in doubt.
  Result<PgResult> query(const std::string& sql, Deadline deadline);

  // Runs a statement, prepared on this session under `name` when it is first used, unless there is
  // a pooler.
  Result<PgResult> execute(const char* name, const std::string& sql,
                           const std::vector<Parameter>& parameters, Deadline deadline);

  // The first warning since the last call, if any. A cancelled wait for the synchronous standby
  // shows only here.
  std::optional<std::string> take_warning();

 private:
  StreamSession(PgConn conn, Pooler pooler) : conn_(std::move(conn)), pooler_(pooler) {}
  Result<void> begin();
  Result<PgResult> finish(const char* doing, Deadline deadline);
  Error lost(const char* doing) const;
  static void on_notice(void* self, const PGresult* notice);

  PgConn conn_;
  const Pooler pooler_;
  std::vector<Backend> backends_;  // through a pooler: that served last, all of one life of the
                                   // server; the last one first
  bool busy_ = false;
  const std::string backend_tag_ = Uuid::random().text();
  std::int64_t backend_pid_ = 0;  // without a pooler
  std::optional<std::string> warning_;
  std::vector<std::string> prepared_;
};

}  // namespace relay::postgres
