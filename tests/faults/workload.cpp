// SPDX-License-Identifier: Apache-2.0
#include "tests/faults/workload.h"

#include <algorithm>
#include <memory>
#include <optional>

#include "common/hex.h"
#include "relay/base/uuid.h"

namespace relay::faults {
namespace {

constexpr int keys = 200;
constexpr double rolls_back = 0.05;
constexpr double partly_rolls_back = 0.05;
constexpr double is_prepared = 0.01;
constexpr double has_no_key = 0.05;
constexpr double has_no_payload = 0.02;  // a tombstone
constexpr double has_headers = 0.1;
constexpr std::size_t too_large = 1'100'000;  // for delivery.message_bytes_max
constexpr double is_long = 0.004;             // 100 kB and more
constexpr Millis held_open_max{8'000};
constexpr Millis away{50};  // before an application connects again

// The names and values are taken as they are: they may hold anything but what ends a JSON string.
constexpr const char* odd_headers = R"({"x-odd": "\u0001\n\té\u2028\"", "x-empty": ""})";

std::string random_bytes(Random& random, std::size_t size) {
  std::string out(size, '\0');
  for (std::size_t i = 0; i < size; i += 8) {
    const auto word = random();
    for (std::size_t k = i; k < std::min(size, i + 8); ++k)
      out[k] = static_cast<char>(word >> 8 * (k - i));
  }
  return out;
}

// A few keys have most of the messages.
std::string some_key(Random& random) {
  const double u = std::uniform_real_distribution<double>(0, 1)(random);
  return "k" + std::to_string(static_cast<int>(keys * u * u * u));
}

std::size_t some_size(Random& random) {
  if (chance(random, is_long)) return static_cast<std::size_t>(between(random, 100'000, 900'000));
  return static_cast<std::size_t>(between(random, 0, 400));
}

const char* const create_tables = R"(
  create schema app;
  create table app.counter (key text primary key, n bigint not null);
  create table app.tx (id bigint primary key);
  create table app.said (
    id uuid primary key,
    tx bigint not null,
    topic text not null,
    key text,
    n bigint not null,
    payload_sha256 text,
    headers jsonb
  );
  create table app.poison (id uuid primary key))";

// The lock on the key comes before the message's number is drawn, as docs/ordering.md asks for.
constexpr const char* say = R"(
  with c as (insert into app.counter as k values ($4, 1)
             on conflict (key) do update set n = k.n + 1 returning k.n),
       s as (insert into app.said (id, tx, topic, key, n, payload_sha256, headers)
             select $1::uuid, $2::bigint, $3::text, $4, c.n,
                    encode(sha256(decode($5::text, 'hex')), 'hex'), $6::jsonb
             from c)
  insert into outbox.message (id, topic, key, payload, headers)
  select $1::uuid, $3::text, convert_to($4, 'UTF8'), decode($5::text, 'hex'), $6::jsonb from c)";
constexpr const char* say_without_key = R"(
  with s as (insert into app.said (id, tx, topic, key, n, payload_sha256, headers)
             values ($1::uuid, $2::bigint, $3::text, null, 0,
                     encode(sha256(decode($4::text, 'hex')), 'hex'), $5::jsonb))
  insert into outbox.message (id, topic, key, payload, headers)
  values ($1::uuid, $3::text, null, decode($4::text, 'hex'), $5::jsonb))";

constexpr const char* say_many = R"(
  with c as (insert into app.counter as k values ($3, $4)
             on conflict (key) do update set n = k.n + $4 returning k.n),
       m as materialized (select gen_random_uuid() as id, c.n - $4 + i as n,
                                 convert_to(repeat(md5((c.n - $4 + i)::text), 6), 'UTF8') as payload
                          from c, generate_series(1, $4) i),
       s as (insert into app.said (id, tx, topic, key, n, payload_sha256)
             select m.id, $1::bigint, $2::text, $3::text, m.n, encode(sha256(m.payload), 'hex')
             from m)
  insert into outbox.message (id, topic, key, payload)
  select m.id, $2::text, convert_to($3, 'UTF8'), m.payload from m order by m.n)";

}  // namespace

bool chance(Random& random, double probability) {
  return std::bernoulli_distribution(probability)(random);
}

std::int64_t between(Random& random, std::int64_t from, std::int64_t to) {
  return std::uniform_int_distribution<std::int64_t>(from, to)(random);
}

// One of them, with its connection.
class Applications::Application {
 public:
  Application(Applications& all, int number)
      : all_(all),
        random_(all.seed_ * 1'000 + static_cast<std::uint64_t>(number)),
        number_(number),
        is_bulk_(all.options_.bulk > 0 &&
                 number == all.options_.applications + (all.options_.long_transaction ? 1 : 0)) {}

  // Returns when the transaction is over, however it ended.
  void transact(bool holds_open) {
    const std::int64_t id = ++all_.next_tx_;
    const bool asynchronous = chance(random_, all_.options_.asynchronous);
    bool meant = false;
    auto what = CommitAnswer::What::failed;
    try {
      if (!connection_) connection_ = std::make_unique<pqxx::connection>(all_.dsn());
      finish_own();
      meant = true;
      if (!holds_open && all_.options_.prepared && chance(random_, is_prepared)) {
        prepare(id);
      } else {
        pqxx::work tx(*connection_);
        if (asynchronous) tx.exec("set local synchronous_commit = off");
        speak(tx, id, holds_open ? "own" + std::to_string(number_) : "");
        if (holds_open) {
          all_.nap(Millis{between(random_, 200, held_open_max.count())});
          say_one(
              tx, id,
              some_key(
                  random_));  // of a key that others, which began later, have written to meanwhile
        }
        if (chance(random_, rolls_back)) {
          tx.abort();
          ++all_.rolled_back_;
          return;
        }
        tx.commit();
      }
      what = CommitAnswer::What::committed;
    } catch (const pqxx::in_doubt_error&) {
      what = CommitAnswer::What::unknown;
    } catch (const pqxx::broken_connection&) {
      what = CommitAnswer::What::unknown;  // libpqxx does not always know whether it was amid the
                                           // commit
    } catch (const pqxx::failure&) {
    }
    if (what != CommitAnswer::What::committed) connection_.reset();
    if (meant) all_.note({what, id, asynchronous});
  }

  bool connected() const { return connection_ != nullptr; }

 private:
  void speak(pqxx::transaction_base& tx, std::int64_t id, const std::string& own_key) {
    tx.exec_params("insert into app.tx values ($1)", id);
    if (is_bulk_) {
      const std::string key = some_key(random_);
      tx.exec_params(say_many, id, topic_of(key), key, all_.options_.bulk);
      return;
    }
    std::vector<std::optional<std::string>> of(static_cast<std::size_t>(between(random_, 1, 5)));
    const std::string first = some_key(random_);
    for (auto& key : of) {
      if (chance(random_, has_no_key)) continue;
      key = !own_key.empty() ? own_key : chance(random_, 0.5) ? first : some_key(random_);
    }
    std::sort(of.begin(), of.end());  // in one order everywhere: no deadlocks
    for (const auto& key : of) {
      if (chance(random_, partly_rolls_back)) {
        tx.exec("savepoint s");
        say_one(tx, id, key);
        tx.exec("rollback to savepoint s");
      }
      say_one(tx, id, key);
    }
  }

  void say_one(pqxx::transaction_base& tx, std::int64_t id, const std::optional<std::string>& key) {
    const std::string uuid = Uuid::random().text();
    std::string topic = key ? topic_of(*key) : all_.topics_[random_() % all_.topics_.size()];
    std::optional<std::string> payload;
    if (!chance(random_, has_no_payload))
      payload = outbox::common::hex(random_bytes(random_, some_size(random_)));
    if (all_.options_.poison > 0 && chance(random_, all_.options_.poison)) {
      if (chance(random_, 0.5)) payload = outbox::common::hex(random_bytes(random_, too_large));
      else topic = chance(random_, 0.5) ? "__internal" : "no topic!";
      tx.exec_params("insert into app.poison values ($1::uuid)", uuid);
    }
    std::optional<std::string> headers;
    if (chance(random_, has_headers)) headers = odd_headers;
    const auto text = [](const std::optional<std::string>& t) { return t ? t->c_str() : nullptr; };
    if (key) {
      tx.exec_params(say, uuid, id, topic, *key, text(payload), text(headers));
    } else {
      tx.exec_params(say_without_key, uuid, id, topic, text(payload), text(headers));
    }
  }

  const std::string& topic_of(const std::string& key) const {
    return all_.topics_[std::hash<std::string>()(key) % all_.topics_.size()];
  }

  // What this application prepared before its connection broke: all others may wait for a key that
  // it has locked.
  void finish_own() {
    if (prepared_.empty()) return;
    pqxx::nontransaction raw(*connection_);
    if (!raw.exec("select from pg_prepared_xacts where gid = " + prepared_).empty()) {
      raw.exec((chance(random_, 0.5) ? "commit prepared " : "rollback prepared ") + prepared_);
    }
    prepared_.clear();
  }

  void prepare(std::int64_t id) {
    pqxx::nontransaction raw(*connection_);
    const std::string gid = "'app-" + std::to_string(id) + "'";
    prepared_ = gid;
    raw.exec("begin");
    try {
      speak(raw, id, {});
      raw.exec("prepare transaction " + gid);
    } catch (const pqxx::sql_error&) {
      raw.exec("rollback");
      throw;
    }
    raw.exec("commit prepared " + gid);
    prepared_.clear();
  }

  Applications& all_;
  Random random_;
  const int number_;
  const bool is_bulk_;
  std::unique_ptr<pqxx::connection> connection_;
  std::string prepared_;  // the transaction that it prepared and has not finished; empty: none
};

Applications::Applications(test::TestOutbox& db, std::vector<std::string> topics,
                           std::uint64_t seed, const WorkloadOptions& options)
    : topics_(std::move(topics)), seed_(seed), options_(options), dsn_(db.dsn()) {
  db.sql(create_tables);
  const int all =
      options.applications + (options.long_transaction ? 1 : 0) + (options.bulk > 0 ? 1 : 0);
  for (int number = 0; number < all; ++number)
    threads_.emplace_back([this, number] { run(number); });
}

Applications::~Applications() { stop(); }

void Applications::run(int number) {
  const bool holds_open = number == options_.applications;
  Application application(*this, number);
  Random random(seed_ * 7'919 + static_cast<std::uint64_t>(number));
  std::exponential_distribution<double> thinks(1.0 / static_cast<double>(options_.think.count()));
  while (may_go_on(holds_open)) {
    application.transact(holds_open);
    const bool was_there = application.connected();
    {
      const std::lock_guard lock(mutex_);
      if (!holds_open) --busy_;
      changed_.notify_all();
    }
    nap(was_there ? Millis{static_cast<std::int64_t>(thinks(random))} : away);
  }
}

// The one that holds transactions open is not waited for, and does not count.
bool Applications::may_go_on(bool holds_open) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return open_ || stopping_; });
  if (stopping_) return false;
  if (!holds_open) ++busy_;
  return true;
}

void Applications::nap(Millis most) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, most, [&] { return stopping_; });
}

void Applications::note(const CommitAnswer& answer) {
  const std::lock_guard lock(mutex_);
  answers_.push_back(answer);
}

std::string Applications::dsn() {
  const std::lock_guard lock(mutex_);
  return dsn_;
}

void Applications::go() {
  const std::lock_guard lock(mutex_);
  open_ = true;
  changed_.notify_all();
}

void Applications::pause() {
  {
    const std::lock_guard lock(mutex_);
    open_ = false;
  }
  for (const Deadline deadline(Millis{60'000}); !all_are_idle_within(Millis{3'000});) {
    if (deadline.passed()) throw std::runtime_error("the applications do not pause");
    finish_prepared("2 seconds");  // an application that is not idle waits for a key that one of
                                   // them has locked
  }
  finish_prepared("0");
}

bool Applications::all_are_idle_within(Millis most) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, most, [&] { return busy_ == 0; });
}

// A client that prepared a transaction and died must finish it later; half of them are committed.
void Applications::finish_prepared(const std::string& older_than) {
  pqxx::connection connection(dsn());
  pqxx::nontransaction raw(connection);
  for (const auto& row :
       raw.exec("select gid from pg_prepared_xacts where database = current_database() and "
                "prepared <= clock_timestamp() - interval '" +
                older_than + "'")) {
    const std::string gid = row[0].as<std::string>();
    const bool commit = std::stoll(gid.substr(gid.find('-') + 1)) % 2 == 0;
    raw.exec((commit ? "commit prepared '" : "rollback prepared '") + gid + "'");
  }
}

void Applications::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  for (auto& t : threads_) {
    if (t.joinable()) t.join();
  }
}

void Applications::move_to(const std::string& dsn) {
  const std::lock_guard lock(mutex_);
  dsn_ = dsn;
}

std::vector<CommitAnswer> Applications::take_answers() {
  const std::lock_guard lock(mutex_);
  return std::exchange(answers_, {});
}

}  // namespace relay::faults
