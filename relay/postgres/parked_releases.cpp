// SPDX-License-Identifier: Apache-2.0
#include "relay/postgres/parked_releases.h"

#include "relay/base/log.h"
#include "relay/postgres/statements.h"

namespace relay::postgres {
namespace {

constexpr std::int64_t page_rows = 2'000;
constexpr std::size_t topics_max = 200;  // in one question

}  // namespace

Result<bool> any_releasable(PqxxSession& control, const Options& options) {
  auto rows =
      control.run("looking for decisions", sql::any_releasable, options.order == KeyOrder::key);
  if (!rows) return rows.error();
  return (*rows)[0][0].as<bool>();
}

Result<std::vector<std::string>> missing_topics(PqxxSession& control, const std::string& after,
                                                std::size_t count_max) {
  auto rows = control.run("looking for missing topics", sql::missing_topics, count_max, after);
  if (!rows) return rows.error();
  std::vector<std::string> topics;
  for (const auto& row : *rows) topics.emplace_back(row[0].c_str());
  return topics;
}

Result<std::int64_t> release_found_topic(PqxxSession& control, const Options& options,
                                         std::int64_t epoch, const std::string& topic,
                                         std::int64_t rows) {
  auto decided = control.run("releasing a topic", sql::release_found_topic, epoch, options.holder,
                             topic, rows);
  if (!decided) return decided.error();
  return static_cast<std::int64_t>(decided->affected_rows());
}

Result<std::int64_t> release_too_old(PqxxSession& control, const Options& options,
                                     std::int64_t epoch, std::int64_t rows) {
  auto decided =
      control.run("releasing what was too old", sql::release_too_old, epoch, options.holder, rows);
  if (!decided) return decided.error();
  return static_cast<std::int64_t>(decided->affected_rows());
}

void ParkedReleases::start() {
  decisions_pace_.reset();
  topics_pace_.reset();
  topics_after_.clear();
}

// Decisions that wait for other ones are looked at each time: what takes long is done less often, a
// tenth of the time at most.
Result<bool> ParkedReleases::look_for_decisions(PqxxSession& control) {
  const auto began = Clock::now();
  if (!decisions_pace_.due()) return false;
  const auto releasable = any_releasable(control, options_);
  if (!releasable) return releasable.error();
  decisions_pace_.done(began);
  return *releasable;
}

// One question to the cluster about a page of the topics that are missing; the next one is about
// the page behind it.
Result<void> ParkedReleases::release_by_rule(PqxxSession& control, std::int64_t epoch,
                                             const std::function<bool()>& stopping) {
  const auto began = Clock::now();
  if (!topics_pace_.due()) return {};
  const auto again = release_too_old(control, options_, epoch, page_rows);
  if (!again) return again.error();
  if (*again > 0) log::event(log::Level::info, "sent_with_new_time", {{"messages", *again}});
  auto missing = missing_topics(control, topics_after_, topics_max);
  if (!missing) return missing.error();
  topics_after_ = missing->size() == topics_max ? missing->back() : std::string();
  std::vector<std::string> found;
  if (auto exist = topics_that_exist_(*missing)) found = std::move(*exist);
  // else the cluster is away, and the loop says so
  topics_pace_.done(began);
  for (const std::string& topic : found) {
    auto messages = release_topic(control, epoch, topic, stopping);
    if (!messages) return messages.error();
    if (*messages == 0) continue;  // somebody else holds them
    log::event(log::Level::info, "topic_found", {{"topic", topic}, {"messages", *messages}});
  }
  return {};
}

// Page by page; returns how many messages were decided about.
Result<std::int64_t> ParkedReleases::release_topic(PqxxSession& control, std::int64_t epoch,
                                                   const std::string& topic,
                                                   const std::function<bool()>& stopping) {
  std::int64_t messages = 0;
  for (std::int64_t decided = page_rows; decided == page_rows && !stopping();) {
    auto r = release_found_topic(control, options_, epoch, topic, page_rows);
    if (!r) return r.error();
    decided = *r;
    messages += decided;
  }
  return messages;
}

}  // namespace relay::postgres
