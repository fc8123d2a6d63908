// SPDX-License-Identifier: Apache-2.0
#include "relay/postgres/journal.h"

#include <nlohmann/json.hpp>

#include "common/check.h"
#include "common/hex.h"
#include "relay/postgres/journal_sql.h"
#include "relay/postgres/statements.h"

namespace relay::postgres {
namespace {

constexpr Millis open_deadline{30'000};
constexpr std::int64_t release_messages_max =
    2'000;  // less than a page of the stream, which waits meanwhile

Error unreadable() {
  return {Fault::refused, "outbox.batch has a row that this relay cannot read"};
}

Error fenced() {
  return {Fault::fenced, "another relay holds the lease of this outbox; nothing was written"};
}

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
  b.bounds.base = std::move(*base);
  b.bounds.upto = std::move(*upto);
  if (!column(7).is_null()) b.bounds.fresh_from = column(7).as<std::int64_t>();
  b.bounds.after_seq = column(8).as<std::int64_t>();
  b.bounds.upto_seq = column(9).as<std::int64_t>();
  b.bounds.exhausted = column(10).as<bool>();
  b.messages = column(11).as<std::int64_t>();
  b.bytes = column(12).as<std::int64_t>();
  b.opened_at = Timestamp(column(13).as<std::int64_t>());
  b.delivered = column(14).as<bool>();
  return b;
}

std::string offsets_json(const Offsets& offsets) {
  nlohmann::json out = nlohmann::json::object();
  for (const auto& [topic, partitions] : offsets) {
    for (const auto& [partition, range] : partitions)
      out[topic][std::to_string(partition)] = {range.first, range.last};
  }
  return out.dump();
}

Result<std::optional<Batch>> PgJournal::newest() {
  auto rows = control().run("reading the journal", sql::newest_batch);
  if (!rows) return rows.error();
  if (rows->empty()) return std::optional<Batch>{};
  auto batch = batch_of((*rows)[0]);
  if (!batch) return batch.error();
  return std::optional<Batch>(std::move(*batch));
}

Result<std::optional<Predecessor>> PgJournal::before(std::int64_t number) {
  auto rows = control().run("reading the journal",
                            "select b.token::text, b.mode from outbox.batch b where b.number < $1 "
                            "order by b.number desc limit 1",
                            number);
  if (!rows) return rows.error();
  if (rows->empty()) return std::optional<Predecessor>{};
  const auto token = Uuid::parse((*rows)[0][0].c_str());
  const auto mode = parse_mode((*rows)[0][1].c_str());
  if (!token || !mode) return unreadable();
  return std::optional(Predecessor{*token, *mode});
}

Result<bool> PgJournal::knows(const Uuid& token) {
  auto rows = control().run("reading the journal",
                            "select from outbox.batch b where b.token = $1::uuid", token.text());
  if (!rows) return rows.error();
  return !rows->empty();
}

// As open_sql() names them.
std::vector<Parameter> PgJournal::open_parameters(const Batch& next,
                                                  std::span<const Rejection> parked,
                                                  const std::optional<Confirmed>& confirmed,
                                                  bool renew_lease) {
  using Text = Parameter;
  std::vector<Text> p = {
      std::to_string(next.epoch),
      options_.holder,
      next.token.text(),
      std::string(next.release ? "release" : "stream"),
      std::string(to_string(next.mode)),
      next.bounds.base.text(),
      next.bounds.upto.text(),
      next.bounds.fresh_from ? Text(std::to_string(*next.bounds.fresh_from)) : std::nullopt,
      std::to_string(next.bounds.after_seq),
      std::to_string(next.bounds.upto_seq),
      std::string(next.bounds.exhausted ? "t" : "f"),
      std::to_string(next.messages),
      std::to_string(next.bytes),
      std::to_string(next.number),
      database_.hot().backend_tag(),
      confirmed ? Text(std::to_string(confirmed->number)) : std::nullopt,
      confirmed && !confirmed->offsets.empty() ? Text(offsets_json(confirmed->offsets))
                                               : std::nullopt};
  if (!parked.empty()) {
    p.push_back(seq_array(parked));
    p.push_back(array_text(parked, &Rejection::error_class));
    p.push_back(array_text(parked, &Rejection::text));
  }
  if (renew_lease) p.push_back(interval_text(options_.lease_ttl));
  return p;
}

Result<void> PgJournal::open(Batch& next, std::span<const Rejection> parked,
                             const std::optional<Confirmed>& confirmed, bool renew_lease) {
  CHECK(!database_.hot().busy());
  const bool parks = !parked.empty();
  static constexpr const char* names[] = {"open", "open_renew", "open_park", "open_park_renew"};
  const char* const name = names[(parks ? 2 : 0) + (renew_lease ? 1 : 0)];
  auto result = database_.hot().execute(name, open_sql(parks, renew_lease),
                                        open_parameters(next, parked, confirmed, renew_lease),
                                        Deadline(open_deadline));
  const auto warning = database_.hot().take_warning();
  if (!result) return result.error();
  if (warning)
    return Error{Fault::postgres, "PostgreSQL, opening a batch: " + *warning, {}, true, true};
  if (PQntuples(result->get()) == 0) return why_not_opened(next);
  next.opened_at = Timestamp(std::stoll(PQgetvalue(result->get(), 0, 0)));
  const auto marked = std::stoll(PQgetvalue(result->get(), 0, 1));
  const auto parked_rows = std::stoll(PQgetvalue(result->get(), 0, 2));
  if ((confirmed && marked != 1) || parked_rows != static_cast<std::int64_t>(parked.size())) {
    return Error{Fault::refused,
                 "the journal or outbox.message was changed by somebody else while batch " +
                     std::to_string(next.number) + " was opened",
                 "only the relay may write to outbox.batch and delete from outbox.message"};
  }
  return {};
}

Error PgJournal::why_not_opened(const Batch& next) {
  const auto ours = holds_lease(next.epoch);
  if (!ours) return ours.error();
  if (!*ours) return fenced();
  return {Fault::postgres,
          "synchronous_commit was switched off in the relay's session, or the session was replaced",
          "if there is a pooler in transaction mode, set postgres.pooler = \"transaction\"", false,
          true};
}

Result<bool> PgJournal::holds_lease(std::int64_t epoch) {
  auto rows = control().run("looking at the lease",
                            "select from outbox.lease l where l.epoch = $1 and l.holder = $2",
                            epoch, options_.holder);
  if (!rows) return rows.error();
  return !rows->empty();
}

Result<bool> PgJournal::open_release(Batch& next, const std::optional<Confirmed>& confirmed) {
  CHECK(next.release);
  auto rows = control().run(
      "opening a release", open_release_sql(), next.epoch, options_.holder, next.number,
      next.token.text(), to_string(next.mode), options_.order == KeyOrder::key,
      std::min(options_.batch_messages_max, release_messages_max), options_.batch_bytes_max,
      confirmed ? confirmed->number : 0,
      confirmed && !confirmed->offsets.empty() ? offsets_json(confirmed->offsets) : std::string());
  if (!rows) return rows.error();
  if (const auto warning = control().take_warning()) {
    return Error{Fault::postgres, "PostgreSQL, opening a release: " + *warning, {}, true, true};
  }
  if (rows->empty()) {
    const auto ours = holds_lease(next.epoch);
    if (!ours) return ours.error();
    return *ours ? Result<bool>(false) : fenced();
  }
  if (confirmed && (*rows)[0][0].as<int>() != 1) {
    return Error{Fault::refused,
                 "the journal was changed by somebody else while batch " +
                     std::to_string(next.number) + " was opened",
                 "only the relay may write to outbox.batch"};
  }
  auto written = batch_of((*rows)[0], 1);
  if (!written) return written.error();
  next = std::move(*written);
  return true;
}

Result<void> PgJournal::mark_delivered(std::int64_t epoch, const Confirmed& confirmed) {
  auto rows = control().run(
      "marking a batch delivered", mark_delivered_sql(), epoch, options_.holder, confirmed.number,
      confirmed.offsets.empty() ? std::string() : offsets_json(confirmed.offsets));
  if (!rows) return rows.error();
  if (rows->empty()) return fenced();
  return {};
}

Result<void> PgJournal::park(std::int64_t epoch, const Batch& batch,
                             std::span<const Rejection> parked) {
  auto rows = control().run(
      "parking messages", park_sql(batch), epoch, options_.holder, batch.number, seq_array(parked),
      array_text(parked, &Rejection::error_class), array_text(parked, &Rejection::text));
  if (!rows) return rows.error();
  if ((*rows)[0][0].as<int>() == 0) return fenced();
  if (const auto warning = control().take_warning()) {
    return Error{Fault::postgres, "PostgreSQL, parking messages: " + *warning, {}, true, true};
  }
  return {};
}

Result<std::vector<std::string>> PgJournal::topics_with_blocked_keys(std::size_t count_max) {
  auto rows =
      control().run("looking for parked messages", sql::topics_with_blocked_keys, count_max);
  if (!rows) return rows.error();
  std::vector<std::string> topics;
  for (const auto& row : *rows) topics.emplace_back(row[0].c_str());
  return topics;
}

Result<std::vector<std::size_t>> PgJournal::blocked(std::int64_t number,
                                                    std::span<const Message* const> messages) {
  std::vector<Rejection> topics;  // reused for its array form
  std::string keys = "{";
  for (const Message* m : messages) {
    topics.push_back({.seq = m->seq, .error_class = std::string(m->topic), .text = {}});
    if (keys.size() > 1) keys += ',';
    keys += "\"\\\\x" + outbox::common::hex(*m->key) + '"';
  }
  auto rows = control().run("looking for blocked keys", sql::blocked_keys,
                            array_text(topics, &Rejection::error_class), keys + "}",
                            seq_array(topics), number);
  if (!rows) return rows.error();
  std::vector<std::size_t> out;
  for (const auto& row : *rows) out.push_back(row[0].as<std::size_t>() - 1);
  return out;
}

}  // namespace relay::postgres
