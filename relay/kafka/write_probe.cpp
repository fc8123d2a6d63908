// SPDX-License-Identifier: Apache-2.0
#include "relay/kafka/write_probe.h"

#include <algorithm>
#include <string_view>

namespace relay::kafka {
namespace {

constexpr Millis probe_deadline{1'500};   // between two looks at the lease
constexpr Millis search_deadline{2'000};  // of as many probes as there is time for

}  // namespace

void WriteProbe::forget() {
  writable_.clear();
  topics_ = topics_first;
}

// One message of each topic that is not known to be writable, by index.
std::vector<std::size_t> WriteProbe::untried(const Page& page) const {
  std::vector<std::size_t> indexes;
  std::unordered_set<std::string_view> seen;
  for (std::size_t i = 0; i < page.messages.size(); ++i) {
    const Message& m = page.messages[i];
    if (m.oversize || !seen.insert(m.topic).second) continue;
    if (!writable_.contains(std::string(m.topic))) indexes.push_back(i);
  }
  return indexes;
}

bool WriteProbe::search(const Page& page, ProbeClient& client) {
  const Deadline deadline(search_deadline);
  std::vector<std::size_t> left = untried(page);
  while (!left.empty() && !deadline.passed() && client.may_go_on()) {
    const std::span<const std::size_t> some(left.data(), std::min(topics_, left.size()));
    const Outcome outcome = try_topics(page, some, client);
    if (!outcome.answer) {
      // Too many for the time there is.
      if (outcome.topics > 0) topics_ = std::max<std::size_t>(1, outcome.topics / 2);
      break;
    }
    const bool bad = *outcome.answer != RD_KAFKA_RESP_ERR_NO_ERROR;
    if (bad && outcome.topics > 1) {
      topics_ = outcome.topics / 2;
      continue;
    }
    for (const std::size_t i : some.first(outcome.topics)) {
      if (!bad) writable_.emplace(page.messages[i].topic);
    }
    if (*outcome.answer == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED) {
      client.probe_refused(page, some.front());
    }
    if (!bad && outcome.quick) topics_ *= 2;
    left.erase(left.begin(), left.begin() + static_cast<std::ptrdiff_t>(outcome.topics));
  }
  if (left.empty()) forget();
  return left.empty();
}

// One message of each of these topics, or of as many of the first as there is time to look up.
WriteProbe::Outcome WriteProbe::try_topics(const Page& page, std::span<const std::size_t> messages,
                                           ProbeClient& client) {
  if (!client.begin_probe()) return {};
  const Deadline look_ups(probe_deadline / 2);
  const Deadline deadline(probe_deadline);
  Outcome outcome;
  while (outcome.topics < messages.size() && (outcome.topics == 0 || !look_ups.passed())) {
    if (!client.send_probe(page, messages[outcome.topics++])) return outcome;
  }
  client.await_probe(deadline);
  outcome.quick = deadline.left() > probe_deadline / 2;
  outcome.answer = client.probe_answer();
  return outcome;
}

}  // namespace relay::kafka
