// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/database_ports.h"

#include <algorithm>
#include <array>

#include "common/check.h"
#include "relay/base/mutants.h"

namespace relay::sim {
namespace {

constexpr std::string_view topic = "t";
constexpr std::array<std::string_view, 4> key_names = {"0", "1", "2", "3"};

int key_of(const Message& m) { return m.key ? m.key->front() - '0' : no_key; }

Message message_of(const Row& r) {
  Message m;
  m.seq = r.seq;
  for (std::size_t i = 0; i < 4; ++i) m.id.bytes[i] = static_cast<std::uint8_t>(r.id >> (8 * i));
  m.id.bytes[4] = static_cast<std::uint8_t>(r.trait);
  m.topic = topic;
  if (r.key != no_key) m.key = key_names[static_cast<std::size_t>(r.key)];
  m.oversize = r.trait == Trait::too_large;
  return m;
}

bool by_seq(const Row& a, const Row& b) { return a.seq < b.seq; }
bool by_xid(const Row& a, const Row& b) {
  return std::pair(a.xid, a.seq) < std::pair(b.xid, b.seq);
}

// The definition: rows visible in upto and not in base, behind after_seq, by seq.
std::vector<Row> difference(const PostgresModel& database, const Snapshot& base,
                            const Snapshot& upto, std::int64_t after_seq) {
  std::vector<Row> rows;
  for (const Row& r : database.now.messages) {
    const bool is_new =
        MUTANT(position_is_highest_seq) ? r.xid >= base.xmax() : !base.finished(r.xid);
    if (r.seq > after_seq && is_new && upto.finished(r.xid) && database.committed(r.xid))
      rows.push_back(r);
  }
  std::sort(rows.begin(), rows.end(), MUTANT(order_by_txid) ? by_xid : by_seq);
  return rows;
}

Error duplicate_key() { return {Fault::postgres, "PostgreSQL: duplicate key"}; }
Error fenced() { return {Fault::fenced, "another relay holds the lease"}; }

bool holds_lease(const PostgresModel& database, std::int64_t epoch, int holder) {
  const LeaseRow& lease = database.now.lease;
  return lease.epoch == epoch && lease.holder == holder;
}

Opened* find(PostgresModel& database, std::int64_t number) {
  for (Opened& o : database.now.journal) {
    if (o.batch->number == number) return &o;
  }
  return nullptr;
}

// False, and nothing is done: one of them is parked for this batch already.
bool park_rows(PostgresModel& database, const std::vector<Row>& rows, std::int64_t number,
               const std::vector<Rejection>& parked) {
  for (const ParkedRow& p : database.now.parked) {
    const auto same = [&](const Rejection& r) { return r.seq == p.row.seq; };
    if (p.parked_for == number && std::any_of(parked.begin(), parked.end(), same)) return false;
  }
  for (const Rejection& r : parked) {
    const auto row =
        std::find_if(rows.begin(), rows.end(), [&](const Row& m) { return m.seq == r.seq; });
    CHECK(row != rows.end());
    database.now.parked.push_back(
        {*row, number, 0, ParkedRow::Decision::none, r.error_class == "key_blocked"});
  }
  return true;
}

std::vector<Row> released_rows(const PostgresModel& database, std::int64_t number) {
  std::vector<Row> rows;
  for (const ParkedRow& p : database.now.parked) {
    if (p.released_in == number && p.decision != ParkedRow::Decision::discard)
      rows.push_back(p.row);
  }
  std::sort(rows.begin(), rows.end(), by_seq);
  return rows;
}

// Every journal write is a transaction with an id, and its commit flushes all that was visible
// before.
void commit(PostgresModel& database) {
  database.end(database.begin(), PostgresModel::Outcome::committed);
  if (!MUTANT(synchronous_commit_off)) database.flush();
}

// Shows whether the lease was held when the statement looked, which without the row lock is not
// when it commits.
std::optional<bool> looked_early(const SimDatabase& session, std::int64_t epoch) {
  if (!MUTANT(no_epoch_lock)) return std::nullopt;
  return holds_lease(session.database, epoch, session.options.holder);
}

}  // namespace

int id_of(const Message& m) {
  int id = 0;
  for (std::size_t i = 0; i < 4; ++i) id |= m.id.bytes[i] << (8 * i);
  return id;
}

Trait trait_of(const Message& m) { return static_cast<Trait>(m.id.bytes[4]); }

// Reader ------------------------------------------------------------------------------------------

void SimReader::reset(const Cursor& cursor) {
  cursor_ = cursor;
  step_ = Step::idle;
  page_.reset();
}

Result<void> SimReader::want() {
  if (step_ == Step::idle) step_ = cursor_->upto ? Step::copying : Step::polling;
  return {};
}

void SimReader::nothing_found(const Snapshot& upto) {
  cursor_ = Cursor{.base = upto};
  page_.reset();
  step_ = Step::done;
}

Result<bool> SimReader::advance() {
  if (step_ == Step::done) return true;
  if (step_ == Step::idle) return false;
  if (auto r = session_.reads(); !r) return r.error();
  if (session_.schedule.maybe(4)) return false;
  const PostgresModel& database = session_.database;
  if (step_ == Step::polling) {
    const Snapshot upto = database.snapshot();
    if (Difference::between(cursor_->base, upto).empty()) {
      nothing_found(upto);
      return true;
    }
    cursor_ = Cursor{.base = cursor_->base, .upto = upto};
    step_ = Step::copying;
    session_.schedule.point();
    if (!session_.alive()) return session_.broken(false);
  }
  const std::vector<Row> rows =
      difference(database, cursor_->base, *cursor_->upto, cursor_->after_seq);
  if (rows.empty()) {
    nothing_found(Snapshot(*cursor_->upto));
    return true;
  }
  const std::size_t taken = std::min(rows.size(), session_.options.page_rows);
  page_ = Page{.bounds = {.base = cursor_->base,
                          .upto = *cursor_->upto,
                          .after_seq = cursor_->after_seq,
                          .upto_seq = rows[taken - 1].seq,
                          .exhausted = taken < session_.options.page_rows}};
  for (std::size_t i = 0; i < taken; ++i) page_->messages.push_back(message_of(rows[i]));
  page_->bytes = static_cast<std::int64_t>(taken);
  cursor_ = page_->bounds.next();
  step_ = Step::done;
  return true;
}

std::optional<Page> SimReader::take() {
  CHECK(step_ == Step::done);
  step_ = Step::idle;
  return std::exchange(page_, std::nullopt);
}

Result<Page> SimReader::reread(const Batch& batch) {
  if (auto r = session_.reads(); !r) return r.error();
  const PostgresModel& database = session_.database;
  const PageBounds& bounds = batch.bounds;
  std::vector<Row> rows = batch.release
                              ? released_rows(database, batch.number)
                              : difference(database, bounds.base, bounds.upto, bounds.after_seq);
  std::int64_t parked = 0;
  for (const ParkedRow& p : database.now.parked) {
    if (p.parked_for != batch.number) continue;
    ++parked;
    std::erase_if(rows, [&](const Row& r) { return r.seq == p.row.seq; });
  }
  if (!batch.release) std::erase_if(rows, [&](const Row& r) { return r.seq > bounds.upto_seq; });
  if (static_cast<std::int64_t>(rows.size()) != batch.messages - parked) {
    return Error{Fault::refused,
                 "something deleted or hid rows of batch " + std::to_string(batch.number)};
  }
  Page page{.bounds = bounds, .bytes = batch.bytes};
  for (const Row& r : rows) page.messages.push_back(message_of(r));
  return page;
}

// Journal -----------------------------------------------------------------------------------------

Result<Identity> SimDatabase::connect() {
  schedule.point();
  if (schedule.fate() == RequestFate::lost) return broken(false);
  life = database.life();
  return database.identity();
}

Result<std::optional<Batch>> SimJournal::newest() {
  if (auto r = session_.reads(); !r) return r.error();
  const auto& journal = session_.database.now.journal;
  if (journal.empty()) return std::optional<Batch>{};
  Batch batch = *journal.back().batch;
  batch.delivered = journal.back().delivered;
  return std::optional<Batch>(std::move(batch));
}

Result<std::optional<Predecessor>> SimJournal::before(std::int64_t number) {
  if (auto r = session_.reads(); !r) return r.error();
  std::optional<Predecessor> found;
  for (const Opened& o : session_.database.now.journal) {
    if (o.batch->number < number) found = {o.batch->token, o.batch->mode};
  }
  return found;
}

Result<bool> SimJournal::knows(const Uuid& token) {
  if (auto r = session_.reads(); !r) return r.error();
  const auto& journal = session_.database.now.journal;
  return std::any_of(journal.begin(), journal.end(),
                     [&](const Opened& o) { return o.batch->token == token; });
}

Result<void> SimJournal::open(Batch& next, std::span<const Rejection> parked,
                              const std::optional<Confirmed>& confirmed, bool renew_lease) {
  next.opened_at =
      std::chrono::duration_cast<Timestamp>(session_.schedule.now().time_since_epoch());
  const auto early = looked_early(session_, next.epoch);
  return session_.writes([&database = session_.database, holder = session_.options.holder, early,
                          next, rejections = std::vector(parked.begin(), parked.end()), confirmed,
                          expires_at = session_.schedule.now() + session_.options.lease_ttl,
                          renew_lease]() -> Result<void> {
    if (!early.value_or(holds_lease(database, next.epoch, holder))) return fenced();
    auto& journal = database.now.journal;
    if (!journal.empty() && journal.back().batch->number >= next.number) {
      return duplicate_key();
    }
    if (!park_rows(database, database.now.messages, next.number, rejections))
      return duplicate_key();
    if (renew_lease) database.now.lease.expires_at = expires_at;
    Opened* const before = confirmed ? find(database, confirmed->number) : nullptr;
    const bool marked = before != nullptr && !before->delivered;
    if (marked) before->delivered = true;
    journal.push_back({std::make_shared<const Batch>(next), false});
    commit(database);
    if (confirmed && !marked)
      return Error{Fault::refused, "the journal was changed by somebody else"};
    return {};
  });
}

Result<bool> SimJournal::open_release(Batch& next, const std::optional<Confirmed>& confirmed) {
  const auto early = looked_early(session_, next.epoch);
  auto opened = session_.writes(
      [&database = session_.database, holder = session_.options.holder, early, batch = next,
       confirmed, by_key = session_.options.order == KeyOrder::key,
       most = session_.options.release_rows]() mutable -> Result<std::optional<Batch>> {
        if (!early.value_or(holds_lease(database, batch.epoch, holder))) return fenced();
        if (database.now.journal.empty()) return std::optional<Batch>{};
        const auto chosen = database.releasable(by_key, most);
        if (chosen.taken.empty()) return std::optional<Batch>{};
        const Batch& position = *database.now.journal.back().batch;
        if (position.number >= batch.number) return duplicate_key();
        const auto decide = [&](std::size_t i) {
          ParkedRow& p = database.now.parked[i];
          if (p.decision == ParkedRow::Decision::none) p.decision = ParkedRow::Decision::release;
          return &p;
        };
        batch.messages = 0;
        for (const std::size_t i : chosen.next_leaders) decide(i);
        for (const std::size_t i : chosen.taken) {
          ParkedRow* const p = decide(i);
          p->released_in = batch.number;
          batch.messages += p->decision != ParkedRow::Decision::discard;
        }
        Opened* const before = confirmed ? find(database, confirmed->number) : nullptr;
        const bool marked = before != nullptr && !before->delivered;
        if (marked) before->delivered = true;
        const std::int64_t messages = batch.messages;
        Batch written = position;
        written.number = batch.number, written.epoch = batch.epoch, written.token = batch.token,
        written.mode = batch.mode;
        written.release = true, written.messages = messages, written.bytes = messages;
        database.now.journal.push_back({std::make_shared<const Batch>(written), false});
        commit(database);
        if (confirmed && !marked)
          return Error{Fault::refused, "the journal was changed by somebody else"};
        return std::optional<Batch>(written);
      });
  if (!opened) return opened.error();
  if (!*opened) return false;
  next = **opened;
  return true;
}

Result<void> SimJournal::mark_delivered(std::int64_t epoch, const Confirmed& confirmed) {
  const auto early = looked_early(session_, epoch);
  return session_.writes([&database = session_.database, holder = session_.options.holder, early,
                          epoch, number = confirmed.number]() -> Result<void> {
    Opened* const batch = find(database, number);
    if (!early.value_or(holds_lease(database, epoch, holder)) || batch == nullptr ||
        batch->delivered)
      return fenced();
    batch->delivered = true;
    commit(database);
    return {};
  });
}

Result<void> SimJournal::park(std::int64_t epoch, const Batch& batch,
                              std::span<const Rejection> parked) {
  const auto early = looked_early(session_, epoch);
  return session_.writes([&database = session_.database, holder = session_.options.holder, early,
                          epoch, number = batch.number, release = batch.release,
                          rejections =
                              std::vector(parked.begin(), parked.end())]() -> Result<void> {
    if (!early.value_or(holds_lease(database, epoch, holder))) return fenced();
    const std::vector<Row> rows = release ? released_rows(database, number) : database.now.messages;
    if (!park_rows(database, rows, number, rejections)) return duplicate_key();
    commit(database);
    return {};
  });
}

Result<std::vector<std::string>> SimJournal::topics_with_blocked_keys(std::size_t) {
  if (auto r = session_.reads(); !r) return r.error();
  const auto& parked = session_.database.now.parked;
  const auto blocks = [](const ParkedRow& p) { return p.released_in == 0 && p.row.key != no_key; };
  if (std::none_of(parked.begin(), parked.end(), blocks)) return std::vector<std::string>{};
  return std::vector<std::string>{std::string(topic)};
}

Result<std::vector<std::size_t>> SimJournal::blocked(std::int64_t number,
                                                     std::span<const Message* const> messages) {
  if (auto r = session_.reads(); !r) return r.error();
  std::vector<std::size_t> indexes;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const int key = key_of(*messages[i]);
    const auto blocks = [&](const ParkedRow& p) {
      return p.released_in == 0 && p.row.key == key &&
             (p.parked_for < number || p.row.seq < messages[i]->seq);
    };
    const auto& parked = session_.database.now.parked;
    if (std::any_of(parked.begin(), parked.end(), blocks)) indexes.push_back(i);
  }
  return indexes;
}

// Lease -------------------------------------------------------------------------------------------

Result<bool> SimLease::available() {
  if (auto r = session_.reads(); !r) return r.error();
  const LeaseRow& row = session_.database.now.lease;
  const auto now = session_.schedule.now();
  if (row.epoch != seen_.epoch || row.expires_at != seen_.expires_at) {
    seen_ = row;
    unchanged_since_ = now;
  }
  return row.holder == 0 || row.holder == session_.options.holder || row.expires_at <= now ||
         now - unchanged_since_ >= session_.options.lease_ttl;
}

Result<std::optional<Lease::Taken>> SimLease::take() {
  const auto sent = session_.schedule.now();
  auto taken = session_.writes([&database = session_.database, holder = session_.options.holder,
                                seen = seen_,
                                expires_at = sent + session_.options.lease_ttl]() -> Result<bool> {
    LeaseRow& row = database.now.lease;
    if (row.epoch != seen.epoch || row.expires_at != seen.expires_at) return false;
    row = {row.epoch + 1, holder, expires_at};
    commit(database);
    return true;
  });
  if (!taken) return taken.error();
  if (!*taken) return std::optional<Taken>{};
  const std::int64_t epoch = seen_.epoch + 1;
  const bool continued = epoch_ != 0 && epoch == epoch_ + 1;
  epoch_ = epoch;
  sign_of_life_ = sent;
  return std::optional<Taken>(Taken{epoch, continued});
}

Result<void> SimLease::renew() {
  const auto sent = session_.schedule.now();
  auto renewed = session_.writes(
      [&database = session_.database, holder = session_.options.holder, epoch = epoch_,
       expires_at = sent + session_.options.lease_ttl]() -> Result<bool> {
        if (!holds_lease(database, epoch, holder)) return false;
        database.now.lease.expires_at = expires_at;
        commit(database);
        return true;
      });
  if (!renewed) return renewed.error();
  if (!*renewed) {
    epoch_ = 0;
    return fenced();
  }
  sign_of_life_ = sent;
  return {};
}

Result<void> SimLease::resign() {
  auto done = session_.writes([&database = session_.database, holder = session_.options.holder,
                               epoch = epoch_]() -> Result<void> {
    if (!holds_lease(database, epoch, holder)) return {};
    database.now.lease = {epoch, 0, {}};
    commit(database);
    return {};
  });
  epoch_ = 0;
  return done;
}

bool SimMaintenance::found_releasable() {
  const PostgresModel& database = session_.database;
  if (!started_ || database.now.parked.empty()) return false;
  return !database
              .releasable(session_.options.order == KeyOrder::key, session_.options.release_rows)
              .taken.empty();
}

}  // namespace relay::sim
