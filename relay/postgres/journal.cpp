// SPDX-License-Identifier: Apache-2.0
#include "relay/postgres/journal.h"

#include <nlohmann/json.hpp>

#include "relay/base/check.h"
#include "relay/base/hex.h"
#include "relay/base/sabotage.h"
#include "relay/postgres/guards.h"
#include "relay/postgres/page_query.h"

namespace outbox::postgres {

const char* const batch_columns =
    "b.number, b.epoch, b.token::text, b.kind, b.mode, b.base::text, b.upto::text, b.fresh_from, b.after_seq, b.upto_seq, "
    "b.exhausted, b.messages, b.bytes, (extract(epoch from b.opened_at) * 1000000)::bigint, b.delivered_at is not null";

namespace {

constexpr Millis open_deadline{30'000};
constexpr std::int64_t release_messages_max = 2'000;  // less than a page of the stream, which waits meanwhile

// The first part of every write: no row of the lease with our epoch, no write. The row lock makes a take-over wait for a write
// under way, and then see it; comparing the epoch alone would let the write appear after the take-over.
std::string guard(const char* epoch, const char* holder, const char* renewed_by = nullptr) {
  const std::string ours = std::string("l.epoch = ") + epoch + "::bigint and l.holder = " + holder + "::text";
  if (SABOTAGED(no_epoch_lock) && renewed_by == nullptr) {
    return "with guard as materialized (select l.epoch from outbox.lease l where " + ours + ")";
  }
  if (renewed_by != nullptr) {
    return std::string("with guard as (update outbox.lease l set expires_at = pg_catalog.clock_timestamp() + ") + renewed_by +
           "::interval where " + ours + " returning l.epoch)";
  }
  return "with guard as materialized (select l.epoch from outbox.lease l where " + ours + " for share)";
}

// Parks rows $seqs, $classes, $texts of the relation `rows` for batch $number, if `source` has a row.
std::string park_cte(const char* source, const char* number, const char* seqs, const char* classes, const char* texts,
                     const std::string& rows = "outbox.message") {
  return std::string("insert into outbox.parked (parked_for, seq, txid, id, topic, key, payload, headers, dedup_key, "
                     "created_at, error_class, error_text) select ") +
         number + "::bigint, m.seq, m.txid, m.id, m.topic, m.key, m.payload, m.headers, m.dedup_key, m.created_at, r.c, r.t from " +
         source + " cross join unnest(" + seqs + "::bigint[], " + classes + "::text[], " + texts + "::text[]) as r(s, c, t) join " +
         rows + " m on m.seq = r.s returning 1";
}

// $1 number $2 epoch $3 token $4 kind $5 mode $6 base $7 upto $8 fresh_from $9 after_seq $10 upto_seq $11 exhausted $12 messages
// $13 bytes $14 holder $15 session $16 confirmed number $17 offsets; if it parks $18 seqs $19 classes $20 texts; if it
// renews, the ttl comes last.
std::string open_sql(bool parks, bool renews) {
  std::string durable = "current_setting('synchronous_commit') in ('on', 'remote_apply')";
  if (SABOTAGED(synchronous_commit_off)) durable = "set_config('synchronous_commit', 'off', true) = 'off'";
  std::string sql = guard("$2", "$14", !renews ? nullptr : parks ? "$21" : "$18") +
                    ", sound as materialized (select g.epoch from guard g where " + durable +
                    " and current_setting('outbox_relay.session', true) = $15::text)"
                    ", marked as (update outbox.batch p set delivered_at = pg_catalog.clock_timestamp(), offsets = $17::jsonb"
                    " where p.number = $16::bigint and p.delivered_at is null and exists (select from sound) returning 1)";
  if (parks) sql += ", parked as (" + park_cte("sound", "$1", "$18", "$19", "$20") + ")";
  sql += " insert into outbox.batch (number, epoch, token, kind, mode, base, upto, fresh_from, after_seq, upto_seq, exhausted, "
         "messages, bytes) select $1::bigint, s.epoch, $3::uuid, $4::text, $5::text, $6::pg_snapshot, $7::pg_snapshot, $8::bigint, "
         "$9::bigint, $10::bigint, $11::boolean, $12::integer, $13::bigint from sound s "
         "returning (extract(epoch from opened_at) * 1000000)::bigint, (select count(*) from marked)";
  return sql + (parks ? ", (select count(*) from parked)" : ", 0");
}

std::string array_text(std::span<const Rejection> parked, const std::string Rejection::*field) {
  std::string out = "{";
  for (const Rejection& r : parked) {
    if (out.size() > 1) out += ',';
    out += '"';
    for (const char c : r.*field) {
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
    out += '"';
  }
  return out + "}";
}

std::string seq_array(std::span<const Rejection> parked) {
  std::string out = "{";
  for (const Rejection& r : parked) out += (out.size() > 1 ? "," : "") + std::to_string(r.seq);
  return out + "}";
}

// $1 number $2 epoch $3 token $4 mode $5 holder $6 by key $7 messages at most $8 bytes $9 confirmed number $10 offsets. The position
// is that of the batch before. What waited for a message that is released now is released without a decision of its own. Rows that an
// operator is changing are not waited for, which could be a deadlock: then there is nothing to release for the moment.
std::string open_release_sql() {
  const std::string follows = "coalesce(p.decided_by, 'outbox-relay'), decided_at = coalesce(p.decided_at, clock_timestamp()), "
                              "decided_why = case when p.resolution is null then 'what it waited for was decided' else p.decided_why end";
  return guard("$2", "$5") + R"(,
    sound as materialized (select g.epoch from guard g where current_setting('synchronous_commit') in ('on', 'remote_apply')),
    chosen as materialized (select r.* from sound s cross join lateral outbox.releasable($6::boolean, $7::integer, $8::bigint) r),
    locked as materialized (
      select p.seq from chosen c join outbox.parked p on p.parked_for = c.parked_for and p.seq = c.seq for update of p skip locked),
    free as materialized (select s.epoch from sound s where (select count(*) from locked) = (select count(*) from chosen)),
    led as (
      update outbox.parked p set resolution = coalesce(p.resolution, 'release'), decided_by = )" + follows + R"( from free cross join chosen c
      where c.next_leader and p.parked_for = c.parked_for and p.seq = c.seq),
    taken as (
      update outbox.parked p set released_in = $1::bigint, resolution = coalesce(p.resolution, 'release'), decided_by = )" +
         follows + R"( from free cross join chosen c
      where not c.next_leader and p.parked_for = c.parked_for and p.seq = c.seq
      returning case when p.resolution <> 'discard' then c.bytes end as bytes),
    marked as (
      update outbox.batch b set delivered_at = clock_timestamp(), offsets = nullif($10, '')::jsonb
      where b.number = $9::bigint and b.delivered_at is null and exists (select from taken) returning 1)
    insert into outbox.batch as b (number, epoch, token, kind, mode, base, upto, fresh_from, after_seq, upto_seq, exhausted, messages, bytes)
    select $1::bigint, s.epoch, $3::uuid, 'release', $4, n.base, n.upto, n.fresh_from, n.after_seq, n.upto_seq, n.exhausted,
           (select count(t.bytes) from taken t), (select coalesce(sum(t.bytes), 0) from taken t)
    from sound s cross join (select x.* from outbox.batch x order by x.number desc limit 1) n where exists (select from taken)
    returning (select count(*) from marked), )" + batch_columns;
}

Error unreadable() { return {Fault::refused, "outbox.batch has a row that this relay cannot read"}; }

Error fenced() { return {Fault::fenced, "another relay holds the lease of this outbox; nothing was written"}; }

}  // namespace

Result<Batch> batch_of(const pqxx::row& row, int first) {
  const auto column = [&](int n) { return row[static_cast<pqxx::row::size_type>(first + n)]; };
  auto base = Snapshot::parse(column(5).c_str());
  auto upto = Snapshot::parse(column(6).c_str());
  const auto token = Uuid::parse(column(2).c_str());
  const auto mode = parse_mode(column(4).c_str());
  if (!base || !upto || !token || !mode) return unreadable();
  Batch b;
  b.number = column(0).as<std::int64_t>();
  b.epoch = column(1).as<std::int64_t>();
  b.token = *token;
  b.release = std::string(column(3).c_str()) == "release";
  b.mode = *mode;
  b.base = std::move(*base);
  b.upto = std::move(*upto);
  if (!column(7).is_null()) b.fresh_from = column(7).as<std::int64_t>();
  b.after_seq = column(8).as<std::int64_t>();
  b.upto_seq = column(9).as<std::int64_t>();
  b.exhausted = column(10).as<bool>();
  b.messages = column(11).as<std::int64_t>();
  b.bytes = column(12).as<std::int64_t>();
  b.opened_at = Timestamp(column(13).as<std::int64_t>());
  b.delivered = column(14).as<bool>();
  return b;
}

std::string offsets_json(const Offsets& offsets) {
  nlohmann::json out = nlohmann::json::object();
  for (const auto& [topic, partitions] : offsets) {
    for (const auto& [partition, range] : partitions) out[topic][std::to_string(partition)] = {range.first, range.last};
  }
  return out.dump();
}

Result<Identity> PgJournal::connect() {
  reader_.attach(nullptr);
  hot_.reset();
  control_.reset();
  auto connection = connection_string(options_.dsn, options_.password, "outbox-relay " + options_.relay);
  if (!connection) return connection.error();
  auto control = Control::connect(*connection, options_.statement_limit(), options_.pooler);
  if (!control) return control.error();
  // Before anything is looked at: through a pooler, from here on every read finds out whether the server is another.
  auto hot = Session::connect(*connection, options_.pooler);
  if (!hot) return hot.error();
  if (auto r = guard_pooler(**control, **hot, options_); !r) return r.error();
  auto identity = guard_database(**control, options_);
  if (!identity) return identity;
  control_ = std::move(*control);
  hot_ = std::move(*hot);
  reader_.attach(hot_.get());
  identity_ = *identity;
  return identity;
}

Result<std::optional<Batch>> PgJournal::newest() {
  auto rows = control_->run("reading the journal", std::string("select ") + batch_columns +
                                                       " from outbox.batch b order by b.number desc limit 1");
  if (!rows) return rows.error();
  if (rows->empty()) return std::optional<Batch>{};
  auto batch = batch_of((*rows)[0]);
  if (!batch) return batch.error();
  return std::optional<Batch>(std::move(*batch));
}

Result<std::optional<Predecessor>> PgJournal::before(std::int64_t number) {
  auto rows = control_->run("reading the journal",
                            "select b.token::text, b.mode from outbox.batch b where b.number < $1 order by b.number desc limit 1", number);
  if (!rows) return rows.error();
  if (rows->empty()) return std::optional<Predecessor>{};
  const auto token = Uuid::parse((*rows)[0][0].c_str());
  const auto mode = parse_mode((*rows)[0][1].c_str());
  if (!token || !mode) return unreadable();
  return std::optional(Predecessor{*token, *mode});
}

Result<bool> PgJournal::knows(const Uuid& token) {
  auto rows = control_->run("reading the journal", "select from outbox.batch b where b.token = $1::uuid", token.text());
  if (!rows) return rows.error();
  return !rows->empty();
}

Result<void> PgJournal::open(Batch& next, std::span<const Rejection> parked, const std::optional<Confirmed>& confirmed,
                             bool renew_lease) {
  CHECK(!reader_.busy());
  const bool parks = !parked.empty();
  using Text = std::optional<std::string>;
  std::vector<Text> p = {std::to_string(next.number),
                         std::to_string(next.epoch),
                         next.token.text(),
                         std::string(next.release ? "release" : "stream"),
                         std::string(to_string(next.mode)),
                         next.base.text(),
                         next.upto.text(),
                         next.fresh_from ? Text(std::to_string(*next.fresh_from)) : std::nullopt,
                         std::to_string(next.after_seq),
                         std::to_string(next.upto_seq),
                         std::string(next.exhausted ? "t" : "f"),
                         std::to_string(next.messages),
                         std::to_string(next.bytes),
                         options_.holder,
                         hot_->marker(),
                         confirmed ? Text(std::to_string(confirmed->number)) : std::nullopt,
                         confirmed && !confirmed->offsets.empty() ? Text(offsets_json(confirmed->offsets)) : std::nullopt};
  if (parks) {
    p.push_back(seq_array(parked));
    p.push_back(array_text(parked, &Rejection::error_class));
    p.push_back(array_text(parked, &Rejection::text));
  }
  if (renew_lease) p.push_back(std::to_string(options_.lease_ttl.count()) + " ms");
  static constexpr const char* names[] = {"open", "open_renew", "open_park", "open_park_renew"};
  const char* const name = names[(parks ? 2 : 0) + (renew_lease ? 1 : 0)];
  auto result = hot_->execute(name, open_sql(parks, renew_lease), p, Deadline(open_deadline));
  const auto warning = hot_->take_warning();
  if (!result) return result.error();
  if (warning) return Error{Fault::postgres, "PostgreSQL, opening a batch: " + *warning, {}, true, true};
  if (PQntuples(result->get()) == 0) return why_not_opened(next);
  next.opened_at = Timestamp(std::stoll(PQgetvalue(result->get(), 0, 0)));
  const auto marked = std::stoll(PQgetvalue(result->get(), 0, 1));
  const auto parked_rows = std::stoll(PQgetvalue(result->get(), 0, 2));
  if ((confirmed && marked != 1) || parked_rows != static_cast<std::int64_t>(parked.size())) {
    return Error{Fault::refused, "the journal or outbox.message was changed by somebody else while batch " +
                                     std::to_string(next.number) + " was opened",
                 "only the relay may write to outbox.batch and delete from outbox.message"};
  }
  return {};
}

Error PgJournal::why_not_opened(const Batch& next) {
  const auto ours = holds_lease(next.epoch);
  if (!ours) return ours.error();
  if (!*ours) return fenced();
  return {Fault::postgres, "synchronous_commit was switched off in the relay's session, or the session was replaced",
          "if there is a pooler in transaction mode, set postgres.pooler = \"transaction\"", false, true};
}

Result<bool> PgJournal::holds_lease(std::int64_t epoch) {
  auto rows = control_->run("looking at the lease", "select from outbox.lease l where l.epoch = $1 and l.holder = $2", epoch,
                            options_.holder);
  if (!rows) return rows.error();
  return !rows->empty();
}

Result<bool> PgJournal::open_release(Batch& next, const std::optional<Confirmed>& confirmed) {
  CHECK(next.release);
  auto rows = control_->run("opening a release", open_release_sql(), next.number, next.epoch, next.token.text(), to_string(next.mode),
                            options_.holder, options_.order == KeyOrder::key, std::min(options_.batch_messages_max, release_messages_max),
                            options_.batch_bytes_max, confirmed ? confirmed->number : 0,
                            confirmed && !confirmed->offsets.empty() ? offsets_json(confirmed->offsets) : std::string());
  if (!rows) return rows.error();
  if (const auto warning = control_->take_warning()) {
    return Error{Fault::postgres, "PostgreSQL, opening a release: " + *warning, {}, true, true};
  }
  if (rows->empty()) {
    const auto ours = holds_lease(next.epoch);
    if (!ours) return ours.error();
    return *ours ? Result<bool>(false) : fenced();
  }
  if (confirmed && (*rows)[0][0].as<int>() != 1) {
    return Error{Fault::refused, "the journal was changed by somebody else while batch " + std::to_string(next.number) + " was opened",
                 "only the relay may write to outbox.batch"};
  }
  auto written = batch_of((*rows)[0], 1);
  if (!written) return written.error();
  next = std::move(*written);
  return true;
}

Result<void> PgJournal::mark(std::int64_t epoch, const Confirmed& confirmed) {
  const std::string sql = guard("$1", "$2") +
                          " update outbox.batch b set delivered_at = pg_catalog.clock_timestamp(), offsets = nullif($4, '')::jsonb"
                          " where b.number = $3 and b.delivered_at is null and exists (select from guard) returning 1";
  auto rows = control_->run("marking a batch delivered", sql, epoch, options_.holder, confirmed.number,
                            confirmed.offsets.empty() ? std::string() : offsets_json(confirmed.offsets));
  if (!rows) return rows.error();
  if (rows->empty()) return fenced();
  return {};
}

Result<void> PgJournal::park(std::int64_t epoch, const Batch& batch, std::span<const Rejection> parked) {
  const std::string source = batch.release ? "(" + released_rows_sql(batch.number) + ")" : "outbox.message";
  const std::string sql = guard("$1", "$2") + ", p as (" + park_cte("guard", "$3", "$4", "$5", "$6", source) +
                          ") select (select count(*) from guard), (select count(*) from p)";
  auto rows = control_->run("parking messages", sql, epoch, options_.holder, batch.number, seq_array(parked),
                            array_text(parked, &Rejection::error_class), array_text(parked, &Rejection::text));
  if (!rows) return rows.error();
  if ((*rows)[0][0].as<int>() == 0) return fenced();
  if (const auto warning = control_->take_warning()) {
    return Error{Fault::postgres, "PostgreSQL, parking messages: " + *warning, {}, true, true};
  }
  return {};
}

Result<std::vector<std::string>> PgJournal::topics_with_blocked_keys() {
  auto rows = control_->run("looking for parked messages",
                            "select distinct p.topic from outbox.parked p where p.released_in is null and p.key is not null");
  if (!rows) return rows.error();
  std::vector<std::string> topics;
  for (const auto& row : *rows) topics.emplace_back(row[0].c_str());
  return topics;
}

Result<std::vector<std::size_t>> PgJournal::blocked(std::int64_t number, std::span<const Message* const> messages) {
  std::vector<Rejection> topics;  // reused for its array form
  std::string keys = "{";
  for (const Message* m : messages) {
    topics.push_back({m->seq, std::string(m->topic), {}});
    if (keys.size() > 1) keys += ',';
    keys += "\"\\\\x" + hex(*m->key) + '"';
  }
  auto rows = control_->run(
      "looking for blocked keys",
      "select k.n from unnest($1::text[], $2::bytea[], $3::bigint[]) with ordinality as k(topic, key, seq, n) where exists ("
      "select from outbox.parked p where p.topic = k.topic and sha256(p.key) = sha256(k.key) and p.key = k.key "
      "and p.released_in is null and (p.parked_for < $4 or p.seq < k.seq)) order by k.n",
      array_text(topics, &Rejection::error_class), keys + "}", seq_array(topics), number);
  if (!rows) return rows.error();
  std::vector<std::size_t> out;
  for (const auto& row : *rows) out.push_back(row[0].as<std::size_t>() - 1);
  return out;
}

}  // namespace outbox::postgres
