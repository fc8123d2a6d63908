// SPDX-License-Identifier: Apache-2.0
// Decisions about parked messages, as far as the relay looks after them beside the stream: which of
// them can be executed, and those that it takes itself, about topics that were missing and about
// messages that were too old for their topics.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "relay/base/clock.h"
#include "relay/postgres/options.h"
#include "relay/postgres/pace.h"
#include "relay/postgres/pqxx_session.h"

namespace relay::postgres {

// Of these topics, those that exist and may be described. Called without any when there is nothing
// to ask about. Used by the thread of PgMaintenance.
using TopicsThatExist =
    std::function<Result<std::vector<std::string>>(const std::vector<std::string>&)>;

// Whether a release would find something, which spares the stream to try.
Result<bool> any_releasable(PqxxSession& control, const Options& options);

// Topics behind `after` for which messages are parked because they are missing, without a decision;
// at most `count_max`, by name.
Result<std::vector<std::string>> missing_topics(PqxxSession& control, const std::string& after,
                                                std::size_t count_max);

// Decides that messages parked because `topic` was missing are released, at most `rows` of them;
// returns how many. Those that somebody else is changing are left out: a take-over waits for the
// statement. `epoch` and options.holder must hold the lease, or nothing is done.
Result<std::int64_t> release_found_topic(PqxxSession& control, const Options& options,
                                         std::int64_t epoch, const std::string& topic,
                                         std::int64_t rows);

// Decides that messages which their topics found too old are released, at most `rows` of them;
// returns how many. As release_found_topic().
Result<std::int64_t> release_too_old(PqxxSession& control, const Options& options,
                                     std::int64_t epoch, std::int64_t rows);

// Looks for all of that, less often where that takes long. Used by the thread of PgMaintenance.
class ParkedReleases {
 public:
  ParkedReleases(const Options& options, TopicsThatExist topics_that_exist)
      : options_(options), topics_that_exist_(std::move(topics_that_exist)) {}
  // A session begins: both looks are due.
  void start();
  // Whether, if it is time to look, there is something to release.
  Result<bool> look_for_decisions(PqxxSession& control);
  // If it is time to look: releases what is parked for topics that exist now, until `stopping`, and
  // what its topic found too old.
  Result<void> release_by_rule(PqxxSession& control, std::int64_t epoch,
                               const std::function<bool()>& stopping);

 private:
  Result<std::int64_t> release_topic(PqxxSession& control, std::int64_t epoch,
                                     const std::string& topic,
                                     const std::function<bool()>& stopping);

  const Options& options_;
  const TopicsThatExist topics_that_exist_;
  Pace decisions_pace_{10, Millis{250}, Millis{10'000}};
  Pace topics_pace_{20, Millis{500}, Millis{10'000}};
  std::string topics_after_;  // those before it were asked about
};

}  // namespace relay::postgres
