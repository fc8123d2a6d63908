// SPDX-License-Identifier: Apache-2.0
#include "relay/postgres/reader.h"

#include <poll.h>

#include <algorithm>
#include <limits>

#include "common/check.h"
#include "relay/base/mutants.h"
#include "relay/postgres/copy_rows.h"
#include "relay/postgres/statements.h"

namespace relay::postgres {
namespace {

constexpr std::int64_t metered_above_bytes =
    2048;  // from this average on, the server's running sum costs less than overshoot
constexpr std::int64_t discard_pages_max =
    4;  // more than this overshoot is not worth reading to its end
constexpr Millis reread_deadline{120'000};
constexpr Millis silence_max{10'000};
constexpr std::string_view query_canceled = "57014";

void free_copy_data(void* data) { PQfreemem(data); }

}  // namespace

// Forgets what was read, if the session is another.
void PgReader::follow_session() {
  if (generation_ == database_.generation()) return;
  generation_ = database_.generation();
  step_ = Step::idle;
  answer_.reset();
  page_.reset();
}

void PgReader::reset(const Cursor& cursor) {
  follow_session();
  CHECK(!busy());
  cursor_ = cursor;
  step_ = Step::idle;
  page_.reset();
}

std::int64_t PgReader::row_limit() const {
  if (bytes_per_message_ == 0) return options_.batch_messages_max;
  const std::int64_t fit = options_.batch_bytes_max / bytes_per_message_;
  return std::clamp<std::int64_t>(fit + fit / 4 + 16, 1, options_.batch_messages_max);
}

bool PgReader::metered() const {
  return bytes_per_message_ == 0 || bytes_per_message_ > metered_above_bytes;
}

Result<void> PgReader::send(Step step, const std::string& sql) {
  answer_.reset();
  if (!database_.hot().send(sql) || PQflush(database_.hot().raw()) < 0) {
    return error_of("reading messages", PQerrorMessage(database_.hot().raw()), "", true);
  }
  step_ = step;
  asked_at_ = Clock::now();
  return {};
}

// What lies between us and the server can lose one connection and acknowledge it for ever, while
// the lease is renewed on another.
Result<void> PgReader::check_silence() {
  if (Clock::now() - asked_at_ < silence_max || database_.hot().silence() < silence_max) return {};
  auto working = database_.control().run("looking for the backend that reads", sql::working_backend,
                                         database_.hot().backend_pid());
  if (!working) return working.error();
  if (working->empty()) {
    return error_of("reading messages",
                    "no answer for " + std::to_string(silence_max.count() / 1'000) +
                        " s, and the server does not work on one: the connection is dead",
                    "", true);
  }
  asked_at_ = Clock::now();
  return {};
}

Result<void> PgReader::want() {
  follow_session();
  if (step_ != Step::idle) return {};
  limit_ = row_limit();
  if (cursor_.upto) return start_copy();
  return send(Step::polling, poll_sql);
}

Result<void> PgReader::start_copy() {
  const PageBounds bounds{.base = cursor_.base,
                          .upto = *cursor_.upto,
                          .fresh_from = cursor_.fresh_from,
                          .after_seq = cursor_.after_seq};
  bytes_max_ = options_.batch_bytes_max;
  PageQuery q{.bounds = bounds, .limit = limit_, .message_bytes_max = options_.message_bytes_max};
  if (metered()) q.bytes_max = bytes_max_;
  q.headers_counted = bytes_per_message_ != 0;  // the limit is a guess
  page_.emplace();
  page_->bounds = bounds;
  page_->messages.reserve(static_cast<std::size_t>(limit_));
  page_->owned.reserve(static_cast<std::size_t>(limit_));
  cut_ = false;
  discarded_bytes_ = 0;
  cancelled_ = false;
  return send(Step::copying, page_sql(q));
}

// True when the statement under way has come to its end; its last result is then in answer_.
Result<bool> PgReader::finish_statement() {
  PGconn* const c = database_.hot().raw();
  while (PQisBusy(c) == 0) {
    PgResult next = database_.hot().next();
    if (!next) {
      if (PQstatus(c) != CONNECTION_OK || !answer_)
        return error_of("reading messages", PQerrorMessage(c), "", true);
      if (PQresultStatus(answer_.get()) != PGRES_FATAL_ERROR) return true;
      const char* const state = PQresultErrorField(answer_.get(), PG_DIAG_SQLSTATE);
      step_ = Step::idle;
      page_.reset();
      if (cancelled_ && state != nullptr && std::string_view(state) == query_canceled) {
        bytes_per_message_ = metered_above_bytes + 1;
        if (auto r = start_copy(); !r) return r.error();
        return false;
      }
      return error_of("reading messages", PQresultErrorMessage(answer_.get()),
                      state != nullptr ? state : "", false);
    }
    const bool rows_follow = PQresultStatus(next.get()) == PGRES_COPY_OUT;
    if (!answer_ || PQresultStatus(answer_.get()) != PGRES_FATAL_ERROR) answer_ = std::move(next);
    if (rows_follow) return false;
  }
  return false;
}

Result<bool> PgReader::advance() {
  follow_session();
  if (step_ == Step::done) return true;
  if (step_ == Step::idle) return false;
  if (PQflush(database_.hot().raw()) < 0 || PQconsumeInput(database_.hot().raw()) != 1) {
    return error_of("reading messages", PQerrorMessage(database_.hot().raw()), "", true);
  }
  if (auto r = check_silence(); !r) return r.error();
  if (step_ == Step::copying) return on_copy();
  if (step_ == Step::ending) return on_end();
  auto finished = finish_statement();
  if (!finished || !*finished) return finished;
  if (auto r = on_answer(); !r) return r.error();
  return step_ == Step::done;
}

Result<void> PgReader::on_answer() {
  switch (step_) {
    case Step::polling: return on_poll();
    case Step::counting: return on_count();
    default: return on_seek();
  }
}

void PgReader::nothing_found(const Snapshot& upto) {
  cursor_ = Cursor{.base = upto};
  page_.reset();
  step_ = Step::done;
}

// No snapshot that ever was: the first one, with what has finished since the second. For tests of
// what that breaks.
static Snapshot late_alone(const Snapshot& first, const Snapshot& second) {
  if (Difference::between(first, second).late.empty()) return second;
  std::string running;
  for (const Xid xid : first.running()) {
    if (!second.finished(xid)) running += (running.empty() ? "" : ",") + std::to_string(xid);
  }
  return Snapshot::parse(std::to_string(first.xmin()) + ":" + std::to_string(first.xmax()) + ":" +
                         running)
      .value_or(second);
}

Result<void> PgReader::on_poll() {
  auto upto = Snapshot::parse(PQgetvalue(answer_.get(), 0, 0));
  if (!upto)
    return Error{Fault::refused, "PostgreSQL printed a snapshot that this relay cannot read"};
  if (MUTANT(synthesised_snapshot)) upto = late_alone(cursor_.base, *upto);
  const Difference difference = Difference::between(cursor_.base, *upto);
  if (difference.empty()) {
    nothing_found(*upto);
    return {};
  }
  cursor_ = Cursor{.base = cursor_.base, .upto = std::move(upto)};
  if (difference.fresh.empty()) return start_copy();
  return send(Step::counting, count_fresh_sql(cursor_.base, *cursor_.upto, limit_));
}

Result<void> PgReader::on_count() {
  const std::int64_t fresh_rows = std::stoll(PQgetvalue(answer_.get(), 0, 0));
  if (fresh_rows > limit_) return send(Step::seeking, fresh_from_sql(cursor_.base, *cursor_.upto));
  if (fresh_rows == 0 && Difference::between(cursor_.base, *cursor_.upto).late.empty()) {
    nothing_found(*cursor_.upto);
    return {};
  }
  return start_copy();
}

Result<void> PgReader::on_seek() {
  if (PQgetisnull(answer_.get(), 0, 0) == 0)
    cursor_.fresh_from = std::stoll(PQgetvalue(answer_.get(), 0, 0));
  return start_copy();
}

// Takes the rows that have arrived; true when the COPY has come to its end. Rows behind the byte
// bound are discarded. The first is taken whatever its size.
Result<bool> PgReader::read_rows() {
  Page& page = *page_;
  PGconn* const c = database_.hot().raw();
  while (true) {
    char* data = nullptr;
    const int size = PQgetCopyData(c, &data, 1);
    if (size == 0) return false;
    if (size == -1) return true;
    if (size < -1) return error_of("reading messages", PQerrorMessage(c), "", true);
    OwnedBytes owned(data, &free_copy_data);
    cut_ = cut_ || (!page.messages.empty() && page.bytes + size > bytes_max_);
    if (cut_) {
      discarded_bytes_ += size;
      continue;
    }
    auto row = decode_row({data, static_cast<std::size_t>(size)}, page);
    if (!row) return row.error();
    if (!*row) continue;
    const Message& m = **row;
    CHECK(page.messages.empty() || m.seq > page.messages.back().seq || MUTANT(order_by_txid));
    page.bytes +=
        size + (m.oversize ? m.payload_bytes
                           : 0);  // what stays on the server is parked there in one statement
    page.messages.push_back(m);
    page.owned.push_back(std::move(owned));
  }
}

// Sizes grew suddenly: the page is read again with a bound that the server keeps. A cancel that
// comes too late meets an idle backend, which ignores it, because it is sent before the next
// statement. A pooler could have given the backend to somebody else.
Result<void> PgReader::cut_copy_short() {
  if (options_.pooler == Pooler::transaction) {
    bytes_per_message_ = metered_above_bytes + 1;
    return error_of("reading messages", "sizes grew suddenly; starting again with smaller pages",
                    "", true);
  }
  cancelled_ = true;
  const auto sent = database_.control().run("cutting a page short", "select pg_cancel_backend($1)",
                                            database_.hot().backend_pid());
  return sent ? Result<void>{} : sent.error();
}

Result<bool> PgReader::on_copy() {
  if (!answer_ || PQresultStatus(answer_.get()) != PGRES_COPY_OUT) {
    if (auto r = finish_statement(); !r) return r;
    if (!answer_ || PQresultStatus(answer_.get()) != PGRES_COPY_OUT) return false;
  }
  auto ended = read_rows();
  if (!ended) return ended;
  if (!*ended) {
    if (cancelled_ || discarded_bytes_ <= discard_pages_max * bytes_max_) return false;
    if (auto r = cut_copy_short(); !r) return r.error();
    return false;
  }
  answer_.reset();
  step_ = Step::ending;
  return on_end();
}

// Behind the last row comes the completion of the COPY.
Result<bool> PgReader::on_end() {
  auto finished = finish_statement();
  if (!finished || !*finished) return finished;
  Page& page = *page_;
  const auto rows = static_cast<std::int64_t>(page.messages.size());
  page.bounds.exhausted = rows < limit_ && page.bytes < bytes_max_ && !cut_;
  if (rows == 0) {
    nothing_found(page.bounds.upto);
    return true;
  }
  page.bounds.upto_seq = page.messages.back().seq;
  bytes_per_message_ = std::max<std::int64_t>(1, page.bytes / rows);
  cursor_ = page.bounds.next();
  step_ = Step::done;
  return true;
}

std::optional<Page> PgReader::take() {
  CHECK(step_ == Step::done);
  step_ = Step::idle;
  return std::exchange(page_, std::nullopt);
}

// Blocks until the statement under way has ended.
Result<void> PgReader::wait(Deadline deadline) {
  while (true) {
    auto news = advance();
    if (!news) return news.error();
    if (*news) return {};
    if (deadline.passed()) return error_of("reading messages", "no answer in time", "", true);
    pollfd p{database_.hot().fd(), POLLIN, 0};
    ::poll(&p, 1, std::max(1, deadline.left_ms()));
  }
}

Result<Page> PgReader::reread(const Batch& batch) {
  follow_session();
  CHECK(!busy());
  const Deadline deadline(reread_deadline);
  auto parked = database_.hot().query(
      "select count(*) from outbox.parked p where p.parked_for = " + std::to_string(batch.number),
      deadline);
  if (!parked) return parked.error();
  const std::int64_t expected = batch.messages - std::stoll(PQgetvalue(parked->get(), 0, 0));

  const Cursor kept = cursor_;
  const std::int64_t kept_average = bytes_per_message_;
  page_ = Page{.bounds = batch.bounds};
  limit_ = batch.messages;
  cut_ = cancelled_ = false;
  bytes_max_ =
      std::numeric_limits<std::int64_t>::max() / discard_pages_max;  // a re-read is never cut
  const PageQuery q{.bounds = batch.bounds,
                    .ends = true,
                    .without_parked_for = batch.number,
                    .limit = batch.messages,
                    .message_bytes_max = options_.message_bytes_max};
  const std::string sql =
      batch.release ? release_sql(batch.number, options_.message_bytes_max) : page_sql(q);
  if (auto r = send(Step::copying, sql); !r) return r.error();
  if (auto r = wait(deadline); !r) return r.error();
  Page page = page_ ? std::move(*page_) : Page{};
  page.bounds.exhausted = batch.bounds.exhausted;
  page.bounds.upto_seq = batch.bounds.upto_seq;
  page_.reset();
  cursor_ = kept;
  bytes_per_message_ = kept_average;
  step_ = Step::idle;
  if (static_cast<std::int64_t>(page.messages.size()) != expected) {
    return Error{Fault::refused,
                 "batch " + std::to_string(batch.number) + " had " + std::to_string(expected) +
                     " messages to send, and now " + std::to_string(page.messages.size()) +
                     " are visible: something deleted or hid rows of " +
                     (batch.release ? "outbox.parked" : "outbox.message"),
                 "find out what removed them (a trigger, a policy, a DELETE, TRUNCATE or restore) "
                 "before the relay is started again"};
  }
  return page;
}

}  // namespace relay::postgres
