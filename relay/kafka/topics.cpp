// SPDX-License-Identifier: Apache-2.0
#include "relay/kafka/topics.h"

#include <algorithm>
#include <utility>

#include "relay/base/log.h"
#include "relay/base/names.h"
#include "relay/kafka/admin.h"

namespace outbox::kafka {
namespace {

constexpr Millis look_up_timeout{5'000};
constexpr Millis patience_max{60'000};
constexpr Millis describe_timeout{1'000};   // shorter than a lease
constexpr Millis describe_patience{60'000};  // after nobody answered: services exist that never do
constexpr Millis limits_patience{10'000};
constexpr Millis telling_period{60'000};
constexpr int told_max = 20;  // lines about barred topics in that time
constexpr std::size_t topics_max = 10'000;  // of names seen; more would be a memory leak made of other people's mistakes

// A handle whose delivery reports lead back to `topic`. The default configuration must be kept: it names the partitioner.
void open_handle(Topic& topic, rd_kafka_t* client) {
  rd_kafka_topic_conf_t* const conf = rd_kafka_default_topic_conf_dup(client);
  rd_kafka_topic_conf_set_opaque(conf, &topic);
  topic.handle.reset(rd_kafka_topic_new(client, topic.name.c_str(), conf));
  if (!topic.handle) rd_kafka_topic_conf_destroy(conf);
}

// Nobody has named it since it was to be asked about again.
bool forgettable(const Topic& topic, Clock::time_point now) { return topic.state == Topic::State::barred && now >= topic.ask_again_at; }

bool allowed(std::string_view name, const std::vector<std::string>& allow) {
  return std::any_of(allow.begin(), allow.end(), [&](const std::string& pattern) {
    if (!pattern.empty() && pattern.back() == '*') return name.starts_with(std::string_view(pattern).substr(0, pattern.size() - 1));
    return name == pattern;
  });
}

}  // namespace

std::optional<std::pair<const char*, std::string>> forbidden_topic(std::string_view name, const Options& options) {
  if (!valid_topic_name(name)) {
    return {{"topic_invalid", "the topic is no valid Kafka name (1 to 249 of a-z A-Z 0-9 . _ -)"}};
  }
  if (name.starts_with("__") || name == options.progress_topic || name.starts_with("outbox-progress.")) {
    return {{"topic_not_allowed", "internal topics are always refused"}};
  }
  if (!allowed(name, options.allow)) return {{"topic_not_allowed", "the topic is not in topics.allow"}};
  return std::nullopt;
}

void Topic::expect_partitions(std::size_t count) {
  if (count <= partitions.size()) return;
  silent += count - partitions.size();
  partitions.resize(count);
}

void Topic::acknowledge(std::int32_t partition, std::int64_t offset) {
  const auto p = static_cast<std::size_t>(partition);
  expect_partitions(p + 1);
  if (!std::exchange(partitions[p].acknowledged, true)) --silent;
  OffsetRange& range = partitions[p].delivered;
  if (range.last < range.first) range = {offset, offset};
  range.first = std::min(range.first, offset);
  range.last = std::max(range.last, offset);
}

std::int32_t Topic::partition_of(std::string_view key) const {
  return rd_kafka_msg_partitioner_murmur2_random(handle.get(), key.data(), key.size(), static_cast<std::int32_t>(partitions.size()), nullptr,
                                                 nullptr);
}

Topics::Topics(const Options& options) : options_(options) {}

Topic* Topics::find(std::string_view name) {
  if (const auto it = topics_.find(name); it != topics_.end()) return it->second.get();
  if (auto why = forbidden_topic(name, options_)) return forbidden(name, why->first, std::move(why->second));
  auto topic = std::make_unique<Topic>();
  topic->name = name;
  Topic* const raw = topic.get();
  topics_.emplace(raw->name, std::move(topic));
  return raw;
}

// Names can be made of other people's mistakes, as many as there are messages.
void Topics::tell_barred(const Topic& topic, const char* error_class) {
  const auto now = Clock::now();
  if (now >= telling_since_ + telling_period) {
    telling_since_ = now;
    told_ = 0;
  }
  if (told_ == told_max) {
    ++untold_;
    return;
  }
  ++told_;
  log::event(log::Level::warn, "topic_barred", {{"topic", topic.name}, {"reason", error_class}, {"left_out", std::exchange(untold_, 0)}});
}

// Nothing is kept of it but that it was told.
Topic* Topics::forbidden(std::string_view name, const char* error_class, std::string text) {
  forbidden_.name = name;
  forbidden_.state = Topic::State::barred;
  forbidden_.error_class = error_class;
  forbidden_.error_text = std::move(text);
  if (told_forbidden_.size() >= topics_max) told_forbidden_.clear();
  if (told_forbidden_.insert(forbidden_.name).second) tell_barred(forbidden_, error_class);
  return &forbidden_;
}

void Topics::bar(Topic& topic, const char* error_class, std::string text) {
  if (topic.state != Topic::State::barred) {
    tell_barred(topic, error_class);
    topic.patience = options_.missing_after;
  } else {
    topic.patience = std::min<Millis>(topic.patience * 2, patience_max);
  }
  topic.state = Topic::State::barred;
  topic.error_class = error_class;
  topic.error_text = std::move(text);
  topic.ask_again_at = Clock::now() + topic.patience;
}

Result<Topic*> Topics::get(std::string_view name, rd_kafka_t* client) {
  Topic& topic = *find(name);
  const auto now = Clock::now();
  if (topic.state == Topic::State::ready || &topic == &forbidden_) return &topic;
  if (topic.state == Topic::State::barred && (now < topic.ask_again_at || (vetting_since_ && topic.asked_at >= *vetting_since_))) return &topic;
  if (topic.state == Topic::State::doubtful && now < topic.doubtful_since + options_.missing_after) return &topic;
  if (!topic.handle) open_handle(topic, client);
  if (!topic.handle) return error_of("opening topic " + topic.name, rd_kafka_last_error());
  const rd_kafka_metadata_t* raw = nullptr;
  const auto code = rd_kafka_metadata(client, 0, topic.handle.get(), &raw, static_cast<int>(look_up_timeout.count()));
  const Metadata metadata(raw);
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) return error_of("looking up topic " + topic.name, code);
  look_up(topic, client, metadata->topics[0]);
  return &topic;
}

void Topics::look_up(Topic& topic, rd_kafka_t* client, const rd_kafka_metadata_topic_t& answer) {
  topic.asked_at = Clock::now();
  ++look_ups_;
  switch (answer.err) {
    case RD_KAFKA_RESP_ERR_NO_ERROR:
    case RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE:
      if (topic.state == Topic::State::barred) log::event(log::Level::info, "topic_usable_again", {{"topic", topic.name}});
      topic.state = Topic::State::ready;
      topic.expect_partitions(static_cast<std::size_t>(answer.partition_cnt));
      learn_limits(topic, client);
      return;
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
      return bar(topic, "topic_unauthorized", "the relay may not write to the topic: allow Write and Describe on it");
    case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
      return bar(topic, "topic_invalid", "Kafka refuses the name of the topic");
    default: break;
  }
  // Missing only if a reachable cluster says so twice, some time apart: an outage must not park anything.
  if (topic.state == Topic::State::unknown) {
    topic.state = Topic::State::doubtful;
    topic.doubtful_since = Clock::now();
    return;
  }
  bar(topic, "topic_missing", "the topic does not exist; create it, and its messages can be released");
}

// Too large and LogAppendTime are found before sending where the relay may describe the topic; else the broker tells.
void Topics::learn_limits(Topic& topic, rd_kafka_t* client) {
  topic.limits_asked_at = Clock::now();
  if (Clock::now() < describe_again_at_) return;
  const auto config = describe_config(client, ConfigOf::topic, topic.name, Deadline(describe_timeout));
  if (!config) {
    if (config.error().fault == Fault::kafka) describe_again_at_ = Clock::now() + describe_patience;
    return;
  }
  if (const auto it = config->find("max.message.bytes"); it != config->end()) topic.bytes_max = std::stoll(it->second);
  if (const auto it = config->find("message.timestamp.type"); it != config->end()) topic.log_append_time = it->second == "LogAppendTime";
}

void Topics::renew_limits(Topic& topic, rd_kafka_t* client) {
  if (Clock::now() >= topic.limits_asked_at + limits_patience) learn_limits(topic, client);
}

void Topics::attach(rd_kafka_t* client) {
  // Only here: as long as a client lives, it leads back to each topic that had a handle.
  if (topics_.size() >= topics_max) {
    std::erase_if(topics_, [](const auto& entry) { return forgettable(*entry.second, Clock::now()); });
  }
  for (auto& [name, topic] : topics_) {
    if (topic->state == Topic::State::barred) continue;
    open_handle(*topic, client);
  }
}

std::optional<std::int64_t> Topics::narrowest() const {
  std::optional<std::int64_t> bytes;
  for (const auto& [name, topic] : topics_) {
    if (topic->narrow && topic->bytes_max > 0) bytes = std::min(bytes.value_or(topic->bytes_max), topic->bytes_max);
  }
  return bytes;
}

bool Topics::crowded() const {
  if (topics_.size() < topics_max) return false;
  const auto now = Clock::now();
  const auto count = std::count_if(topics_.begin(), topics_.end(), [&](const auto& entry) { return forgettable(*entry.second, now); });
  return static_cast<std::size_t>(count) >= topics_max / 2;
}

void Topics::detach() {
  vetting_since_.reset();
  for (auto& [name, topic] : topics_) {
    topic->handle.reset();
    topic->partitions.clear();
    topic->silent = 0;
    if (topic->state == Topic::State::ready) topic->state = Topic::State::unknown;
  }
}

void Topics::doubt_barred() {
  for (auto& [name, topic] : topics_) {
    topic->ask_again_at = Clock::now();
    topic->limits_asked_at = Clock::now() - limits_patience;
  }
}

int Topics::bar_refused() {
  int barred = 0;
  for (auto& [name, topic] : topics_) {
    if (!std::exchange(topic->refused, false)) continue;
    bar(*topic, "topic_unauthorized", "the relay may describe the topic, but not write to it: allow Write on it");
    topic->ask_again_at = Clock::now() + patience_max;  // metadata will say again that it is there
    ++barred;
  }
  return barred;
}

void Topics::begin_batch() {
  for (auto& [name, topic] : topics_) {
    for (Topic::Partition& p : topic->partitions) p.delivered = {0, -1};
  }
}

Offsets Topics::delivered() const {
  Offsets out;
  for (const auto& [name, topic] : topics_) {
    for (std::size_t p = 0; p < topic->partitions.size(); ++p) {
      const OffsetRange& range = topic->partitions[p].delivered;
      if (range.last >= range.first) out[topic->name][static_cast<std::int32_t>(p)] = range;
    }
  }
  return out;
}

}  // namespace outbox::kafka
