// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <map>

#include "tests/conformance/servers_under_test.h"
#include "tests/sim/database_ports.h"
#include "tests/sim/sim_producer.h"

namespace relay::conformance {
namespace {

constexpr int keys = 4;

class NoFaults : public sim::FaultSchedule {
 public:
  Clock::time_point now() const override { return now_; }
  void pass(Clock::duration time) { now_ += time; }

 private:
  Clock::time_point now_{std::chrono::hours(1)};
};

class ModelStage : public ServersUnderTest {
 public:
  Relay relay(const std::string& name) override {
    auto& p = processes_[name];
    if (!p) p = std::make_unique<Process>(*this, static_cast<int>(processes_.size()));
    return {p->database, p->reader, p->journal, p->lease, p->producer};
  }

  void begin(const std::string& transaction) override { open_[transaction] = database_.begin(); }
  void insert(const std::string& transaction, int message, int key, Trait trait) override {
    database_.insert({0, open_.at(transaction), message, key, 0, trait});
  }
  void commit(const std::string& transaction) override {
    end(transaction, sim::PostgresModel::Outcome::committed);
  }
  void prepare(const std::string& transaction) override {
    end(transaction, sim::PostgresModel::Outcome::prepared);
  }
  void abort(const std::string& transaction) override {
    end(transaction, sim::PostgresModel::Outcome::aborted);
  }
  void delete_messages() override { database_.now.messages.clear(); }

  void decide(int message, bool discard) override {
    for (sim::ParkedRow& p : database_.now.parked) {
      if (p.row.id == message)
        p.decision =
            discard ? sim::ParkedRow::Decision::discard : sim::ParkedRow::Decision::release;
    }
  }
  void crash_database() override { database_.crash(); }
  void let_lease_run_out() override { schedule_.pass(lease_ttl); }

  int number_of(const Message& m) const override { return sim::id_of(m); }
  std::vector<int> arrived() override {
    std::vector<int> numbers;
    for (std::size_t p = 0; p < sim::progress_partition; ++p) {
      for (const sim::Record& r : broker_.log[p]) {
        if (r.state == sim::Record::State::open) break;
        if (r.state == sim::Record::State::committed) numbers.push_back(r.id);
      }
    }
    std::sort(numbers.begin(), numbers.end());
    return numbers;
  }

 private:
  struct Process {
    Process(ModelStage& servers, int holder)
        : database(servers.database_, servers.schedule_,
                   {.holder = holder,
                    .page_rows = page_rows,
                    .release_rows = release_rows,
                    .lease_ttl = lease_ttl}),
          producer(servers.broker_, servers.schedule_, false) {}
    sim::SimDatabase database;
    sim::SimReader reader{database};
    sim::SimJournal journal{database};
    sim::SimLease lease{database};
    sim::SimProducer producer;
  };

  void end(const std::string& transaction, sim::PostgresModel::Outcome outcome) {
    database_.end(open_.at(transaction), outcome);
    database_.flush();
  }

  NoFaults schedule_;
  sim::PostgresModel database_{keys};
  sim::Broker broker_;
  std::map<std::string, Xid> open_;
  std::map<std::string, std::unique_ptr<Process>> processes_;
};

}  // namespace

std::unique_ptr<ServersUnderTest> simulated_servers() { return std::make_unique<ModelStage>(); }

}  // namespace relay::conformance
