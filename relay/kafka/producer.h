// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "relay/core/ports.h"
#include "relay/kafka/handle.h"
#include "relay/kafka/progress.h"
#include "relay/kafka/reports.h"
#include "relay/kafka/request_balance.h"
#include "relay/kafka/topics.h"

namespace outbox::kafka {

// The relay's producer, one incarnation after another.
//
// An incarnation is an unbroken run of clean transactions: every call and delivery report OK at the first try, ended by a
// commit, and every request answered when the commit returned. After anything else clean() is false, and only renew() helps.
class Producer : public Publisher {
 public:
  // `wake` is an eventfd that is written when delivery reports have come.
  Producer(const Options& options, int wake) : options_(options), wake_(wake), topics_(options) {}
  ~Producer() override { abandon(); }

  Result<std::optional<Progress>> newest_progress(bool settled) override;
  Result<void> renew(Mode mode, const std::function<Result<void>()>& meanwhile) override;
  void limit_record_batches(std::size_t messages_max) override { wanted_record_batch_max_ = messages_max; }
  void abandon() override;
  bool clean(Mode mode) const override {
    return client_ && clean_ && mode == mode_ && record_batch_max_ == wanted_record_batch_max_ && !topics_.crowded();
  }
  Result<Vetted> vet(const Page& page) override;
  void doubt_barred_topics() override { topics_.doubt_barred(); }
  Result<void> begin() override;
  Result<void> send(const Batch& batch, const Page& page, std::span<const std::size_t> skip, const Progress& progress) override;
  Result<bool> reported() override;
  const std::vector<Rejection>& refused() const override { return reports_.refused(); }
  bool culprits_known() const override { return reports_.culprits_known(); }
  Result<Offsets> commit() override;
  Result<void> probe() override;

 private:
  void give_up_transaction();
  void poll_for_reason();
  void progress_written(std::int64_t offset);
  bool transactional() const { return mode_ == Mode::exactly_once; }
  Result<Conf> producer_conf();
  Result<void> fetch_metadata(const std::function<Result<void>()>& meanwhile);
  Result<void> init_transactions(const std::function<Result<void>()>& meanwhile);
  Error failed(const char* doing, KafkaError error, bool in_doubt);
  Error failed(const char* doing, rd_kafka_resp_err_t code, const std::string& detail = {});
  Result<void> send_message(const Topic& topic, const Message& m, const Page& page, std::size_t index, std::int64_t timestamp_ms);
  Result<std::vector<std::size_t>> send_first_records(std::span<const std::size_t> skip);
  Result<void> send_all_but(std::span<const std::size_t> skip);
  Result<void> send_progress();
  rd_kafka_resp_err_t transaction_error();
  void bar_unwritable_topics();
  struct Trial {
    std::size_t topics = 0;                     // how many were tried
    std::optional<rd_kafka_resp_err_t> answer;  // what the cluster said of them; nullopt: nothing in time
    bool quick = false;                         // there is time for more of them
  };
  Trial try_topics(const Page& page, std::span<const std::size_t> messages);
  void forget_trials();
  static void on_report(rd_kafka_t* client, const rd_kafka_message_t* m, void* self);

  const Options& options_;
  const int wake_;
  Topics topics_;
  RequestBalance balance_;  // outlives all clients
  Reaper reaper_;
  TopicHandle progress_topic_;
  bool progress_topic_guarded_ = false;  // once in the life of the process
  Client client_;
  Mode mode_ = Mode::exactly_once;  // of this incarnation
  bool clean_ = false;
  std::function<Result<void>()> meanwhile_;  // of the last renew()
  std::int64_t progress_offset_ = -1;  // of the last progress record of this incarnation, if it is known
  bool intruded_ = false;              // somebody else wrote one since
  bool in_transaction_ = false;  // begun, and no commit of it attempted
  static constexpr std::size_t trial_topics_first = 32;
  std::size_t trial_topics_ = trial_topics_first;  // in one transaction of the next trial
  std::unordered_set<std::string> writable_;       // topics that a trial has shown to be, since the last commit
  std::size_t record_batch_max_ = 0;         // of this incarnation; 0: no limit
  std::size_t wanted_record_batch_max_ = 0;  // of the next one

  // The batch in flight.
  Reports reports_;
  Progress progress_;
  std::int64_t timestamp_ms_ = 0;
  std::optional<std::vector<std::size_t>> later_;  // when first records are acknowledged: all but these
};

}  // namespace outbox::kafka
