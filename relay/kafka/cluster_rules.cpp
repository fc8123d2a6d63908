// SPDX-License-Identifier: Apache-2.0
// The rules of inspect.h about settings.
#include <charconv>
#include <optional>

#include "relay/kafka/cluster_check.h"
#include "relay/kafka/progress.h"

namespace relay::kafka {
namespace {

constexpr Millis short_outage{3'600'000};

bool is(const Settings& settings, const char* name, const char* value) {
  const auto it = settings.find(name);
  return it != settings.end() && it->second == value;
}

// The setting as a number; nullopt: not there, or no number.
std::optional<std::int64_t> number(const Settings& settings, const char* name) {
  const auto it = settings.find(name);
  std::int64_t value = 0;
  if (it == settings.end()) return std::nullopt;
  const auto [end, error] =
      std::from_chars(it->second.data(), it->second.data() + it->second.size(), value);
  return error == std::errc{} && *end == '\0' ? std::optional(value) : std::nullopt;
}

std::string hours(std::int64_t ms) {
  const auto text = std::to_string(static_cast<double>(ms) / 3'600'000);
  return text.substr(0, text.find('.') + 2) + " h";
}

// What a single broker can lose after it has acknowledged it. With one broker in the cluster
// nothing else is possible: that is said once, of the cluster.
void check_copies(const TopicFacts& topic, std::vector<CheckResult>& out) {
  if (topic.brokers < 2) return;
  const std::string about = "topic " + topic.name;
  if (topic.replicas == 1) {
    out.push_back({Severity::finding, about, "has one replica: with its broker it is lost",
                   "use a replication factor of 3"});
    return;
  }
  const auto in_sync = number(topic.settings, "min.insync.replicas");
  if (in_sync && *in_sync < 2) {
    out.push_back(
        {Severity::finding, about,
         "has min.insync.replicas = 1: what one broker acknowledged, its failure can lose",
         "set min.insync.replicas = 2"});
  }
  if (in_sync && *in_sync > topic.replicas) {
    out.push_back({Severity::finding, about,
                   "has min.insync.replicas = " + std::to_string(*in_sync) + " and " +
                       std::to_string(topic.replicas) + " replicas: nothing can be written to it",
                   "lower min.insync.replicas, or add replicas"});
  }
}

void check_election(const TopicFacts& topic, std::vector<CheckResult>& out) {
  if (!is(topic.settings, "unclean.leader.election.enable", "true")) return;
  out.push_back({Severity::finding, "topic " + topic.name,
                 "has unclean.leader.election.enable = true: a replica that lags can become "
                 "leader, and acknowledged messages are lost",
                 "set unclean.leader.election.enable = false"});
}

}  // namespace

std::vector<CheckResult> check_broker(const std::string& name, const Settings& settings,
                                      const Requirements& requirements) {
  std::vector<CheckResult> out;
  const auto find = [&](std::string what, std::string hint) {
    out.push_back({Severity::finding, "broker " + name, std::move(what), std::move(hint)});
  };
  if (is(settings, "auto.create.topics.enable", "true")) {
    find(
        "has auto.create.topics.enable = true: a message with a mistyped topic makes a new topic "
        "instead of being parked",
        "set auto.create.topics.enable = false");
  }
  if (is(settings, "unclean.leader.election.enable", "true")) {
    find(
        "has unclean.leader.election.enable = true: a replica that lags can become leader, and "
        "acknowledged messages are lost",
        "set unclean.leader.election.enable = false");
  }
  if (requirements.mode != Mode::exactly_once) return out;
  const char* const verification = "transaction.partition.verification.enable";
  if (!settings.contains(verification)) {
    find(
        "does not verify the partitions of a transaction: a request that comes late can lose or "
        "repeat a batch",
        "use Apache Kafka 3.6 or newer, or set relay.mode = \"at-least-once\"");
  } else if (is(settings, verification, "false")) {
    find(
        "has transaction.partition.verification.enable = false: a request that comes late can lose "
        "or repeat a batch",
        "set transaction.partition.verification.enable = true");
  }
  return out;
}

std::optional<CheckResult> check_transaction_log(const TransactionLogFacts& facts) {
  const auto found = [](std::string what, std::string hint) {
    return CheckResult{Severity::finding, "Kafka", "no transaction can begin: " + std::move(what),
                       std::move(hint) + ", or set relay.mode = \"at-least-once\""};
  };
  if (facts.partitions == 0) {
    const auto replicas = number(facts.broker, "transaction.state.log.replication.factor");
    const auto in_sync = number(facts.broker, "transaction.state.log.min.isr");
    if (replicas && *replicas > facts.brokers) {
      return found("the brokers have transaction.state.log.replication.factor = " +
                       std::to_string(*replicas) + ", and there are " +
                       std::to_string(facts.brokers) + " of them",
                   "add brokers, or set it to " + std::to_string(facts.brokers) +
                       " on a cluster that shall stay so small");
    }
    if (replicas && in_sync && *in_sync > *replicas) {
      return found(
          "the brokers have transaction.state.log.min.isr = " + std::to_string(*in_sync) +
              ", and transaction.state.log.replication.factor = " + std::to_string(*replicas),
          "lower the first, or raise the second");
    }
    return std::nullopt;
  }
  if (facts.leaderless > 0) {
    return found(std::to_string(facts.leaderless) + " of " + std::to_string(facts.partitions) +
                     " partitions of the topic __transaction_state have no leader",
                 "bring the brokers back that have them");
  }
  const auto in_sync = number(facts.topic, "min.insync.replicas");
  if (in_sync && *in_sync > facts.in_sync_min) {
    return found(
        "the topic __transaction_state has min.insync.replicas = " + std::to_string(*in_sync) +
            ", and a partition with " + std::to_string(facts.in_sync_min) + " in sync",
        "bring the brokers back that have the others, add replicas, or lower it");
  }
  return std::nullopt;
}

std::vector<CheckResult> check_topic(const TopicFacts& topic, const Requirements& requirements) {
  std::vector<CheckResult> out;
  const auto find = [&](Severity severity, std::string what, std::string hint) {
    out.push_back({severity, "topic " + topic.name, std::move(what), std::move(hint)});
  };
  if (is(topic.settings, "message.timestamp.type", "LogAppendTime")) {
    find(Severity::finding,
         "has message.timestamp.type = LogAppendTime: a repeat gets another timestamp than the "
         "first copy",
         "set message.timestamp.type = CreateTime, or let consumers take the time from the header "
         "sent-at");
  }
  for (const char* const bound :
       {"message.timestamp.before.max.ms", "message.timestamp.difference.max.ms"}) {
    const auto age_max = number(topic.settings, bound);
    if (!age_max || *age_max >= short_outage.count()) continue;
    find(
        Severity::finding,
        "has " + std::string(bound) + " = " + std::to_string(*age_max) +
            ": messages that are in doubt for longer, in an outage, are parked and sent with a new "
            "timestamp",
        "raise it");
  }
  const auto policy = topic.settings.find("cleanup.policy");
  const bool compacted =
      policy != topic.settings.end() && policy->second.find("compact") != std::string::npos;
  const bool deletes =
      policy != topic.settings.end() && policy->second.find("delete") != std::string::npos;
  const auto retention = number(topic.settings, "retention.ms");
  if (deletes && retention && *retention >= 0 && *retention < requirements.retention_keep.count()) {
    find(Severity::finding,
         "keeps records for " + hours(*retention) + ", the outbox keeps its messages for " +
             hours(requirements.retention_keep.count()) +
             ": `trace` will find some of them expired",
         "raise retention.ms, or lower retention.keep");
  }
  if (compacted) {
    find(Severity::note,
         "is compacted: a message without a key is refused and parked, and `trace` finds only the "
         "newest of a key",
         "give every message for it a key");
  }
  const auto bytes = number(topic.settings, "max.message.bytes");
  if (bytes && *bytes < requirements.message_bytes_max) {
    find(Severity::finding,
         "has max.message.bytes = " + std::to_string(*bytes) +
             ", less than delivery.message_bytes_max (" +
             std::to_string(requirements.message_bytes_max) + "): larger messages are parked",
         "raise max.message.bytes, or lower delivery.message_bytes_max");
  }
  check_copies(topic, out);
  check_election(topic, out);
  return out;
}

std::vector<CheckResult> check_progress_topic_settings(const Options& options,
                                                       const TopicFacts& topic) {
  std::vector<CheckResult> out;
  const auto compacted = require_compaction(options, topic.settings);
  if (!compacted) {
    out.push_back({Severity::refused, "Kafka", compacted.error().what, compacted.error().hint});
  } else if (const auto policy = topic.settings.find("cleanup.policy");
             policy != topic.settings.end() && policy->second.find("delete") != std::string::npos) {
    out.push_back(
        {Severity::finding, "topic " + topic.name,
         "is the progress topic, and deletes by time: an idle relay's progress would be lost",
         "set cleanup.policy=compact, without delete"});
  }
  check_copies(topic, out);
  check_election(topic, out);
  return out;
}

}  // namespace relay::kafka
