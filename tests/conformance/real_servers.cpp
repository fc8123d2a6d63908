// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <map>
#include <pqxx/pqxx>

#include "relay/kafka/producer.h"
#include "relay/postgres/database.h"
#include "relay/postgres/journal.h"
#include "relay/postgres/lease.h"
#include "relay/postgres/reader.h"
#include "tests/conformance/servers_under_test.h"
#include "tests/support/event_fd.h"
#include "tests/support/kafka_log.h"
#include "tests/support/test_outbox.h"

namespace relay::conformance {
namespace {

constexpr std::int64_t message_bytes_max = 1'000;

// Of all stages, which come one after the other, each with a database of its own.
test::ScratchPostgres& server() {
  static test::ScratchPostgres one({"max_prepared_transactions=5"});
  return one;
}

class RealStage : public ServersUnderTest {
 public:
  RealStage()
      : server_(server()),
        db_(server_),
        topic_(db_.topic("t", 2)),
        compacted_(db_.topic("compacted", 1, {"cleanup.policy=compact"})) {}

  Relay relay(const std::string& name) override {
    auto& p = processes_[name];
    if (!p) p = std::make_unique<Process>(*this, name);
    return {p->database, p->reader, p->journal, p->lease, p->producer};
  }

  void begin(const std::string& transaction) override {
    auto& t = open_[transaction];
    t.connection = std::make_unique<pqxx::connection>(db_.dsn());
    t.work = std::make_unique<pqxx::nontransaction>(*t.connection);
    t.work->exec("begin");
    t.work->exec("select pg_catalog.pg_current_xact_id()");
  }
  void insert(const std::string& transaction, int message, int key, Trait trait) override {
    const std::string& to = trait == Trait::refused ? compacted_ : topic_;
    const std::string payload =
        std::to_string(message) +
        (trait == Trait::too_large ? " " + std::string(message_bytes_max, 'x') : "");
    open_.at(transaction)
        .work->exec("insert into outbox.message (topic, key, payload) values ('" + to + "', " +
                    (key == sim::no_key ? "null" : "'" + std::to_string(key) + "'") + ", '" +
                    payload + "')");
  }
  void commit(const std::string& transaction) override { end(transaction, "commit"); }
  void prepare(const std::string& transaction) override {
    open_.at(transaction).work->exec("prepare transaction '" + transaction + "'");
    open_.erase(transaction);
  }
  void abort(const std::string& transaction) override { end(transaction, "rollback"); }
  void delete_messages() override { db_.sql("delete from outbox.message"); }

  void decide(int message, bool discard) override {
    db_.sql("update outbox.parked set resolution = '" +
            std::string(discard ? "discard" : "release") +
            "', decided_by = 'test', decided_at = clock_timestamp() where released_in is null and "
            "split_part(convert_from(payload, 'UTF8'), ' ', 1) = '" +
            std::to_string(message) + "'");
  }
  void crash_database() override {
    server_.stop(test::ScratchPostgres::Stop::immediate);
    server_.start();
  }
  void let_lease_run_out() override {
    test::eventually("the lease to run out", [&] {
      return db_.value("select expires_at <= clock_timestamp() from outbox.lease") == "t";
    });
  }

  int number_of(const Message& m) const override {
    return m.payload ? std::stoi(std::string(*m.payload)) : 0;
  }
  std::vector<int> arrived() override {
    std::vector<int> numbers;
    const auto log = test::read_log(db_.kafka().brokers(), {topic_, compacted_},
                                    test::Isolation::read_committed, Millis{1'500});
    for (const auto& r : log.records) numbers.push_back(std::stoi(*r.payload));
    std::sort(numbers.begin(), numbers.end());
    return numbers;
  }

 private:
  struct Process {
    Process(RealStage& servers, const std::string& name) {
      in_postgres.dsn = Secret(servers.db_.dsn());
      in_postgres.relay = servers.db_.name();
      in_postgres.holder = name;
      in_postgres.lease_ttl = lease_ttl;
      in_postgres.batch_messages_max = page_rows;
      in_postgres.message_bytes_max = message_bytes_max;
      in_kafka.brokers = servers.db_.kafka().brokers();
      in_kafka.relay = servers.db_.name();
      in_kafka.progress_topic = "outbox-progress." + servers.db_.name();
      in_kafka.allow = {"*"};
      in_kafka.message_bytes_max = message_bytes_max;
    }
    postgres::Options in_postgres;
    kafka::Options in_kafka;
    test::EventFd wake;
    postgres::PgDatabase database{in_postgres};
    postgres::PgReader reader{in_postgres, database};
    postgres::PgJournal journal{in_postgres, database};
    postgres::PgLease lease{in_postgres, database};
    kafka::KafkaProducer producer{in_kafka, wake.fd};
  };
  struct OpenTransaction {
    std::unique_ptr<pqxx::connection> connection;
    std::unique_ptr<pqxx::nontransaction> work;
  };

  void end(const std::string& transaction, const std::string& how) {
    if (open_.contains(transaction)) {
      open_.at(transaction).work->exec(how);
      open_.erase(transaction);
    } else {
      db_.sql(how + " prepared '" + transaction + "'");
    }
  }

  test::ScratchPostgres& server_;
  test::TestOutbox db_;
  std::string topic_;
  std::string compacted_;
  std::map<std::string, OpenTransaction> open_;
  std::map<std::string, std::unique_ptr<Process>> processes_;
};

}  // namespace

std::unique_ptr<ServersUnderTest> real_servers() { return std::make_unique<RealStage>(); }

}  // namespace relay::conformance
