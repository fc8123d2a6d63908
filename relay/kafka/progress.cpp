// SPDX-License-Identifier: Apache-2.0
#include "relay/kafka/progress.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "relay/base/mutants.h"
#include "relay/kafka/admin.h"
#include "relay/kafka/watermarks.h"

namespace relay::kafka {
namespace {

constexpr std::int64_t first_step = 16;
constexpr std::int64_t step_growth = 8;
// A transaction whose end does not come, though the brokers answer.
constexpr Millis undecided_max{4'000};

// A broker that has just started, or a topic that was just created: it may be there in a moment.
Error refused_for_now(std::string what, std::string hint) {
  Error e{Fault::refused, std::move(what), std::move(hint)};
  e.may_pass = true;
  return e;
}

Result<Client> make_reader(const Options& options, const char* isolation) {
  auto conf = make_conf(options, {{"isolation.level", isolation},
                                  {"enable.partition.eof", "true"},
                                  {"fetch.wait.max.ms", "20"},
                                  {"fetch.error.backoff.ms", "50"},
                                  {"check.crcs", "true"}});
  if (!conf) return conf.error();
  return make_client(RD_KAFKA_CONSUMER, std::move(*conf));
}

Result<void> find_topic(const Options& options, rd_kafka_t* client, Deadline deadline) {
  TopicHandle topic(rd_kafka_topic_new(client, options.progress_topic.c_str(), nullptr));
  const rd_kafka_metadata_t* raw = nullptr;
  const auto code =
      rd_kafka_metadata(client, 0, topic.get(), &raw, std::max(1, deadline.left_ms()));
  const Metadata metadata(raw);
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) return error_of("looking for the progress topic", code);
  const auto& found = metadata->topics[0];
  if (found.err == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) {
    return refused_for_now("the progress topic \"" + options.progress_topic + "\" does not exist",
                           "run `outbox-relay init --kafka`, or create it with one partition and "
                           "cleanup.policy=compact");
  }
  if (found.err == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED) {
    return refused_for_now(
        "not authorized for the progress topic \"" + options.progress_topic + "\"",
        "allow Read, Write and Describe on it");
  }
  if (found.err != RD_KAFKA_RESP_ERR_NO_ERROR) {
    Error e = error_of("looking for the progress topic", found.err);
    if (e.fault != Fault::refused) e.fault = Fault::kafka;
    return e;
  }
  if (found.partition_cnt != 1) {
    return Error{Fault::refused,
                 "the progress topic \"" + options.progress_topic + "\" has " +
                     std::to_string(found.partition_cnt) + " partitions, it must have one",
                 "create it again, or set kafka.progress_topic to another name and run "
                 "`outbox-relay init --kafka`"};
  }
  return {};
}

// The bounds of the partition with open transactions included.
Result<Watermarks> find_watermarks(const Options& options, Deadline deadline, AsyncCloser* closer) {
  auto made = make_reader(options, "read_uncommitted");
  if (!made) return made.error();
  const ScopedClient client(std::move(*made), closer);
  if (auto r = find_topic(options, client.get(), deadline); !r) return r.error();
  return query_watermarks(client.get(), options.progress_topic, 0, "reading the progress topic",
                          deadline);
}

// Whether `later`, which was written later, is of an abandoned primary: one of a newer timeline
// wrote before it. Only at-least-once nobody keeps such a relay from writing.
bool overtaken(const Progress& later, const Progress& earlier) {
  return later.identity.cluster == earlier.identity.cluster && later.identity.timeline != 0 &&
         later.identity.timeline < earlier.identity.timeline;
}

struct ReadRange {
  std::optional<Progress> newest;
  std::int64_t position = 0;
};

// Reads committed records from `from` until the position reaches `end`, or the last stable offset
// if that will do.
Result<ReadRange> read_stretch(const Options& options, rd_kafka_topic_t* topic, std::int64_t from,
                               std::int64_t end, bool to_the_end, Deadline deadline) {
  if (rd_kafka_consume_start(topic, 0, from) != 0)
    return error_of("reading the progress topic", rd_kafka_last_error());
  struct Stop {
    rd_kafka_topic_t* topic;
    ~Stop() { rd_kafka_consume_stop(topic, 0); }
  } const stop{topic};
  ReadRange out;
  std::optional<Deadline> undecided;
  while (!deadline.passed() && !(undecided && undecided->passed())) {
    const outbox::common::Owned<rd_kafka_message_t, rd_kafka_message_destroy> m(
        rd_kafka_consume(topic, 0, std::min(500, deadline.left_ms())));
    if (!m) continue;
    if (m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
      out.position = m->offset;
      if (m->offset >= end || !to_the_end) return out;
      if (!undecided) undecided = Deadline(undecided_max);
    } else if (m->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
      Error e = error_of("reading the progress topic", m->err, rd_kafka_message_errstr(m.get()));
      if (e.fault != Fault::refused) e.fault = Fault::kafka;
      return e;
    } else {
      const std::string_view key(static_cast<const char*>(m->key), m->key_len);
      if (key != options.relay) {
        return Error{
            Fault::refused,
            "the progress topic \"" + options.progress_topic + "\" holds records of another relay",
            "every relay needs a progress topic of its own"};
      }
      auto progress = parse_progress({static_cast<const char*>(m->payload), m->len});
      if (!progress) {
        return Error{Fault::refused,
                     "the progress topic holds a record that this relay cannot read, at offset " +
                         std::to_string(m->offset),
                     "run the newest outbox-relay"};
      }
      if (!out.newest || !overtaken(*progress, *out.newest)) out.newest = *progress;
    }
  }
  return Error{Fault::kafka, "Kafka, reading the progress topic: the end was not reached in time"};
}

}  // namespace

std::string progress_json(const Progress& p) {
  char timeline[9];
  std::snprintf(timeline, sizeof timeline, "%08X", p.identity.timeline);
  nlohmann::json j = {{"cluster", std::to_string(p.identity.cluster)},
                      {"timeline", timeline},
                      {"database", p.identity.database},
                      {"epoch", p.epoch},
                      {"number", p.number},
                      {"token", p.token.text()},
                      {"previous", nullptr}};
  if (p.previous) j["previous"] = p.previous->text();
  return j.dump();
}

std::optional<Progress> parse_progress(std::string_view json) {
  const auto j = nlohmann::json::parse(json, nullptr, false);
  if (!j.is_object()) return std::nullopt;
  const auto text = [&](const char* name) {
    return j.contains(name) && j[name].is_string() ? j[name].get<std::string>() : std::string();
  };
  Progress p;
  const std::string cluster = text("cluster");
  const std::string timeline = text("timeline");
  const auto token = Uuid::parse(text("token"));
  const bool numbers = j.contains("epoch") && j["epoch"].is_number_integer() &&
                       j.contains("number") && j["number"].is_number_integer();
  if (!token || !numbers) return std::nullopt;
  if (std::from_chars(cluster.data(), cluster.data() + cluster.size(), p.identity.cluster).ec !=
      std::errc{})
    return std::nullopt;
  if (std::from_chars(timeline.data(), timeline.data() + timeline.size(), p.identity.timeline, 16)
          .ec != std::errc{})
    return std::nullopt;
  if (j.contains("database") && j["database"].is_number_unsigned())
    p.identity.database = j["database"].get<std::uint32_t>();
  p.epoch = j["epoch"].get<std::int64_t>();
  p.number = j["number"].get<std::int64_t>();
  p.token = *token;
  p.previous = Uuid::parse(text("previous"));
  return p;
}

Result<void> require_compaction(const Options& options,
                                const std::map<std::string, std::string>& topic_config) {
  const auto policy = topic_config.find("cleanup.policy");
  if (policy == topic_config.end() || policy->second.find("compact") != std::string::npos)
    return {};
  return Error{Fault::refused,
               "the progress topic \"" + options.progress_topic +
                   "\" is not compacted (cleanup.policy=" + policy->second +
                   "): it would forget how far the relay is",
               "set cleanup.policy=compact on it"};
}

Result<void> check_progress_topic(const Options& options, Deadline deadline, AsyncCloser* closer) {
  auto made = make_reader(options, "read_committed");
  if (!made) return made.error();
  const ScopedClient client(std::move(*made), closer);
  const auto config =
      describe_config(client.get(), ConfigOf::topic, options.progress_topic, deadline);
  return config ? require_compaction(options, *config) : Result<void>{};
}

Result<std::optional<Progress>> read_progress(const Options& options, bool to_the_end,
                                              Deadline deadline, AsyncCloser* closer) {
  auto marks = find_watermarks(options, deadline, closer);
  if (!marks) return marks.error();
  if (marks->end == marks->low) return std::optional<Progress>{};
  auto made = make_reader(
      options, MUTANT(read_uncommitted_position) ? "read_uncommitted" : "read_committed");
  if (!made) return made.error();
  const ScopedClient client(std::move(*made), closer);
  TopicHandle topic(rd_kafka_topic_new(client.get(), options.progress_topic.c_str(), nullptr));
  for (std::int64_t step = first_step;; step *= step_growth) {
    const std::int64_t from = std::max(marks->low, marks->end - step);
    auto range = read_stretch(options, topic.get(), from, marks->end, to_the_end, deadline);
    if (!range) return range.error();
    if (range->newest || from == marks->low) return range->newest;
  }
}

}  // namespace relay::kafka
