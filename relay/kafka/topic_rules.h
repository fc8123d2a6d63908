// SPDX-License-Identifier: Apache-2.0
// What can be said of a topic by its name and the configuration alone.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "relay/kafka/handle.h"

namespace relay::kafka {

// Why messages of a topic cannot be sent.
struct TopicError {
  const char* error_class;  // see outbox.parked.error_class
  std::string text;
};

// Whether `name` matches one of the patterns: names, prefixes ending in *, or *.
bool matches(std::string_view name, const std::vector<std::string>& patterns);

// Why nothing may ever be sent to a topic of this name; nullopt: it may.
std::optional<TopicError> forbidden_topic(std::string_view name, const Options& options);

}  // namespace relay::kafka
