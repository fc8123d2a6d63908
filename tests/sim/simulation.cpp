// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/simulation.h"

#include <algorithm>

#include "common/check.h"

namespace relay::sim {
namespace {

constexpr std::int64_t points_max =
    20'000;  // no schedule needs so many, unless the relay goes round in circles
constexpr std::chrono::microseconds step_time{100};
constexpr std::chrono::seconds transaction_timeout{15};

}  // namespace

Simulation::Simulation(const SimulationOptions& options) : database_(keys), options_(options) {
  for (std::size_t i = 0; i < options.modes.size(); ++i)
    processes_.push_back(std::make_unique<Process>(*this, i));
}

Simulation::~Simulation() {
  for (auto& p : processes_) CHECK(!p->alive());
}

// Processes ---------------------------------------------------------------------------------------

void Simulation::Process::start() {
  stop_ = false;
  killed_ = false;
  wakes_at_ = simulation_.now_;
  fiber_.begin([this] { life(); });
}

void Simulation::Process::life() {
  if (killed_) return;
  SimDatabase database(simulation_.database_, *this,
                       {.holder = ++simulation_.last_holder_,
                        .order = simulation_.options_.order,
                        .page_rows = simulation_.options_.page_rows});
  SimReader reader(database);
  SimJournal journal(database);
  SimLease lease(database);
  SimMaintenance maintenance(database);
  SimProducer producer(simulation_.broker_, *this, simulation_.options_.names_poison);
  LoopOptions options{.relay = "main",
                      .mode = simulation_.options_.modes[index_],
                      .order = simulation_.options_.order,
                      .jitter_seed = simulation_.options_.seed};
  Loop loop({database, reader, journal, lease, producer, maintenance, *this}, std::move(options));
  try {
    if (auto r = loop.run(); !r && simulation_.stopped_.empty())
      simulation_.stopped_ = "a relay stopped: " + r.error().what;
  } catch (const Killed&) {
  }
}

void Simulation::Process::kill() {
  killed_ = true;
  fiber_.resume();
}

void Simulation::Process::pause_for(Clock::duration time) {
  wakes_at_ = simulation_.now_ + time;
  if (simulation_.is_next(*this)) {
    simulation_.now_ = wakes_at_;
    return;
  }
  fiber_.give_way();
  if (killed_) throw Killed{};
}

void Simulation::Process::point() {
  ++simulation_.points_;
  simulation_.now_ += step_time;
  simulation_.between(*this);
}

// Application -------------------------------------------------------------------------------------

// Takes the lock on the key, and with it a transaction id.
void Simulation::app_begin(int key) {
  const auto holds = [&](const OpenTransaction& t) { return key != no_key && t.key == key; };
  if (std::any_of(open_.begin(), open_.end(), holds)) return;
  open_.push_back({database_.begin(), key, 0, false});
}

void Simulation::app_insert(std::size_t which, Trait trait) {
  if (which >= open_.size() || open_[which].prepared) return;
  OpenTransaction& t = open_[which];
  ++t.messages;
  const int before = t.key == no_key ? 0 : database_.now.counters[static_cast<std::size_t>(t.key)];
  database_.insert({0, t.xid, ++last_id_, t.key, before + t.messages, trait});
}

void Simulation::app_end(std::size_t which, PostgresModel::Outcome outcome, bool durably) {
  if (which >= open_.size()) return;
  OpenTransaction& t = open_[which];
  database_.end(t.xid, outcome);
  if (outcome == PostgresModel::Outcome::prepared) {
    t.prepared = true;
    database_.flush();
    return;
  }
  if (outcome == PostgresModel::Outcome::committed && t.key != no_key)
    database_.now.counters[static_cast<std::size_t>(t.key)] += t.messages;
  if (durably) database_.flush();
  open_.erase(open_.begin() + static_cast<std::ptrdiff_t>(which));
}

void Simulation::operator_decides(std::size_t which, bool discard, bool fix) {
  auto& parked = database_.now.parked;
  if (which >= parked.size() || !parked[which].undecided() || parked[which].follows) return;
  parked[which].decision = discard ? ParkedRow::Decision::discard : ParkedRow::Decision::release;
  if (fix) parked[which].row.trait = Trait::good;
  database_.flush();
}

void Simulation::database_crashes() {
  database_.crash();
  std::erase_if(open_, [&](const OpenTransaction& t) {
    return database_.outcome(t.xid) != PostgresModel::Outcome::prepared;
  });
}

void Simulation::database_fails_over() {
  database_.fail_over();
  // Prepared transactions of the standby, which it may have under ids that the old server used for
  // others.
  for (Xid xid = PostgresModel::first_xid;
       xid < PostgresModel::first_xid + database_.now.transactions.size(); ++xid) {
    if (database_.outcome(xid) == PostgresModel::Outcome::prepared)
      database_.end(xid, PostgresModel::Outcome::aborted);
  }
  database_.flush();
  open_.clear();
  failed_over_ = true;
}

// The run -----------------------------------------------------------------------------------------

void Simulation::start_dead() {
  for (auto& p : processes_) {
    if (!p->alive() && may_start(p->index())) p->start();
  }
}

// Whether this process would be resumed anyway if it gave way; to give way costs more than most of
// what happens.
bool Simulation::is_next(const Process& process) {
  start_dead();
  const auto comes_after = [&](const auto& p) {
    return p.get() == &process || !p->alive() || p->wakes_at() > process.wakes_at();
  };
  return !calm() && std::all_of(processes_.begin(), processes_.end(), comes_after);
}

void Simulation::step() {
  start_dead();
  if (!calm() || !broker_.has_open_records()) nothing_open_at_ = now_;
  if (now_ - nothing_open_at_ > transaction_timeout) broker_.time_out();
  Process* next = nullptr;
  for (auto& p : processes_) {
    if (!p->alive()) continue;
    if (next == nullptr || p->wakes_at() < next->wakes_at() || (p->wakes_at() <= now_ && maybe(2)))
      next = p.get();
  }
  if (next == nullptr) {
    now_ += Millis{10};
    return;
  }
  now_ = std::max(now_, next->wakes_at());
  next->resume();
}

bool Simulation::settled() const {
  if (!open_.empty() || !database_.late.empty() || broker_.has_open_records()) return false;
  const auto& journal = database_.now.journal;
  if (!journal.empty() && !journal.back().delivered) return false;
  const auto covered = [&](const Row& r) {
    if (!database_.committed(r.xid)) return true;
    if (journal.empty()) return false;
    const PageBounds& newest = journal.back().batch->bounds;
    return newest.base.finished(r.xid) ||
           (newest.upto.finished(r.xid) && (newest.exhausted || r.seq <= newest.upto_seq));
  };
  const auto& messages = database_.now.messages;
  return std::all_of(messages.begin(), messages.end(), covered) &&
         database_.releasable(options_.order == KeyOrder::key, 1).taken.empty();
}

std::string Simulation::run() {
  std::string wrong = run_until_settled();
  for (auto& p : processes_) {
    if (p->alive()) p->kill();
  }
  if (!wrong.empty()) return wrong;
  while (!broker_.late.empty()) broker_.arrive(broker_.late.size() - 1);
  if (failed_over_) broker_.time_out();  // of a batch that no database knows any more
  const bool may_repeat =
      std::count(options_.modes.begin(), options_.modes.end(), Mode::at_least_once) != 0;
  wrong = check_delivery(database_, broker_,
                         {options_.order, may_repeat || failed_over_, failed_over_});
  return wrong.empty() ? wrong : wrong + "\n" + describe(database_, broker_);
}

std::string Simulation::run_until_settled() {
  while (stopped_.empty() && !(calm() && settled())) {
    step();
    if (points_ > points_max) return "it does not come to an end\n" + describe(database_, broker_);
  }
  return stopped_.empty() ? stopped_ : stopped_ + "\n" + describe(database_, broker_);
}

// The verdict -------------------------------------------------------------------------------------

namespace {

std::string of(const Row& r) {
  return "message " + std::to_string(r.id) + " (seq " + std::to_string(r.seq) + ", xid " +
         std::to_string(r.xid) + ", key " + std::to_string(r.key) + ", number " +
         std::to_string(r.nth) + ")";
}

std::string check_journal(const PostgresModel& database) {
  std::int64_t before = 0;
  for (const Opened& o : database.now.journal) {
    if (o.batch->number <= before) return "the journal's numbers do not ascend";
    before = o.batch->number;
    if (!o.delivered) return "batch " + std::to_string(before) + " is not delivered";
  }
  return {};
}

// Only keys of which nothing was ever parked, unless keys keep their order then as well.
std::string check_order(const std::vector<Row>& arrived, const PostgresModel& database,
                        KeyOrder order) {
  for (int key = 0; key < keys; ++key) {
    const auto of_key = [&](const ParkedRow& p) { return p.row.key == key; };
    const auto& parked = database.now.parked;
    if (order == KeyOrder::message && std::any_of(parked.begin(), parked.end(), of_key)) continue;
    int before = 0;
    for (const Row& r : arrived) {
      if (r.key != key) continue;
      if (r.nth < before) return of(r) + " came out of order";
      before = r.nth;
    }
  }
  return {};
}

}  // namespace

std::string describe(const PostgresModel& database, const Broker& broker) {
  std::string out;
  for (const Opened& o : database.now.journal) {
    const Batch& b = *o.batch;
    out += "batch " + std::to_string(b.number) + " epoch " + std::to_string(b.epoch) +
           (b.release ? " release" : "") + " base " + b.bounds.base.text() + " upto " +
           b.bounds.upto.text() + " seq (" + std::to_string(b.bounds.after_seq) + ", " +
           std::to_string(b.bounds.upto_seq) + "] messages " + std::to_string(b.messages) +
           (o.delivered ? "\n" : ", not delivered\n");
  }
  for (const Row& r : database.now.pruned) out += "pruned " + of(r) + "\n";
  for (const Row& r : database.now.messages)
    out += (database.committed(r.xid) ? "" : "not committed: ") + of(r) + "\n";
  for (const ParkedRow& p : database.now.parked) {
    out += "parked for " + std::to_string(p.parked_for) + ": " + of(p.row) + ", decision " +
           std::to_string(static_cast<int>(p.decision)) + ", released in " +
           std::to_string(p.released_in) + (p.follows ? ", follows\n" : "\n");
  }
  for (std::size_t p = 0; p < partitions; ++p) {
    out += "partition " + std::to_string(p) + ":";
    for (const Record& r : broker.log[p]) {
      const char* const state = r.state == Record::State::committed ? ""
                                : r.state == Record::State::open    ? "(open)"
                                                                    : "(aborted)";
      out += " " +
             (r.progress ? "batch " + std::to_string(r.progress->number) : std::to_string(r.id)) +
             state;
    }
    out += "\n";
  }
  return out;
}

std::string check_delivery(const PostgresModel& database, const Broker& broker,
                           const Expectations& expectations) {
  if (auto wrong = check_journal(database); !wrong.empty()) return wrong;
  std::vector<Row> committed = database.now.pruned;
  for (const Row& r : database.now.messages) {
    if (database.committed(r.xid)) committed.push_back(r);
  }
  std::vector<Row> arrived;  // first copies
  for (std::size_t p = 0; p < progress_partition; ++p) {
    for (const Record& record : broker.log[p]) {
      if (record.state == Record::State::open) return "a transaction was left open";
      if (record.state == Record::State::aborted) continue;
      const auto by_id = [&](const Row& r) { return r.id == record.id; };
      const auto row = std::find_if(committed.begin(), committed.end(), by_id);
      if (row == committed.end() && expectations.went_back) continue;
      if (row == committed.end())
        return "message " + std::to_string(record.id) + " was never committed";
      const bool repeats = std::any_of(arrived.begin(), arrived.end(), by_id);
      if (repeats && !expectations.may_repeat) return of(*row) + " came twice";
      if (!repeats) arrived.push_back(*row);
    }
  }
  for (const Row& r : committed) {
    const auto same = [&](const ParkedRow& p) {
      return p.row.id == r.id && (p.released_in == 0 || p.decision == ParkedRow::Decision::discard);
    };
    const bool is_parked =
        std::any_of(database.now.parked.begin(), database.now.parked.end(), same);
    const bool has_arrived =
        std::any_of(arrived.begin(), arrived.end(), [&](const Row& a) { return a.id == r.id; });
    if (!is_parked && !has_arrived) return of(r) + " was lost";
    if (is_parked && has_arrived && !expectations.went_back)
      return of(r) + " came though it is parked";
  }
  return check_order(arrived, database, expectations.order);
}

}  // namespace relay::sim
