// SPDX-License-Identifier: Apache-2.0
// Messages that are parked in the inbox, and those that are handled after all.
#pragma once

#include <pqxx/pqxx>
#include <string>

#include "client/consumer/error_classifier.h"
#include "client/consumer/events.h"

namespace outbox::consumer {

// Which charset of a reason, or of the name of a header, are kept; the database may not know all.
enum class Charset { all, ascii };

// Parks the record, with its reason, in the transaction that accepted it. False: this record is parked already, or was once.
bool park(pqxx::dbtransaction& tx, const std::string& consumer, const Record& record, const char* error_class, const std::string& error_text,
          Charset charset);

// Whether anything is parked and not done with.
bool any_parked(pqxx::dbtransaction& tx, const std::string& consumer);

// Handles what was released, and what only waited for it.
class ParkedRetrier {
 public:
  ParkedRetrier(const ConsumerOptions& options, const Consumer::BatchHandler& handler, StatsCounter& stats)
      : options_(options), handler_(handler), stats_(stats) {}

  enum class Progress {
    one_more,  // one was handled, or is parked again: there may be another
    none,      // nothing is there to be handled now
    failed     // see failure()
  };
  // Handles at most one, in a transaction of its own: the first behind the last one that failed, so that it holds up no other.
  Progress step(pqxx::connection& connection);
  const Failure& failure() const { return failure_; }

 private:
  bool handle_next(pqxx::connection& connection);
  // False: see failure().
  bool park_again(pqxx::connection& connection, const std::string& why);

  const ConsumerOptions& options_;
  const Consumer::BatchHandler& handler_;
  StatsCounter& stats_;
  std::string id_;  // of the parked message in hand; empty: none
  std::string behind_ = "0";  // the number of the last one that failed
  bool handing_over_ = false;
  Failure failure_{};
};

}  // namespace outbox::consumer
