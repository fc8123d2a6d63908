// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "relay/base/clock.h"
#include "relay/core/ports.h"
#include "relay/kafka/handle.h"

namespace outbox::kafka {

// One topic that messages name: whether it may be written to, and its handle in the present incarnation.
struct Topic {
  enum class State {
    unknown,   // not looked up since the last trouble
    ready,     // exists, and we may describe it
    doubtful,  // the cluster said once that it is missing; too early to believe it
    barred,    // cannot be written to: see error_class
  };
  std::string name;
  State state = State::unknown;
  std::string error_class;  // when barred
  std::string error_text;
  Clock::time_point doubtful_since{};
  Clock::time_point asked_at{};
  Clock::time_point ask_again_at{};
  std::chrono::milliseconds patience{};  // between two questions about a barred topic; doubles
  std::int64_t bytes_max = 0;            // max.message.bytes of the topic; 0: not known
  Clock::time_point limits_asked_at{};
  bool narrow = false;                   // has refused something for its size, which can be a record batch of small messages
  bool log_append_time = false;
  bool refused = false;  // the broker would not let us write to it
  TopicHandle handle;
  // Per partition.
  struct Partition {
    OffsetRange delivered{0, -1};  // of the batch in flight; last < first: none
    bool acknowledged = false;     // a record of this incarnation
  };
  std::vector<Partition> partitions;
  std::size_t silent = 0;  // partitions that have acknowledged nothing

  void acknowledge(std::int32_t partition, std::int64_t offset);
  // Where librdkafka sends this key.
  std::int32_t partition_of(std::string_view key) const;
  bool has_acknowledged(std::int32_t partition) const { return partitions.at(static_cast<std::size_t>(partition)).acknowledged; }
  bool all_acknowledged() const { return silent == 0; }
  // At least so many: partitions can be added.
  void expect_partitions(std::size_t count);
};

// The topics that messages name, and the rules about them. Used by the loop's thread only.
class Topics {
 public:
  explicit Topics(const Options& options);

  // The topic of this name; looked up in the cluster with `client` where that is due. Blocks for one answer at most. One that is barred
  // by its name or by configuration is valid until the next call.
  //   kafka   the cluster did not answer: nothing is known.
  Result<Topic*> get(std::string_view name, rd_kafka_t* client);
  // Calls visit(topic, message, index) for each message of the page but those with an index in `skip` (ascending), in order, until
  // a visit or a look-up fails.
  template <typename Visit>
  Result<void> visit(const Page& page, std::span<const std::size_t> skip, rd_kafka_t* client, Visit visit);
  // From the first look at a page until it is settled, no barred topic is asked about twice: there may be more than can be asked about
  // before the first is due again.
  void begin_vetting() { vetting_since_ = vetting_since_.value_or(Clock::now()); }
  void end_vetting() { vetting_since_.reset(); }
  // How often the cluster was asked about a topic.
  std::int64_t look_ups() const { return look_ups_; }
  // Whether there are many that only a new incarnation can forget.
  bool crowded() const;
  // Makes handles for all known topics in a new incarnation, so that their metadata is there before the first transaction.
  void attach(rd_kafka_t* client);
  // The lowest limit of a record batch's size among the topics that have refused something for its size; nullopt: none has.
  std::optional<std::int64_t> narrowest() const;
  // The incarnation is about to be destroyed; what the cluster said about topics is no longer believed.
  void detach();
  // Bars the topics that are marked as refused; returns how many. They are tried again after a minute.
  int bar_refused();
  // Barred topics are asked about anew, whenever that would have been due; and the limits of the others.
  void doubt_barred();
  // A message is too large by what is known of the topic: asks once more, if that is some time ago. It may have been raised.
  void renew_limits(Topic& topic, rd_kafka_t* client);
  // Forgets which offsets were delivered, before a batch; and what was delivered, after it.
  void begin_batch();
  Offsets delivered() const;

 private:
  Topic* find(std::string_view name);  // or forbidden_
  void look_up(Topic& topic, rd_kafka_t* client, const rd_kafka_metadata_topic_t& answer);
  void learn_limits(Topic& topic, rd_kafka_t* client);
  void bar(Topic& topic, const char* error_class, std::string text);
  Topic* forbidden(std::string_view name, const char* error_class, std::string text);
  void tell_barred(const Topic& topic, const char* error_class);

  const Options& options_;
  Clock::time_point describe_again_at_{};
  std::optional<Clock::time_point> vetting_since_;
  std::int64_t look_ups_ = 0;
  Clock::time_point telling_since_{};
  int told_ = 0;
  int untold_ = 0;
  Topic forbidden_;  // the one that was asked for last
  std::unordered_set<std::string> told_forbidden_;
  std::unordered_map<std::string_view, std::unique_ptr<Topic>> topics_;  // keys are views of Topic::name
};

template <typename Visit>
Result<void> Topics::visit(const Page& page, std::span<const std::size_t> skip, rd_kafka_t* client, Visit visit) {
  std::size_t skipped = 0;
  Topic* topic = nullptr;
  for (std::size_t i = 0; i < page.messages.size(); ++i) {
    if (skipped < skip.size() && skip[skipped] == i) {
      ++skipped;
      continue;
    }
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

// Why this topic name can never be sent to: {error class, text}; nullopt: it may.
std::optional<std::pair<const char*, std::string>> forbidden_topic(std::string_view name, const Options& options);

}  // namespace outbox::kafka
