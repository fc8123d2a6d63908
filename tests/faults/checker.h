// SPDX-License-Identifier: Apache-2.0
// The invariants of the campaign (docs/reliability.md), checked after each round.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "relay/core/mode.h"
#include "tests/faults/workload.h"
#include "tests/support/kafka_log.h"

namespace relay::faults {

// Of one round. All are zero in a good one but for the first four, and `repeated` at-least-once.
struct Counts {
  std::int64_t committed = 0;    // messages
  std::int64_t rolled_back = 0;  // transactions, on purpose
  std::int64_t unknown_resolved =
      0;  // transactions of which the application did not know whether they were committed
  std::int64_t arrived = 0;   // first copies that a read_committed reader saw
  std::int64_t parked = 0;    // so far, and not released
  std::int64_t lost = 0;      // L: committed, neither arrived nor parked
  std::int64_t ghosts = 0;    // G: arrived, and not committed as it is there; or arrived and parked
  std::int64_t repeated = 0;  // D: further copies
  std::int64_t reordered =
      0;  // O: first copies behind a later message of their key, or in another partition than it
  std::int64_t stuck = 0;    // S: not delivered in time, batches left open, parked without cause
  std::int64_t journal = 0;  // J: what the journal says differs from what is there
  std::int64_t fencing = 0;  // F: an older epoch wrote after a newer one
  std::int64_t exits =
      0;  // X: processes that ended badly, error lines that the scenario does not expect
};

// What a scenario lets differ, because the fault makes it so.
struct Allowed {
  int doubtful_batches =
      1;  // at-least-once, number of batches that may repeat messages in one round
  bool database_goes_back = false;  // acknowledged commits are lost with their server
  std::int64_t parked = 0;
  std::set<std::string>
      counts{};  // names of counts that may be above zero; scenarios.toml explains them
};

class Checker {
 public:
  Checker(test::TestOutbox& db, std::vector<std::string> topics, Mode mode);

  // Waits until all that was committed is delivered, then looks at everything that is new since the
  // last call. `examples` gets a line for each kind of violation. Throws if it cannot read what it
  // needs: the round is then unknown. REQUIRES: the applications are paused, a relay runs, no fault
  // is in force.
  Counts check(const std::vector<CommitAnswer>& answers, const Allowed& allowed,
               Millis settles_within);
  // How long the last check waited for delivery.
  Millis settled_in() const { return settled_in_; }
  std::string take_examples();
  // Remembers which batch holds each message, before the rows of delivered messages are deleted. A
  // later check takes what has moved since then from its old batch. REQUIRES: nothing writes.
  void note_batches();
  // Later messages of a parked one's key do not wait for it (delivery.order = "message").
  void let_parked_be_overtaken() { parked_hold_back_ = false; }

  // Reads all topics once more from their first record: what was seen before must be there, and
  // nothing else.
  void check_whole_log(Counts& counts);

  // The progress topic has lost its records, or is another.
  void reset_progress() { progress_positions_.clear(); }

  // Messages that were committed on a server that is gone, by id: some of them may have arrived.
  // All others are ghosts.
  void allow_forgotten(const std::set<std::string>& ids) {
    forgotten_.insert(ids.begin(), ids.end());
  }

  // From now on this database is the reference.
  void move_to(test::TestOutbox& db) { db_ = &db; }

 private:
  struct Message {
    std::string topic, payload_sha256, headers;
    std::optional<std::string> key;
    std::int64_t n = 0;
    int copies = 0;
    bool poison = false;  // it cannot be sent
    bool parked = false;
    bool waits = false;    // it is parked because an earlier message of its key is
    bool checked = false;  // its loss was checked
  };
  struct Batch {
    std::int64_t epoch, messages;
    nlohmann::json offsets;  // {} if nobody knows them
    bool stream;
  };

  void load_truth();
  void settle(Counts& counts, Millis within);
  void read_topics(Counts& counts);
  void take(const test::KafkaRecord& r, Counts& counts);
  void look_at_repeats(Counts& counts, const Allowed& allowed);
  void look_for_lost(const std::set<std::string>& due, Counts& counts, const Allowed& allowed);
  void look_at_parked(Counts& counts, const Allowed& allowed);
  void compare_answers(const std::vector<CommitAnswer>& answers, Counts& counts,
                       const Allowed& allowed);
  void look_at_journal(Counts& counts, const Allowed& allowed);
  void look_at_progress(std::int64_t newest_delivered, Counts& counts, const Allowed& allowed);
  void example(const std::string& what);

  test::TestOutbox* db_;
  const std::vector<std::string> topics_;
  const Mode mode_;
  std::map<std::string, Message> messages_;           // by id
  std::map<std::string, std::int64_t> newest_of_;     // by topic and key
  std::map<std::string, std::int32_t> partition_of_;  // by topic and key
  std::vector<std::tuple<std::string, std::string, std::int32_t, std::int64_t>>
      fresh_;                          // id, topic, partition, offset, read in this check
  std::vector<std::string> repeated_;  // ids, read in this check
  std::map<std::string, std::int64_t> batch_of_;  // by id
  std::map<std::int64_t, std::int64_t> has_;      // messages, by batch
  std::string assigned_until_;
  std::set<std::string> forgotten_;
  std::size_t records_ = 0;
  test::KafkaPositions positions_;
  test::KafkaPositions progress_positions_;
  std::int64_t progress_epoch_ = 0;
  std::string progress_token_;
  bool parked_hold_back_ = true;
  Millis settled_in_{0};
  std::map<std::string, std::string> examples_;
};

}  // namespace relay::faults
