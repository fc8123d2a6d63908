// SPDX-License-Identifier: Apache-2.0
#include "relay/kafka/topic_directory.h"

#include <algorithm>
#include <utility>

#include "relay/base/log.h"
#include "relay/kafka/admin.h"
#include "relay/kafka/topic_rules.h"

namespace relay::kafka {
namespace {

using State = TopicInfo::State;

constexpr Millis look_up_timeout{5'000};
constexpr Millis ask_again_max{60'000};
constexpr Millis describe_timeout{1'000};  // shorter than a lease
constexpr Millis describe_pause{60'000};   // after nobody answered: services exist that never do
constexpr Millis limits_pause{10'000};
// At-least-once we choose the partition of a key, and count them as often as librdkafka does.
constexpr Millis partitions_pause{300'000};
constexpr Millis log_period{60'000};
constexpr int log_lines_max = 20;           // in that time
constexpr std::size_t topics_max = 10'000;  // bounds memory when messages name many invalid topics

// Nobody has named it since it was to be asked about again.
bool forgettable(const TopicInfo& info, Clock::time_point now) {
  return info.unwritable() && now >= info.ask_again_at;
}

}  // namespace

void UnwritableTopicLog::add(const std::string& topic, const std::string& error_class) {
  const auto now = Clock::now();
  if (now >= period_began_ + log_period) {
    period_began_ = now;
    logged_ = 0;
  }
  if (logged_ == log_lines_max) {
    ++suppressed_;
    return;
  }
  ++logged_;
  log::event(
      log::Level::warn, "topic_unwritable",
      {{"topic", topic}, {"reason", error_class}, {"suppressed", std::exchange(suppressed_, 0)}});
}

Topic* TopicDirectory::find(std::string_view name) {
  if (const auto it = topics_.find(name); it != topics_.end()) return it->second.get();
  if (auto why = forbidden_topic(name, options_))
    return forbidden(name, why->error_class, std::move(why->text));
  auto topic = std::make_unique<Topic>(name);
  Topic* const raw = topic.get();
  topics_.emplace(raw->name, std::move(topic));
  return raw;
}

// Nothing is kept of it but that it was logged.
Topic* TopicDirectory::forbidden(std::string_view name, const char* error_class, std::string text) {
  forbidden_ = std::make_unique<Topic>(name);
  forbidden_->info.state = State::unwritable;
  forbidden_->info.error_class = error_class;
  forbidden_->info.error_text = std::move(text);
  if (logged_forbidden_.size() >= topics_max) logged_forbidden_.clear();
  if (logged_forbidden_.insert(forbidden_->name).second) log_.add(forbidden_->name, error_class);
  return forbidden_.get();
}

void TopicDirectory::mark_unwritable(Topic& topic, const char* error_class, std::string text) {
  TopicInfo& info = topic.info;
  if (!info.unwritable()) {
    log_.add(topic.name, error_class);
    info.backoff = outbox::common::Backoff(options_.missing_after, ask_again_max);
  }
  info.state = State::unwritable;
  info.error_class = error_class;
  info.error_text = std::move(text);
  info.ask_again_at = Clock::now() + info.backoff.next();
}

// Whether the cluster is to be asked about it.
bool TopicDirectory::is_due(const TopicInfo& info) const {
  const auto now = Clock::now();
  switch (info.state) {
    case State::unknown: return true;
    case State::ready:
      return options_.mode == Mode::at_least_once && now >= info.asked_at + partitions_pause;
    case State::doubtful: return now >= info.doubtful_since + options_.missing_after;
    case State::unwritable: break;
  }
  return now >= info.ask_again_at && !(validating_since_ && info.asked_at >= *validating_since_);
}

Result<Topic*> TopicDirectory::get(std::string_view name, rd_kafka_t* client) {
  Topic& topic = *find(name);
  if (&topic == forbidden_.get() || !is_due(topic.info)) return &topic;
  if (!topic.writer.is_open() && !topic.writer.open(client, topic.name, &topic)) {
    return error_of("opening topic " + topic.name, rd_kafka_last_error());
  }
  const rd_kafka_metadata_t* raw = nullptr;
  const auto code = rd_kafka_metadata(client, 0, topic.writer.handle(), &raw,
                                      static_cast<int>(look_up_timeout.count()));
  const Metadata metadata(raw);
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) return error_of("looking up topic " + topic.name, code);
  if (topic.info.state == State::ready) topic.info.state = State::unknown;
  look_up(topic, client, metadata->topics[0]);
  return &topic;
}

void TopicDirectory::look_up(Topic& topic, rd_kafka_t* client,
                             const rd_kafka_metadata_topic_t& answer) {
  topic.info.asked_at = Clock::now();
  ++look_ups_;
  switch (answer.err) {
    case RD_KAFKA_RESP_ERR_NO_ERROR:
    case RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE:
      if (answer.partition_cnt == 0) break;  // it is being created
      if (topic.info.unwritable())
        log::event(log::Level::info, "topic_usable_again", {{"topic", topic.name}});
      topic.info.state = State::ready;
      topic.info.was_ready = true;
      topic.writer.expect_partitions(static_cast<std::size_t>(answer.partition_cnt));
      learn_limits(topic, client);
      return;
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
      return mark_unwritable(
          topic, "topic_unauthorized",
          "the relay may not write to the topic: allow Write and Describe on it");
    case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
      return mark_unwritable(topic, "topic_invalid", "Kafka refuses the name of the topic");
    default: break;
  }
  // Nobody waits for a topic that was never there: its messages are released as soon as it is. One
  // that was is missing only if a reachable cluster says so twice, some time apart: a broker that
  // has just started must not have much parked.
  if (topic.info.state == State::unknown && topic.info.was_ready) {
    topic.info.state = State::doubtful;
    topic.info.doubtful_since = Clock::now();
    return;
  }
  mark_unwritable(topic, "topic_missing",
                  "the topic does not exist; create it, and its messages can be released");
}

// Too large and LogAppendTime are found before sending where the relay may describe the topic; else
// the broker refuses them.
void TopicDirectory::learn_limits(Topic& topic, rd_kafka_t* client) {
  topic.info.limits_asked_at = Clock::now();
  if (Clock::now() < describe_again_at_) return;
  const auto config =
      describe_config(client, ConfigOf::topic, topic.name, Deadline(describe_timeout));
  if (!config) {
    if (config.error().fault == Fault::kafka) describe_again_at_ = Clock::now() + describe_pause;
    return;
  }
  if (const auto it = config->find("max.message.bytes"); it != config->end())
    topic.info.bytes_max = std::stoll(it->second);
  if (const auto it = config->find("message.timestamp.type"); it != config->end())
    topic.info.log_append_time = it->second == "LogAppendTime";
  topic.info.age_max = Millis::max();
  if (topic.info.log_append_time) return;
  // The second is its name before Kafka 3.6.
  for (const char* const bound :
       {"message.timestamp.before.max.ms", "message.timestamp.difference.max.ms"}) {
    if (const auto it = config->find(bound); it != config->end())
      topic.info.age_max = std::min(topic.info.age_max, Millis{std::stoll(it->second)});
  }
}

void TopicDirectory::renew_limits(Topic& topic, rd_kafka_t* client) {
  if (Clock::now() >= topic.info.limits_asked_at + limits_pause) learn_limits(topic, client);
}

void TopicDirectory::attach(rd_kafka_t* client) {
  // Only here: as long as a client lives, it leads back to each topic that had a handle.
  if (topics_.size() >= topics_max) {
    std::erase_if(topics_,
                  [](const auto& entry) { return forgettable(entry.second->info, Clock::now()); });
  }
  for (auto& [name, topic] : topics_) {
    if (topic->info.unwritable()) continue;
    topic->writer.open(client, topic->name, topic.get());
  }
}

std::optional<std::int64_t> TopicDirectory::record_batch_bytes_max() const {
  std::optional<std::int64_t> bytes;
  for (const auto& [name, topic] : topics_) {
    const TopicInfo& info = topic->info;
    if (info.refused_size && info.bytes_max > 0)
      bytes = std::min(bytes.value_or(info.bytes_max), info.bytes_max);
  }
  return bytes;
}

bool TopicDirectory::cache_full() const {
  if (topics_.size() < topics_max) return false;
  const auto now = Clock::now();
  const auto count = std::count_if(topics_.begin(), topics_.end(), [&](const auto& entry) {
    return forgettable(entry.second->info, now);
  });
  return static_cast<std::size_t>(count) >= topics_max / 2;
}

void TopicDirectory::detach() {
  validating_since_.reset();
  for (auto& [name, topic] : topics_) {
    topic->writer.close();
    topic->offsets.clear();
    if (topic->info.state == State::ready) topic->info.state = State::unknown;
  }
}

void TopicDirectory::recheck_unwritable() {
  for (auto& [name, topic] : topics_) {
    topic->info.ask_again_at = Clock::now();
    topic->info.limits_asked_at = Clock::now() - limits_pause;
  }
}

int TopicDirectory::mark_refused() {
  int refused = 0;
  for (auto& [name, topic] : topics_) {
    if (!std::exchange(topic->info.refused, false)) continue;
    mark_unwritable(*topic, "topic_unauthorized",
                    "the relay may describe the topic, but not write to it: allow Write on it");
    topic->info.ask_again_at =
        Clock::now() + ask_again_max;  // metadata will say again that it is there
    ++refused;
  }
  return refused;
}

void TopicDirectory::begin_batch() {
  const auto now = Clock::now();
  for (auto& [name, topic] : topics_) {
    topic->offsets.clear();
    topic->writer.begin_batch(now);
  }
}

Offsets TopicDirectory::delivered() const {
  Offsets out;
  for (const auto& [name, topic] : topics_) {
    if (auto ranges = topic->offsets.ranges(); !ranges.empty())
      out[topic->name] = std::move(ranges);
  }
  return out;
}

}  // namespace relay::kafka
