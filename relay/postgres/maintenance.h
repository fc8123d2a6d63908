// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "relay/core/ports.h"
#include "relay/postgres/options.h"
#include "relay/postgres/parked_releases.h"
#include "relay/postgres/pqxx_session.h"
#include "relay/postgres/retention.h"
#include "relay/postgres/scheduler.h"

namespace relay::postgres {

// What is done beside the stream, on a thread and a session of its own, so that neither delays a
// batch. Each round:
//
//   1. moves scheduled messages that are due, before all else;
//   2. looks for decisions about parked messages;
//   3. looks whether topics that were missing exist now, and for messages that were too old;
//   4. deletes a page of what retention does not keep.
//
// A round that fails costs the session, and the next one comes after a pause. Without the lease the
// thread ends. start() and stop() are called by the loop's thread.
class PgMaintenance : public Maintenance {
 public:
  PgMaintenance(const Options& options, const RetentionOptions& retention,
                TopicsThatExist topics_that_exist)
      : options_(options),
        scheduler_(options),
        retention_(options, retention),
        parked_releases_(options, std::move(topics_that_exist)) {}
  ~PgMaintenance() override { stop(); }

  void start(std::int64_t epoch) override;
  void stop() override;
  bool found_releasable() override { return found_releasable_.exchange(false); }

 private:
  void work(std::int64_t epoch);
  Result<Millis> connect_or_round(std::unique_ptr<PqxxSession>& control, std::int64_t epoch);
  Result<Millis> round(PqxxSession& control, std::int64_t epoch);
  bool stopped_within(Millis wait);

  const Options& options_;
  Scheduler scheduler_;
  Retention retention_;
  ParkedReleases parked_releases_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  std::atomic<bool> found_releasable_ = false;
  std::thread thread_;
};

}  // namespace relay::postgres
