// SPDX-License-Identifier: Apache-2.0
#include "tests/faults/baseline.h"

#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "relay/base/uuid.h"
#include "tests/faults/debezium.h"
#include "tests/support/kafka_log.h"

namespace relay::faults {
namespace {

constexpr Millis starts_within{120'000};
constexpr Millis settles_within{5'000};
constexpr std::int64_t kill_to_ms =
    10'000;  // as long as Connect waits before it notes how far it is: any moment in between
constexpr const char* scenario = "RE01";

// What arrived, by the rules of Checker: each id once, and those of a key in the order of the
// numbers that their application gave them.
class Arrivals {
 public:
  Arrivals(test::TestOutbox& db, std::vector<std::string> topics)
      : db_(db), topics_(std::move(topics)) {}

  void read() {
    const auto log =
        test::read_on(db_.kafka().brokers(), topics_, test::Isolation::read_committed, positions_);
    if (!log.unread.empty())
      throw std::runtime_error("the log could not be read to its end: " + log.unread.front());
    for (const auto& r : db_.sql("select s.id, s.topic, s.key, s.n, s.tx from app.said s")) {
      messages_.try_emplace(
          r[0].c_str(),
          Message{std::string(r[1].c_str()) + "/" + (r[2].is_null() ? "" : r[2].c_str()),
                  !r[2].is_null(), r[3].as<std::int64_t>(), r[4].as<std::int64_t>()});
    }
    for (const auto& r : log.records) take(r);
  }
  std::int64_t committed() const { return static_cast<std::int64_t>(messages_.size()); }
  bool has(const std::string& id) const { return messages_.contains(id) && messages_.at(id).here; }
  std::int64_t missing() const { return committed() - arrived; }

  // Transactions of which messages are missing, a line each.
  std::string losses() const {
    std::map<std::int64_t, std::pair<int, int>> of;
    for (const auto& [id, m] : messages_) ++(m.here ? of[m.tx].second : of[m.tx].first);
    std::string out;
    for (const auto& [tx, counts] : of) {
      if (counts.first > 0) {
        out += "transaction " + std::to_string(tx) + ": " + std::to_string(counts.first) +
               " missing, " + std::to_string(counts.second) + " arrived\n";
      }
    }
    return out;
  }

  std::int64_t arrived = 0, repeated = 0, reordered = 0;

 private:
  struct Message {
    std::string topic_and_key;
    bool has_key;
    std::int64_t n, tx;
    bool here = false;
  };

  void take(const test::KafkaRecord& r) {
    const auto found = messages_.find(r.header("id").value_or("none"));
    if (found == messages_.end())
      throw std::runtime_error("a record has an id that nobody committed: " +
                               r.header("id").value_or("none"));
    Message& m = found->second;
    if (std::exchange(m.here, true)) {
      ++repeated;
      return;
    }
    ++arrived;
    if (!m.has_key) return;
    auto& newest = newest_of_[m.topic_and_key];
    const bool moved =
        partition_of_.emplace(m.topic_and_key, r.partition).first->second != r.partition;
    if (moved || m.n <= newest) ++reordered;
    newest = std::max(newest, m.n);
  }

  test::TestOutbox& db_;
  const std::vector<std::string> topics_;
  std::map<std::string, Message> messages_;
  std::map<std::string, std::int64_t> newest_of_;
  std::map<std::string, std::int32_t> partition_of_;
  test::KafkaPositions positions_;
};

class Comparison {
 public:
  explicit Comparison(const CampaignOptions& options)
      : options_(options),
        postgres_({"max_prepared_transactions=50", "wal_level=logical"}),
        db_(postgres_, &kafka_),
        topics_{db_.topic("a", 3), db_.topic("b", 2)},
        applications_(db_, topics_, options.seed, {}),
        debezium_(db_),
        arrivals_(db_, topics_),
        random_(options.seed) {}

  void run() {
    // Before any load, so that the copy of the table, with which it begins, plays no part.
    debezium_.start();
    settle();
    until("Debezium has noted how far it is", [&] { return debezium_.has_noted_offsets(); });
    const auto until_time =
        options_.minutes ? Clock::now() + *options_.minutes : Clock::time_point::max();
    for (; rounds_ < options_.rounds && Clock::now() < until_time; ++rounds_) round();
    applications_.stop();
    settle();
    record();
  }

 private:
  void until(const std::string& what, const std::function<bool()>& condition) {
    try {
      test::eventually(
          what,
          [&] {
            if (!debezium_.running()) throw std::runtime_error("Debezium has ended");
            return condition();
          },
          starts_within);
    } catch (const std::runtime_error& e) {
      throw std::runtime_error(std::string(e.what()) + "; it said:\n" + debezium_.output());
    }
  }
  void until_it_delivers() {
    until("Debezium delivers", [&, before = arrivals_.arrived] {
      arrivals_.read();
      return arrivals_.arrived > before;
    });
  }
  // The WAL has one order: when a message arrives that was committed last, all others were met, and
  // what is still missing a while later is lost, unless a restart brings it after all.
  void settle() {
    const std::string last = Uuid::random().text();
    db_.sql("with s as (insert into app.said (id, tx, topic, n) values ('" + last + "', 0, '" +
            topics_.front() +
            "', 0)) "
            "insert into outbox.message (id, topic) values ('" +
            last + "', '" + topics_.front() + "')");
    until("the last message arrives", [&] {
      arrivals_.read();
      return arrivals_.has(last);
    });
    try {
      test::eventually(
          "all has arrived",
          [&] {
            arrivals_.read();
            return arrivals_.missing() == 0;
          },
          settles_within);
    } catch (const std::runtime_error&) {
      // Counted at the end.
    }
  }

  void round() {
    const auto before = arrivals_.repeated;
    applications_.go();
    until_it_delivers();
    const Millis after = let_run(random_, 0, kill_to_ms);
    debezium_.kill();
    arrivals_.read();  // so that what comes from now on is the next one's
    debezium_.start();
    const auto killed = Clock::now();
    until_it_delivers();
    const auto recovered = std::chrono::duration_cast<Millis>(Clock::now() - killed);
    applications_.pause();
    settle();
    const auto repeated = arrivals_.repeated - before;
    rounds_with_repeats_ += repeated > 0;
    std::cout << "debezium " << scenario << ' ' << rounds_ << " committed " << arrivals_.committed()
              << " missing " << arrivals_.missing() << " repeated " << repeated << " recovered "
              << recovered.count() << " ms; killed after " << after.count() << " ms" << std::endl;
  }

  void record() {
    const char* const version = std::getenv("OUTBOX_DEBEZIUM_VERSION");
    const nlohmann::ordered_json line = {
        {"schema", 2},
        {"kind", "baseline"},
        {"at", utc_now()},
        {"system", "Debezium " + std::string(version ? version : "")},
        {"scenario", scenario},
        {"rounds", rounds_},
        {"counts",
         {{"committed", arrivals_.committed()},
          {"arrived", arrivals_.arrived},
          {"lost", arrivals_.missing()},
          {"repeated", arrivals_.repeated},
          {"reordered", arrivals_.reordered}}},
        {"detail",
         "Kafka Connect " + options_.kafka_version +
             " standalone, pgoutput, outbox event router, stock settings; killed at a random "
             "moment of the 10 s between two notes of its offsets; " +
             std::to_string(rounds_with_repeats_) + " rounds had repeats"}};
    std::cout << arrivals_.losses() << line.dump() << std::endl;
    if (options_.record) append_line(*options_.record, "rounds-baselines.jsonl", line.dump());
  }

  const CampaignOptions& options_;
  test::ScratchPostgres postgres_;
  test::ScratchKafka kafka_;
  test::TestOutbox db_;
  const std::vector<std::string> topics_;
  Applications applications_;
  Debezium debezium_;
  Arrivals arrivals_;
  Random random_;
  int rounds_ = 0;
  int rounds_with_repeats_ = 0;
};

}  // namespace

void run_baseline(const std::string& system, const CampaignOptions& options) {
  if (system != "debezium")
    throw std::runtime_error("--baseline: there is no " + system + "\nHINT: debezium");
  Comparison(options).run();
}

}  // namespace relay::faults
