// SPDX-License-Identifier: Apache-2.0
// A model of Kafka, as far as the relay depends on it: partitions, idempotent producers, one
// transaction coordinator that verifies partitions, and requests of broken connections that come
// late.
#pragma once

#include <array>
#include <map>
#include <optional>
#include <vector>

#include "relay/core/ports.h"

namespace relay::sim {

constexpr std::size_t partitions = 3;
constexpr std::size_t progress_partition = 2;

struct Record {
  enum class State : std::uint8_t { open, committed, aborted };
  int id = 0;  // of the message; 0: a progress record
  std::optional<Progress> progress;
  int producer = 0;
  State state = State::open;
};

enum class Code { ok, fenced, invalid_transaction, out_of_order, refused };

struct Request {
  enum class Kind : std::uint8_t { init, add_partition, produce, end_transaction };
  Kind kind = Kind::init;
  int producer = 0;
  int epoch = 0;
  std::size_t partition = 0;
  int sequence = 0;  // of the first record
  std::vector<int> ids;
  bool has_refused = false;  // the broker will not take one of them
  std::optional<Progress> progress;
};

class Broker {
 public:
  static constexpr int transactional_producer = 1;

  std::array<std::vector<Record>, partitions> log;
  std::vector<Request> late;  // sent on connections that broke; the broker has yet to see them

  Code handle(const Request& r);
  void arrive(std::size_t index);
  // Aborts a transaction that has been open for too long; its producer is fenced.
  void time_out();
  bool has_open_records() const;
  int epoch() const { return epoch_; }  // of the transactional producer
  int new_idempotent_producer() { return ++idempotent_producers_ + transactional_producer; }
  // The newest progress record that a read_committed consumer sees.
  std::optional<Progress> newest_progress() const;
  // Whether a record of an open transaction hides what lies behind it.
  bool hidden() const { return is_open(log[progress_partition]); }

 private:
  enum class State { empty, ongoing, committed, aborted };
  struct Producing {  // what a partition remembers of a producer
    int epoch = 0;
    int next = 0;            // the sequence number that it expects
    std::vector<int> taken;  // sequence numbers of the record batches that it took
  };

  static bool is_open(const std::vector<Record>& records);
  Code produce(const Request& r);
  void end(bool commit, int marker_epoch);

  int epoch_ = 0;
  State state_ = State::empty;
  std::array<bool, partitions> added_{};
  std::array<std::map<int, Producing>, partitions> producing_;
  int idempotent_producers_ = 0;
};

}  // namespace relay::sim
