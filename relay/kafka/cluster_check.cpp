// SPDX-License-Identifier: Apache-2.0
#include "relay/kafka/cluster_check.h"

#include <algorithm>
#include <span>

#include "relay/kafka/admin.h"
#include "relay/kafka/progress.h"
#include "relay/kafka/topic_rules.h"

namespace relay::kafka {
namespace {

constexpr Millis first_answer_max{10'000};
constexpr Millis answer_max{5'000};
constexpr const char* transaction_log = "__transaction_state";
constexpr std::size_t topics_max =
    500;  // that a pattern of topics.allow adds; each costs a request

std::optional<CheckResult> look_at_transaction_log(rd_kafka_t* client,
                                                   const rd_kafka_metadata_t& all,
                                                   Deadline deadline) {
  TransactionLogFacts facts;
  facts.brokers = all.broker_cnt;
  for (const auto& topic : std::span(all.topics, static_cast<std::size_t>(all.topic_cnt))) {
    if (topic.topic != std::string_view(transaction_log)) continue;
    facts.partitions = topic.partition_cnt;
    facts.in_sync_min = topic.partition_cnt > 0 ? topic.partitions[0].isr_cnt : 0;
    for (const auto& partition :
         std::span(topic.partitions, static_cast<std::size_t>(topic.partition_cnt))) {
      facts.leaderless += partition.leader < 0 ? 1 : 0;
      facts.in_sync_min = std::min(facts.in_sync_min, partition.isr_cnt);
    }
  }
  if (all.broker_cnt == 0) return std::nullopt;
  const bool there = facts.partitions > 0;
  auto settings =
      describe_config(client, there ? ConfigOf::topic : ConfigOf::broker,
                      there ? transaction_log : std::to_string(all.brokers[0].id), deadline);
  if (settings)
    (there ? facts.topic : facts.broker) =
        std::move(*settings);  // else what the partitions show must do
  return check_transaction_log(facts);
}

class Inspection {
 public:
  Inspection(rd_kafka_t* client, const Options& options, const Requirements& requirements,
             Deadline deadline)
      : client_(client), options_(options), demands_(requirements), deadline_(deadline) {}

  Result<void> fetch();
  void look_at_brokers();
  void look_at_transactions();
  void look_at_topics();
  void look_at_progress_topic();

  std::vector<CheckResult> findings;

 private:
  void add(Severity severity, const std::string& about, std::string what, std::string hint) {
    findings.push_back({severity, about, std::move(what), std::move(hint)});
  }
  void add(std::vector<CheckResult> more) {
    findings.insert(findings.end(), more.begin(), more.end());
  }
  Deadline one_answer() const { return Deadline(std::min(deadline_.left(), answer_max)); }
  const rd_kafka_metadata_topic_t* known(const std::string& topic) const;
  std::vector<std::string> matching(std::string_view prefix) const;
  void look_at_named_topic(const std::string& name);
  void look_at_topic(const rd_kafka_metadata_topic_t& topic);
  std::optional<TopicFacts> facts_of(const rd_kafka_metadata_topic_t& topic);

  rd_kafka_t* client_;
  const Options& options_;
  const Requirements& demands_;
  Deadline deadline_;
  Metadata all_;
};

Result<void> Inspection::fetch() {
  const rd_kafka_metadata_t* raw = nullptr;
  const auto wait = std::clamp(deadline_.left(), Millis{1}, first_answer_max);
  const auto code = rd_kafka_metadata(client_, 1, nullptr, &raw, static_cast<int>(wait.count()));
  all_.reset(raw);
  if (code == RD_KAFKA_RESP_ERR_NO_ERROR) return {};
  Error e = error_of("asking for the brokers and topics", code);
  if (e.hint.empty()) e.hint = "is kafka.brokers right, and does the cluster run?";
  return e;
}

void Inspection::look_at_transactions() {
  if (demands_.mode != Mode::exactly_once) return;
  if (auto why = look_at_transaction_log(client_, *all_, one_answer()))
    findings.push_back(std::move(*why));
}

void Inspection::look_at_brokers() {
  if (all_->broker_cnt == 1) {
    add(Severity::note, "Kafka", "the cluster has one broker: what that loses is lost",
        "use three brokers where messages matter");
  }
  for (int i = 0; i < all_->broker_cnt; ++i) {
    const std::string name = std::to_string(all_->brokers[i].id);
    const auto settings = describe_config(client_, ConfigOf::broker, name, one_answer());
    if (settings) {
      add(check_broker(name, *settings, demands_));
      continue;
    }
    const Error& e = settings.error();
    if (e.fault == Fault::absent) {
      add(Severity::note, "Kafka",
          "the user may not describe the brokers: their settings were not looked at",
          "allow DescribeConfigs on the cluster, or run check as somebody who may");
      return;
    }
    const bool too_old = e.fault == Fault::refused && demands_.mode == Mode::exactly_once;
    add(too_old                   ? Severity::refused
        : e.fault == Fault::kafka ? Severity::unreachable
                                  : Severity::note,
        "broker " + name, e.what, e.hint);
  }
}

const rd_kafka_metadata_topic_t* Inspection::known(const std::string& topic) const {
  for (int i = 0; i < all_->topic_cnt; ++i) {
    if (all_->topics[i].topic == topic) return &all_->topics[i];
  }
  return nullptr;
}

std::vector<std::string> Inspection::matching(std::string_view prefix) const {
  std::vector<std::string> names;
  for (int i = 0; i < all_->topic_cnt; ++i) {
    const std::string_view name = all_->topics[i].topic;
    if (name.starts_with(prefix) && !forbidden_topic(name, options_)) names.emplace_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

void Inspection::look_at_topics() {
  std::vector<std::string> names;
  for (const std::string& pattern : options_.allow) {
    if (!pattern.ends_with('*')) {
      names.push_back(pattern);
      continue;
    }
    auto found = matching(std::string_view(pattern).substr(0, pattern.size() - 1));
    if (found.empty()) {
      add(Severity::note, "Kafka", "no topic matches \"" + pattern + "\" of topics.allow",
          "create the topics before messages name them");
    } else if (found.size() > topics_max) {
      add(Severity::note, "Kafka",
          "\"" + pattern + "\" of topics.allow matches " + std::to_string(found.size()) +
              " topics; only the first " + std::to_string(topics_max) + " were looked at",
          "narrow topics.allow");
      found.resize(topics_max);
    }
    names.insert(names.end(), found.begin(), found.end());
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  for (const std::string& name : names) look_at_named_topic(name);
}

void Inspection::look_at_named_topic(const std::string& name) {
  const std::string about = "topic " + name;
  if (const auto why = forbidden_topic(name, options_)) {
    return add(Severity::finding, about, "is in topics.allow, but " + why->text,
               "remove it from topics.allow");
  }
  if (const auto* topic = known(name); topic != nullptr) return look_at_topic(*topic);
  // Topics that the user may not see are left out of the list of all; only a question for this one
  // shows them.
  const TopicHandle handle(rd_kafka_topic_new(client_, name.c_str(), nullptr));
  const rd_kafka_metadata_t* raw = nullptr;
  const auto code =
      rd_kafka_metadata(client_, 0, handle.get(), &raw, std::max(1, one_answer().left_ms()));
  const Metadata metadata(raw);
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
    const Error e = error_of("looking up the topic", code);
    return add(Severity::unreachable, about, e.what, e.hint);
  }
  look_at_topic(metadata->topics[0]);
}

void Inspection::look_at_topic(const rd_kafka_metadata_topic_t& topic) {
  const std::string about = std::string("topic ") + topic.topic;
  switch (topic.err) {
    case RD_KAFKA_RESP_ERR_NO_ERROR:
    case RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE: break;
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
      return add(Severity::finding, about, "does not exist: messages for it are parked",
                 "create it, or remove it from topics.allow");
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
      return add(Severity::finding, about,
                 "the relay's user may not use it: messages for it are parked",
                 "allow Write and Describe on it");
    default:
      return add(Severity::finding, about,
                 std::string("Kafka says: ") + rd_kafka_err2str(topic.err),
                 "see the log of the brokers");
  }
  if (const auto facts = facts_of(topic)) add(check_topic(*facts, demands_));
}

std::optional<TopicFacts> Inspection::facts_of(const rd_kafka_metadata_topic_t& topic) {
  auto settings = describe_config(client_, ConfigOf::topic, topic.topic, one_answer());
  if (settings) {
    return TopicFacts{topic.topic, topic.partition_cnt > 0 ? topic.partitions[0].replica_cnt : 0,
                      all_->broker_cnt, std::move(*settings)};
  }
  add(settings.error().fault == Fault::kafka ? Severity::unreachable : Severity::note,
      std::string("topic ") + topic.topic,
      "its settings were not looked at: " + settings.error().what,
      "allow DescribeConfigs on it, or run check as somebody who may");
  return std::nullopt;
}

void Inspection::look_at_progress_topic() {
  const auto* const topic = known(options_.progress_topic);
  if (topic == nullptr || topic->err != RD_KAFKA_RESP_ERR_NO_ERROR)
    return;  // reading the progress record says it better
  if (const auto facts = facts_of(*topic)) add(check_progress_topic_settings(options_, *facts));
}

}  // namespace

std::vector<CheckResult> inspect_cluster(const Options& options, const Requirements& requirements,
                                         Deadline deadline) {
  auto client = make_admin_client(options);
  if (!client) return {{Severity::refused, "Kafka", client.error().what, client.error().hint}};
  Inspection inspection(client->get(), options, requirements, deadline);
  if (auto r = inspection.fetch(); !r)
    return {{Severity::unreachable, "Kafka", r.error().what, r.error().hint}};
  inspection.look_at_brokers();
  inspection.look_at_transactions();
  inspection.look_at_progress_topic();
  inspection.look_at_topics();
  return std::move(inspection.findings);
}

std::optional<CheckResult> inspect_transaction_log(rd_kafka_t* client, Deadline deadline) {
  const rd_kafka_metadata_t* raw = nullptr;
  const auto code = rd_kafka_metadata(client, 1, nullptr, &raw, std::max(1, deadline.left_ms()));
  const Metadata all(raw);
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) return std::nullopt;
  return look_at_transaction_log(client, *all, deadline);
}

}  // namespace relay::kafka
