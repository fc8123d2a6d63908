// SPDX-License-Identifier: Apache-2.0
#include "relay/kafka/topic_lookup.h"

#include <algorithm>

namespace relay::kafka {
namespace {

constexpr Millis client_life{300'000};

}  // namespace

Result<std::vector<std::string>> TopicLookup::existing(const std::vector<std::string>& topics,
                                                       Deadline deadline) {
  if (topics.empty() || Clock::now() > made_at_ + client_life) client_.reset();
  if (topics.empty()) return std::vector<std::string>{};
  auto found = ask(topics, deadline);
  if (!found) client_.reset();
  return found;
}

Result<std::vector<std::string>> TopicLookup::ask(const std::vector<std::string>& topics,
                                                  Deadline deadline) {
  if (!client_) {
    auto made = make_admin_client(options_);
    if (!made) return made.error();
    client_ = std::move(*made);
    made_at_ = Clock::now();
  }
  std::vector<TopicHandle> known;  // what one question without a topic asks for
  for (const std::string& name : topics) {
    TopicHandle handle(rd_kafka_topic_new(client_->get(), name.c_str(), nullptr));
    if (handle) known.push_back(std::move(handle));
  }
  std::vector<std::string> found;
  if (known.empty()) return found;
  const rd_kafka_metadata_t* raw = nullptr;
  const auto code =
      rd_kafka_metadata(client_->get(), 0, nullptr, &raw, std::max(1, deadline.left_ms()));
  const Metadata metadata(raw);
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
    return error_of("looking up topics that were missing", code);
  for (int i = 0; i < metadata->topic_cnt; ++i) {
    const auto& topic = metadata->topics[i];
    const bool asked = std::find(topics.begin(), topics.end(), topic.topic) != topics.end();
    if (topic.err == RD_KAFKA_RESP_ERR_NO_ERROR && asked) found.emplace_back(topic.topic);
  }
  return found;
}

}  // namespace relay::kafka
