// SPDX-License-Identifier: Apache-2.0
// The relay's side of the modelled Kafka: a producer that behaves as librdkafka does when connections break.
#pragma once

#include "tests/sim/broker.h"
#include "tests/sim/database.h"
#include "tests/sim/weather.h"

namespace outbox::sim {

class ModelPublisher : public Publisher {
 public:
  // With `names_culprits`, as librdkafka does since 2.4, the messages of a refused record batch that are not to blame are known.
  ModelPublisher(Broker& broker, Weather& weather, bool names_culprits) : broker_(broker), weather_(weather), names_culprits_(names_culprits) {}
  ~ModelPublisher() override { abandon(); }

  Result<std::optional<Progress>> newest_progress(bool settled) override;
  Result<void> renew(Mode mode, const std::function<Result<void>()>& meanwhile) override;
  void limit_record_batches(std::size_t messages_max) override { wanted_record_batch_max_ = messages_max; }
  void abandon() override;
  bool clean(Mode mode) const override { return clean_ && mode == mode_ && record_batch_max_ == wanted_record_batch_max_; }
  Result<Vetted> vet(const Page& page) override;
  void doubt_barred_topics() override {}
  Result<void> begin() override;
  Result<void> send(const Batch& batch, const Page& page, std::span<const std::size_t> skip, const Progress& progress) override;
  Result<bool> reported() override;
  const std::vector<Rejection>& refused() const override { return refused_; }
  bool culprits_known() const override { return names_culprits_; }
  Result<Offsets> commit() override;
  Result<void> probe() override;

 private:
  bool transactional() const { return mode_ == Mode::exactly_once; }
  void queue(std::size_t partition, std::vector<const Message*> messages, const std::optional<Progress>& progress);
  Code exchange(const Request& r, bool& lost);
  Result<void> failed(Code code, const Request& r);

  Broker& broker_;
  Weather& weather_;
  const bool names_culprits_;
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
  std::size_t answered_ = 0;  // of outgoing_
  std::vector<std::vector<const Message*>> messages_;  // of each outgoing request
  std::optional<Progress> progress_;
  std::vector<Rejection> refused_;
  std::optional<Error> failure_;
};

}  // namespace outbox::sim
