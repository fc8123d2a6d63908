// SPDX-License-Identifier: Apache-2.0
// Parks messages in the inbox, and processes them after their release.
//
// park() runs in the transaction that accepted the message. ParkedRetrier runs one transaction for
// each released message:
//   1. lock the next released message, in the order of its key;
//   2. call the handler;
//   3. mark the message as handled, and commit.
// Failure. If the handler rejects the message, it is parked again with the new reason. Any other
// failure is reported by failure(), and the next step continues behind the message.
// Used by the thread of run().
#pragma once

#include <pqxx/pqxx>
#include <string>

#include "client/consumer/error_classifier.h"
#include "client/consumer/stats.h"

namespace outbox::consumer {

// Characters kept in reasons and header names: the encoding of the database may lack some.
enum class Charset { all, ascii };

// Parks the record with its reason. Returns false if the record is, or was, parked already.
bool park(pqxx::dbtransaction& tx, const std::string& consumer, const Record& record,
          const char* error_class, const std::string& error_text, Charset charset);

// Whether any message is parked and unresolved.
bool any_parked(pqxx::dbtransaction& tx, const std::string& consumer);

// Processes released messages, and those that were blocked by them.
class ParkedRetrier {
 public:
  ParkedRetrier(const ConsumerOptions& options, const Consumer::BatchHandler& handler,
                ConsumerStatsCounter& stats)
      : options_(options), handler_(handler), stats_(stats) {}

  enum class Progress {
    one_more,  // processed one, or parked it again: there may be another
    none,      // no message is released
    failed     // see failure()
  };
  // Processes at most one message: the first behind the last failure, so that a failing message
  // blocks no other.
  Progress step(pqxx::connection& connection);
  const Failure& failure() const { return failure_; }

 private:
  bool handle_next(pqxx::connection& connection);
  // Returns false on failure, see failure().
  bool park_again(pqxx::connection& connection, const std::string& why);

  const ConsumerOptions& options_;
  const Consumer::BatchHandler& handler_;
  ConsumerStatsCounter& stats_;
  std::string id_;            // of the current message; empty: none
  std::string behind_ = "0";  // id of the last failure
  bool handing_over_ = false;
  Failure failure_{};
};

}  // namespace outbox::consumer
