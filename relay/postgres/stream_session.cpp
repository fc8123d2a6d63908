// SPDX-License-Identifier: Apache-2.0
#include "relay/postgres/stream_session.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

namespace relay::postgres {
namespace {

constexpr std::size_t backends_max = 4;  // the pooler does not close so many at once

}  // namespace

Result<std::unique_ptr<StreamSession>> StreamSession::connect(const std::string& connection,
                                                              Pooler pooler) {
  PgConn conn(PQconnectdb(connection.c_str()));
  if (!conn || PQstatus(conn.get()) != CONNECTION_OK) {
    return error_of("connecting", conn ? PQerrorMessage(conn.get()) : "out of memory", "", true);
  }
  std::unique_ptr<StreamSession> session(new StreamSession(std::move(conn), pooler));
  PQsetNoticeReceiver(session->conn_.get(), &StreamSession::on_notice, session.get());
  if (auto r = session->begin(); !r) return r.error();
  if (PQsetnonblocking(session->conn_.get(), 1) != 0) return session->lost("going non-blocking");
  return session;
}

Result<void> StreamSession::begin() {
  const Deadline deadline(Millis{10'000});
  const bool pooled = pooler_ == Pooler::transaction;
  const std::string mark =
      "select pg_catalog.pg_backend_pid(), pg_catalog.set_config("
      "'outbox_relay.session', '" +
      backend_tag_ + "', false)";
  auto first = query(pooled ? "select 1" : session_settings() + "; " + mark, deadline);
  if (!first) return first.error();
  if (!pooled) backend_pid_ = std::stoll(PQgetvalue(first->get(), 0, 0));
  if (pooled && (backends_.empty() || backends_.front().started_us.empty())) {
    return Error{Fault::refused,
                 "the relay's user may not see in pg_stat_activity when its own backend started",
                 "is there an ALTER ROLE … SET role? Through a pooler, the relay must act as the "
                 "user that logs in"};
  }
  return {};
}

std::int64_t StreamSession::backend_pid() const {
  return backends_.empty() ? backend_pid_ : std::stoll(backends_.front().pid);
}

Millis StreamSession::silence() const {
  tcp_info info{};
  socklen_t size = sizeof info;
  if (::getsockopt(fd(), IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return Millis{0};
  return Millis{info.tcpi_last_data_recv};
}

bool StreamSession::send(const std::string& sql) {
  if (pooler_ == Pooler::none) {
    busy_ = PQsendQuery(conn_.get(), sql.c_str()) == 1;
  } else {
    const std::string first = transaction_settings() + serving_backend_sql(backends_, backend_tag_);
    busy_ = PQsendQuery(conn_.get(), (first + sql).c_str()) == 1;
  }
  return busy_;
}

PgResult StreamSession::next() {
  PgResult result(PQgetResult(conn_.get()));
  if (!result) busy_ = false;
  if (pooler_ == Pooler::transaction && PQntuples(result.get()) == 1 &&
      std::string_view(PQfname(result.get(), 0)) == backend_column) {
    const Backend served{PQgetvalue(result.get(), 0, 0), PQgetvalue(result.get(), 0, 1)};
    std::erase(backends_, served);
    backends_.insert(backends_.begin(), served);
    if (backends_.size() > backends_max) backends_.pop_back();
  }
  return result;
}

void StreamSession::on_notice(void* self, const PGresult* notice) {
  auto* const session = static_cast<StreamSession*>(self);
  const char* const severity = PQresultErrorField(notice, PG_DIAG_SEVERITY_NONLOCALIZED);
  if (!session->warning_ && severity != nullptr && std::string_view(severity) == "WARNING") {
    session->warning_ = trimmed(PQresultErrorField(notice, PG_DIAG_MESSAGE_PRIMARY));
  }
}

std::optional<std::string> StreamSession::take_warning() {
  return std::exchange(warning_, std::nullopt);
}

Error StreamSession::lost(const char* doing) const {
  Error e = error_of(doing, PQerrorMessage(conn_.get()), "", true);
  e.in_doubt = true;
  return e;
}

Result<PgResult> StreamSession::query(const std::string& sql, Deadline deadline) {
  if (!send(sql)) return lost("sending a query");
  return finish("query", deadline);
}

Result<PgResult> StreamSession::execute(const char* name, const std::string& sql,
                                        const std::vector<Parameter>& parameters,
                                        Deadline deadline) {
  if (pooler_ == Pooler::transaction)
    return send(with_literals(sql, parameters)) ? finish(name, deadline) : lost(name);
  if (std::find(prepared_.begin(), prepared_.end(), name) == prepared_.end()) {
    if (PQsendPrepare(conn_.get(), name, sql.c_str(), 0, nullptr) != 1) return lost(name);
    if (auto r = finish(name, deadline); !r) return r;
    prepared_.emplace_back(name);
  }
  std::vector<const char*> values;
  values.reserve(parameters.size());
  for (const auto& p : parameters) values.push_back(p ? p->c_str() : nullptr);
  const int sent = PQsendQueryPrepared(conn_.get(), name, static_cast<int>(values.size()),
                                       values.data(), nullptr, nullptr, 0);
  if (sent != 1) return lost(name);
  return finish(name, deadline);
}

Result<PgResult> StreamSession::finish(const char* doing, Deadline deadline) {
  PgResult last;
  while (true) {
    const int unsent = PQflush(conn_.get());
    if (unsent < 0) return lost(doing);
    while (unsent == 0 && PQisBusy(conn_.get()) == 0) {
      PgResult next = this->next();
      if (!next) {
        if (!last || PQstatus(conn_.get()) != CONNECTION_OK) return lost(doing);
        const auto status = PQresultStatus(last.get());
        if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK) return last;
        const char* const state = PQresultErrorField(last.get(), PG_DIAG_SQLSTATE);
        return error_of(doing, PQresultErrorMessage(last.get()), state != nullptr ? state : "",
                        false);
      }
      // After an error nothing more of the query is run: its result is the one that counts.
      if (!last || PQresultStatus(last.get()) != PGRES_FATAL_ERROR) last = std::move(next);
    }
    if (deadline.passed()) {
      Error e{Fault::postgres, std::string("PostgreSQL, ") + doing + ": no answer in time"};
      e.in_doubt = e.connection_lost = true;
      return e;
    }
    pollfd p{fd(), static_cast<short>(unsent > 0 ? POLLIN | POLLOUT : POLLIN), 0};
    if (::poll(&p, 1, std::max(1, deadline.left_ms())) > 0 && (p.revents & ~POLLOUT) != 0 &&
        PQconsumeInput(conn_.get()) != 1) {
      return lost(doing);
    }
  }
}

}  // namespace relay::postgres
