// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "relay/base/clock.h"
#include "relay/core/ports.h"
#include "relay/kafka/handle.h"
#include "relay/kafka/topic.h"

namespace relay::kafka {

// Logs that a topic cannot be written to, at most so often that wrong names, as many as there are
// messages, do not fill the log.
class UnwritableTopicLog {
 public:
  void add(const std::string& topic, const std::string& error_class);

 private:
  Clock::time_point period_began_{};
  int logged_ = 0;  // in this period
  int suppressed_ = 0;
};

// The topics that messages name: asks the cluster about them, and remembers what it said.
//
//   unknown → ready       it exists
//   unknown → unwritable  the cluster says that it does not, and it was never there
//   unknown → doubtful    the cluster says that it does not, but it was there
//   doubtful → unwritable it says so again, some time later
//   any → unwritable      we may not write to it
//   unwritable → ready    asked again, with backoff
//   ready → unknown       the incarnation ends
//
// What is forbidden by its name is not asked about: see topic_rules.h. Used by the loop's thread.
class TopicDirectory {
 public:
  explicit TopicDirectory(const Options& options) : options_(options) {}

  // Returns the topic of this name; looked up in the cluster with `client` where that is due.
  // Blocks for one answer at most. One that is forbidden is valid until the next call.
  //   kafka   the cluster did not answer: nothing is known.
  Result<Topic*> get(std::string_view name, rd_kafka_t* client);
  // Calls visit(topic, message, index) for each message of the page but the masked ones, in order,
  // until a visit or a look-up fails.
  template <typename Visit>
  Result<void> visit(const Page& page, const PageMask& masked, rd_kafka_t* client, Visit visit);

  // From the first look at a page until its validation is complete, no unwritable topic is asked
  // about twice: there may be more than can be asked about before the first is due again.
  void begin_validation() { validating_since_ = validating_since_.value_or(Clock::now()); }
  void end_validation() { validating_since_.reset(); }
  // How often the cluster was asked about a topic.
  std::int64_t look_ups() const { return look_ups_; }
  // Whether there are many names that only a new incarnation can forget.
  bool cache_full() const;

  // Makes handles for all known topics in a new incarnation, so that their metadata is there before
  // the first transaction.
  void attach(rd_kafka_t* client);
  // The incarnation is about to be destroyed; what the cluster said about topics is
  // discarded.
  void detach();
  // The lowest limit of a record batch's size among the topics that have refused something for its
  // size; nullopt: none has.
  std::optional<std::int64_t> record_batch_bytes_max() const;

  // Makes the topics unwritable whose refused flag is set; returns how many. They are asked about
  // again after a minute.
  int mark_refused();
  // Unwritable topics are asked about again, whenever that would have been due; and the limits of
  // the others.
  void recheck_unwritable();
  // A message is too large by what is known of the topic: asks once more, if that is some time ago.
  // It may have been raised.
  void renew_limits(Topic& topic, rd_kafka_t* client);

  // Forgets the offsets of the batch before.
  void begin_batch();
  Offsets delivered() const;

 private:
  Topic* find(std::string_view name);  // or forbidden_
  Topic* forbidden(std::string_view name, const char* error_class, std::string text);
  void look_up(Topic& topic, rd_kafka_t* client, const rd_kafka_metadata_topic_t& answer);
  void learn_limits(Topic& topic, rd_kafka_t* client);
  void mark_unwritable(Topic& topic, const char* error_class, std::string text);
  bool is_due(const TopicInfo& info) const;

  const Options& options_;
  Clock::time_point describe_again_at_{};
  std::optional<Clock::time_point> validating_since_;
  std::int64_t look_ups_ = 0;
  UnwritableTopicLog log_;
  std::unique_ptr<Topic> forbidden_;  // the one that was asked for last
  std::unordered_set<std::string> logged_forbidden_;
  // Keys are views of Topic::name.
  std::unordered_map<std::string_view, std::unique_ptr<Topic>> topics_;
};

template <typename Visit>
Result<void> TopicDirectory::visit(const Page& page, const PageMask& masked, rd_kafka_t* client,
                                   Visit visit) {
  Topic* topic = nullptr;
  for (std::size_t i = 0; i < page.messages.size(); ++i) {
    if (masked.contains(i)) continue;
    const Message& m = page.messages[i];
    if (topic == nullptr || topic->name != m.topic) {
      auto found = get(m.topic, client);
      if (!found) return found.error();
      topic = *found;
    }
    if (auto r = visit(*topic, m, i); !r) return r;
  }
  return {};
}

}  // namespace relay::kafka
