// SPDX-License-Identifier: Apache-2.0
#include "relay/kafka/topic_rules.h"

#include <algorithm>

#include "common/names.h"

namespace relay::kafka {

bool matches(std::string_view name, const std::vector<std::string>& patterns) {
  return std::any_of(patterns.begin(), patterns.end(), [&](std::string_view pattern) {
    if (!pattern.ends_with('*')) return name == pattern;
    return name.starts_with(pattern.substr(0, pattern.size() - 1));
  });
}

std::optional<TopicError> forbidden_topic(std::string_view name, const Options& options) {
  if (!outbox::common::valid_topic_name(name)) {
    return {{"topic_invalid", "the topic is no valid Kafka name (1 to 249 of a-z A-Z 0-9 . _ -)"}};
  }
  // Of a progress topic: a message would be read as a record of a relay, this one or another.
  if (name.starts_with("__") || name == options.progress_topic ||
      name.starts_with("outbox-progress.")) {
    return {{"topic_not_allowed", "internal topics are always refused"}};
  }
  if (!matches(name, options.allow)) {
    return {{"topic_not_allowed", "the topic is not in topics.allow"}};
  }
  return std::nullopt;
}

}  // namespace relay::kafka
