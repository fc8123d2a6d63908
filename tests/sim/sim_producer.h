// SPDX-License-Identifier: Apache-2.0
// The relay's side of the modelled Kafka: a producer that behaves as librdkafka does when
// connections break.
#pragma once

#include "tests/sim/broker.h"
#include "tests/sim/database.h"
#include "tests/sim/fault_schedule.h"

namespace relay::sim {

class SimProducer : public Producer {
 public:
  // With `names_poison`, as librdkafka does since 2.4, the broker names the messages of a refused
  // record batch that cause the refusal.
  SimProducer(Broker& broker, FaultSchedule& schedule, bool names_poison)
      : broker_(broker), schedule_(schedule), names_poison_(names_poison) {}
  ~SimProducer() override { abandon(); }

  Result<std::optional<Progress>> newest_progress(bool to_the_end,
                                                  const Meanwhile& meanwhile) override;
  Result<void> renew(Mode mode, const std::function<Result<void>()>& meanwhile) override;
  void limit_record_batches(std::size_t messages_max) override {
    wanted_record_batch_max_ = messages_max;
  }
  void abandon() override;
  bool clean(Mode mode) const override {
    return clean_ && mode == mode_ && record_batch_max_ == wanted_record_batch_max_;
  }
  Result<Validation> validate(const Page& page, std::optional<Timestamp> stamp) override;
  void recheck_unwritable() override {}
  Result<void> begin() override;
  Result<Delivery> send(const Batch& batch, const Page& page, const PageMask& masked,
                        const Progress& progress) override;
  Result<Delivery> reported() override;
  const std::vector<Rejection>& refused() const override { return refused_; }
  bool isolated() const override { return names_poison_; }
  Result<Offsets> commit() override;
  Result<void> probe() override;

 private:
  bool transactional() const { return mode_ == Mode::exactly_once; }
  void queue(std::size_t partition, std::vector<const Message*> messages,
             const std::optional<Progress>& progress);
  Code exchange(const Request& r, bool& lost);
  Error failed(Code code, const Request& r);
  Result<Delivery> failure() const;

  Broker& broker_;
  FaultSchedule& schedule_;
  const bool names_poison_;
  Mode mode_ = Mode::exactly_once;
  bool clean_ = false;
  bool all_answered_ = true;  // every request was answered at the first try
  int producer_ = 0;
  int epoch_ = 0;
  std::array<int, partitions> sequence_{};
  std::array<bool, partitions> added_{};  // to the transaction
  std::size_t record_batch_max_ = 0;
  std::size_t wanted_record_batch_max_ = 0;
  std::vector<Request> outgoing_;
  std::size_t answered_ = 0;                           // of outgoing_
  std::vector<std::vector<const Message*>> messages_;  // of each outgoing request
  const Message* first_ = nullptr;                     // of the page that is sent
  std::optional<Progress> progress_;
  std::vector<Rejection> refused_;
  std::optional<Error> failure_;
};

}  // namespace relay::sim
