// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <librdkafka/rdkafka.h>

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <unordered_set>
#include <vector>

#include "relay/base/clock.h"
#include "relay/core/message.h"

namespace relay::kafka {

// What the search needs of a producer: transactions that are never committed.
class ProbeClient {
 public:
  virtual ~ProbeClient() = default;
  // Keeps the lease; false: the search must end.
  virtual bool may_go_on() = 0;
  // Gives up the transaction that was open, and begins one on a new incarnation.
  virtual bool begin_probe() = 0;
  // Sends this message of the page, if its topic is there. False: the cluster does not answer, or
  // the client does not take it.
  virtual bool send_probe(const Page& page, std::size_t index) = 0;
  // Waits until what was sent is acknowledged or refused, or until the deadline.
  virtual void await_probe(Deadline deadline) = 0;
  // What the cluster said of it; nullopt: nothing in time.
  virtual std::optional<rd_kafka_resp_err_t> probe_answer() = 0;
  // The topic of this message may not be written to.
  virtual void probe_refused(const Page& page, std::size_t index) = 0;
};

// The search for topics that the relay may describe, but not write to.
//
// Metadata shows a topic to every client that may describe it; that we may not write to it shows
// only when we try. A delivery report names the topic. In a transaction nothing does, so the search
// tries one message of each topic, in transactions that are never committed: of several topics at
// once, and of half as many after each that failed, until one topic is alone. What there is no time
// for is tried by the next search, which leaves out the topics that were shown to be writable.
//
// Used by the loop's thread.
class WriteProbe {
 public:
  // A transaction that holds `page` has failed, because a topic may not be written to. True: each
  // of its topics was tried.
  bool search(const Page& page, ProbeClient& client);
  // A batch was delivered: what was found may have changed since.
  void forget();

 private:
  struct Outcome {
    std::size_t topics = 0;                     // how many were tried
    std::optional<rd_kafka_resp_err_t> answer;  // what the cluster said of them
    bool quick = false;                         // there is time for more of them
  };
  static Outcome try_topics(const Page& page, std::span<const std::size_t> messages,
                            ProbeClient& client);
  std::vector<std::size_t> untried(const Page& page) const;

  static constexpr std::size_t topics_first = 32;
  std::size_t topics_ = topics_first;         // in one transaction
  std::unordered_set<std::string> writable_;  // topics that were shown to be
};

}  // namespace relay::kafka
