// SPDX-License-Identifier: Apache-2.0
// A small shop that never calls out from its transactions: each order is committed together with
// the e-mail, the charge and the upload that must follow, as messages of the outbox. What is rolled
// back leaves no message behind.
//
// The tables shop.attempt and shop.effect are not needed to use the outbox. They are there so that
// outbox-verify knows afterwards what must have arrived.
#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <iostream>
#include <pqxx/pqxx>
#include <random>
#include <string>
#include <thread>
#include <vector>

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

namespace {

// libpqxx 7.9 has another name for a statement with parameters.
template <class... Args>
pqxx::result run(pqxx::transaction_base& tx, const std::string& sql, const Args&... args) {
#if PQXX_VERSION_MAJOR > 7 || (PQXX_VERSION_MAJOR == 7 && PQXX_VERSION_MINOR >= 9)
  return tx.exec(sql, pqxx::params{args...});
#else
  return tx.exec_params(sql, args...);
#endif
}

struct Options {
  std::string dsn;
  int seconds = 10;
  long orders = 0;  // 0: as many as come
  int threads = 4;
  int customers = 20;
  int roll_back_percent = 10;
  int hold_seconds = 5;  // 0: no long transaction
};

// Customer 0 belongs to the long transaction, so that nobody else waits for it.
constexpr const char* schema = R"(
create schema if not exists shop;
create table if not exists shop.customer (
  id integer primary key,
  effects bigint not null default 0
);
create table if not exists shop.orders (
  id bigint primary key,
  customer integer not null references shop.customer,
  cents integer not null
);
create table if not exists shop.attempt (
  id bigint generated always as identity primary key,
  planned integer not null
);
create table if not exists shop.effect (
  id text primary key,
  key text not null,
  nth bigint not null,
  kind text not null
);
)";

// Places orders, one at a time. Each thread has its own.
class Till {
 public:
  explicit Till(const std::string& dsn) : connection_(dsn), attempts_(dsn) {}

  enum class End { commit, roll_back };

  // The order and its three effects become true together, or not at all. `hold_seconds`: the
  // transaction stays open so long.
  void place_order(int customer, int cents, End end, int hold_seconds = 0) {
    const auto order = next_order();
    pqxx::work tx(connection_);
    // Lock the customer first, then enqueue: the messages of one customer arrive in the order of
    // these transactions.
    auto nth =
        run(tx,
            "update shop.customer set effects = effects + 3 where id = $1 returning effects - 3",
            customer)[0][0]
            .as<long>();
    run(tx, "insert into shop.orders (id, customer, cents) values ($1, $2, $3)", order, customer,
        cents);
    const std::string key = "customer-" + std::to_string(customer);
    for (const char* kind : {"emails", "charges", "uploads"}) {
      const std::string id = "order-" + std::to_string(order) + "-" + kind;
      const std::string payload = R"({"order": )" + std::to_string(order) + R"(, "cents": )" +
                                  std::to_string(cents) + R"(, "email": ")" + id +
                                  R"(@customers.example"})";
      run(tx, "select outbox.enqueue($1, $2, $3::jsonb, dedup_key => $4)",
          std::string("shop.") + kind, key, payload, id);
      run(tx, "insert into shop.effect (id, key, nth, kind) values ($1, $2, $3, $4)", id, key,
          ++nth, kind);
    }
    if (hold_seconds > 0) run(tx, "select pg_sleep($1)", hold_seconds);
    if (end == End::commit) {
      tx.commit();
    } else {
      tx.abort();
    }
  }

 private:
  // Recorded on its own, at once, so that an order that is rolled back is known as well.
  long next_order() {
    pqxx::nontransaction tx(attempts_);
    return tx.exec("insert into shop.attempt (planned) values (3) returning id")[0][0].as<long>();
  }

  pqxx::connection connection_;
  pqxx::connection attempts_;
};

void open_shop(const Options& options) {
  pqxx::connection connection(options.dsn);
  pqxx::work tx(connection);
  tx.exec("set local client_min_messages = warning");
  tx.exec(schema);
  run(tx, "insert into shop.customer (id) select generate_series(0, $1) on conflict do nothing",
      options.customers);
  tx.commit();
}

std::atomic<long> placed{0};
std::atomic<long> committed{0};
std::atomic<long> rolled_back{0};
std::atomic<bool> broken{false};

// A server that went away comes back. Whether the last order was committed may then be unknown
// here; the tables know.
bool is_passing(const pqxx::failure& e) {
  const auto* refused = dynamic_cast<const pqxx::sql_error*>(&e);
  return refused == nullptr || refused->sqlstate().starts_with("57");
}

void serve(const Options& options, unsigned seed, Clock::time_point closing_time) {
  std::mt19937 random(seed);
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  while (Clock::now() < closing_time && !broken &&
         (options.orders == 0 || placed < options.orders)) {
    try {
      Till till(options.dsn);
      while (Clock::now() < closing_time && (options.orders == 0 || placed++ < options.orders)) {
        const bool give_up = below(100) < options.roll_back_percent;
        till.place_order(1 + below(options.customers), 100 + below(10'000),
                         give_up ? Till::End::roll_back : Till::End::commit);
        ++(give_up ? rolled_back : committed);
      }
    } catch (const pqxx::failure& e) {
      std::cerr << "shop: " << e.what() << '\n';
      if (!is_passing(e)) broken = true;
      std::this_thread::sleep_for(200ms);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Commits orders with e-mails, charges and uploads through the outbox.", "shop");
  app.add_option("--dsn", options.dsn, "PostgreSQL connection string")
      ->envname("PGDSN")
      ->required();
  app.add_option("--seconds", options.seconds, "How long the shop is open")->capture_default_str();
  app.add_option("--orders", options.orders, "Orders after which it closes; 0: it does not")
      ->capture_default_str();
  app.add_option("--threads", options.threads, "Tills that take orders at the same time")
      ->capture_default_str();
  app.add_option("--customers", options.customers, "Customers that order")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--roll-back", options.roll_back_percent,
                 "Orders in a hundred that are rolled back")
      ->capture_default_str();
  app.add_option("--hold", options.hold_seconds,
                 "Seconds that one transaction stays open meanwhile; 0: none")
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  try {
    open_shop(options);
    const auto closing_time = Clock::now() + std::chrono::seconds(options.seconds);
    std::vector<std::jthread> threads;
    for (int i = 0; i < options.threads; ++i)
      threads.emplace_back(serve, options, static_cast<unsigned>(i), closing_time);
    if (options.hold_seconds > 0) {
      Till(options.dsn).place_order(0, 4'200, Till::End::commit, options.hold_seconds);
      ++committed;
    }
  } catch (const std::exception& e) {
    std::cerr << "shop: " << e.what() << '\n';
    return 1;
  }
  std::cout << "the shop committed " << committed << " orders and rolled back " << rolled_back
            << '\n';
  return broken ? 1 : 0;
}
