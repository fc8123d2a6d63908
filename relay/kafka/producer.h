// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "relay/core/ports.h"
#include "relay/kafka/delivery_reports.h"
#include "relay/kafka/handle.h"
#include "relay/kafka/in_flight_requests.h"
#include "relay/kafka/topic_directory.h"
#include "relay/kafka/write_probe.h"

namespace relay::kafka {

// The relay's producer, one incarnation after another.
//
// An incarnation is an unbroken run of clean transactions: every call and delivery report OK at the
// first try, ended by a commit, and every request answered when the commit returned. After anything
// else clean() is false, and only renew() helps.
//
// A batch takes these steps:
//
//   validate()  which messages cannot be sent, by their topics and sizes
//   begin()     the transaction
//   send()      all records; at-least-once, the first of each partition alone
//   reported()  polls; on_report() records each delivery report as it comes
//   commit()
//
// Used by the loop's thread; librdkafka calls back only from its polls.
class KafkaProducer : public Producer, private ProbeClient {
 public:
  // `wake` is an eventfd that is written when delivery reports have come.
  KafkaProducer(const Options& options, int wake)
      : options_(options), wake_(wake), topics_(options) {}
  ~KafkaProducer() override { abandon(); }

  Result<std::optional<Progress>> newest_progress(bool to_the_end,
                                                  const Meanwhile& meanwhile) override;
  Result<void> renew(Mode mode, const std::function<Result<void>()>& meanwhile) override;
  void limit_record_batches(std::size_t messages_max) override {
    wanted_record_batch_max_ = messages_max;
  }
  void abandon() override;
  bool clean(Mode mode) const override;
  Result<Validation> validate(const Page& page, std::optional<Timestamp> stamp) override;
  void recheck_unwritable() override { topics_.recheck_unwritable(); }
  Result<void> begin() override;
  Result<Delivery> send(const Batch& batch, const Page& page, const PageMask& masked,
                        const Progress& progress) override;
  Result<Delivery> reported() override;
  const std::vector<Rejection>& refused() const override { return reports_.refused(); }
  bool isolated() const override { return reports_.isolated(); }
  Result<Offsets> commit() override;
  Result<void> probe() override;

 private:
  // The incarnation.
  bool transactional() const { return mode_ == Mode::exactly_once; }
  Result<void> make_incarnation();
  Result<void> fetch_metadata();
  Result<void> init_transactions();
  void give_up_transaction();
  Error failed(const char* doing, KafkaError error, bool in_doubt);
  Error failed(const char* doing, rd_kafka_resp_err_t code, const std::string& detail = {});

  // The batch.
  Result<void> send_message(const Topic& topic, const Page& page, std::size_t index,
                            std::int64_t timestamp_ms);
  Result<void> send_records(const PageMask& masked);
  Result<bool> send_first_records(const PageMask& masked);
  Result<void> send_all_but(const PageMask& masked);
  Result<void> send_progress();
  Result<bool> poll_reports();
  Error delivery_failed();
  Delivery or_refused(bool complete) const;
  void poll_for_reason();
  rd_kafka_resp_err_t transaction_error();
  void progress_written(std::int64_t offset);
  static void on_report(rd_kafka_t* client, const rd_kafka_message_t* m, void* self);

  // ProbeClient
  bool may_go_on() override { return static_cast<bool>(meanwhile_()); }
  bool begin_probe() override;
  bool send_probe(const Page& page, std::size_t index) override;
  void await_probe(Deadline deadline) override;
  std::optional<rd_kafka_resp_err_t> probe_answer() override;
  void probe_refused(const Page& page, std::size_t index) override;
  void find_unwritable_topics();

  const Options& options_;
  const int wake_;
  TopicDirectory topics_;
  InFlightRequests in_flight_;  // outlives all clients
  AsyncCloser closer_;
  TopicHandle progress_topic_;
  bool progress_topic_checked_ = false;  // once in the life of the process
  Millis progress_patience_{4'000};      // of the next question for the progress record
  WriteProbe write_probe_;

  Client client_;  // of this incarnation, as what follows
  Mode mode_ = Mode::exactly_once;
  bool clean_ = false;
  std::function<Result<void>()> meanwhile_;  // of the last renew()
  std::int64_t progress_offset_ = -1;        // of its last progress record, if it is known
  bool intruded_ = false;                    // somebody else wrote one since
  bool in_transaction_ = false;              // begun, and no commit of it attempted
  std::size_t record_batch_max_ = 0;         // 0: no limit
  std::size_t wanted_record_batch_max_ = 0;  // of the next one

  DeliveryReports reports_;  // of the batch in flight, as what follows
  Progress progress_;
  std::int64_t timestamp_ms_ = 0;
  std::optional<PageMask> later_;  // first records are under way: then all but these are sent
};

}  // namespace relay::kafka
