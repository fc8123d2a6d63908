// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <librdkafka/rdkafka.h>

#include <cstddef>
#include <cstdint>
#include <set>
#include <utility>
#include <vector>

#include "relay/base/clock.h"
#include "relay/core/ports.h"
#include "relay/kafka/topic.h"

namespace relay::kafka {

// The delivery reports of one batch: how many are missing, what failed, and which messages Kafka
// refused. take() is called for each by the thread that polls the client; it records, and decides
// nothing.
class DeliveryReports {
 public:
  // Of a batch that is to be sent. REQUIRES: `page` lives until end() or none_will_come().
  void begin(const Page& page, Millis age);
  void end() { page_ = nullptr; }
  // The client is gone, and with it the reports that were due.
  void none_will_come();
  // Before a record is tried that is of no batch.
  void forget_failure() { failure_ = RD_KAFKA_RESP_ERR_NO_ERROR; }

  void sent() { ++missing_; }
  // librdkafka did not even take it.
  void not_taken(std::size_t index, std::int64_t seq, rd_kafka_resp_err_t code);
  // What a record carries as its opaque value, which identifies its report; the progress record
  // carries none.
  static void* opaque(std::size_t index) { return reinterpret_cast<void*>(index + 1); }
  static bool is_progress(const rd_kafka_message_t& m) { return m._private == nullptr; }
  // False: the record has not arrived, as far as is known.
  bool take(const rd_kafka_message_t& m);

  std::size_t missing() const { return missing_; }
  bool silent_for(Millis limit, Clock::time_point now);

  // Of the failures, the one that says most.
  rd_kafka_resp_err_t failure() const { return failure_; }
  bool failed() const { return failure_ != RD_KAFKA_RESP_ERR_NO_ERROR; }
  // Failed, but the reports do not say why: the client has thrown away what it had.
  bool purged() const;
  void failed_because(rd_kafka_resp_err_t code) { failure_ = code; }

  const Page* page() const { return page_; }
  const std::vector<Rejection>& refused() const { return refused_; }
  // All reports are there: drops what was refused only because it was in a record batch with an
  // invalid record, if that is known.
  void isolate();
  // Whether it is: each refused message is invalid.
  bool isolated() const { return isolated_; }

 private:
  void take_failure(const rd_kafka_message_t& m);

  using Partition = std::pair<const Topic*, std::int32_t>;
  const Page* page_ = nullptr;
  Millis age_{0};  // of the time that its records bear
  std::size_t missing_ = 0;
  rd_kafka_resp_err_t failure_ = RD_KAFKA_RESP_ERR_NO_ERROR;
  bool heard_ = false;  // since silent_for() was asked
  Clock::time_point last_{};
  std::vector<Rejection> refused_;
  std::vector<Partition> refused_in_;  // of each that a report named
  std::set<Partition> named_invalid_;  // the broker has named the invalid records of a record batch
  bool isolated_ = false;
};

}  // namespace relay::kafka
