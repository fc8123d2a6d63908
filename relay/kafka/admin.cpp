// SPDX-License-Identifier: Apache-2.0
#include "relay/kafka/admin.h"

#include <algorithm>
#include <thread>

#include "common/backoff.h"

namespace relay::kafka {
namespace {

using ConfigResource =
    outbox::common::Owned<rd_kafka_ConfigResource_t, rd_kafka_ConfigResource_destroy>;
using AdminOptions = outbox::common::Owned<rd_kafka_AdminOptions_t, rd_kafka_AdminOptions_destroy>;
using NewTopic = outbox::common::Owned<rd_kafka_NewTopic_t, rd_kafka_NewTopic_destroy>;

AdminOptions admin_options(rd_kafka_t* client, rd_kafka_admin_op_t op, Deadline deadline) {
  AdminOptions options(rd_kafka_AdminOptions_new(client, op));
  char why[256];
  rd_kafka_AdminOptions_set_request_timeout(options.get(), std::max(100, deadline.left_ms()), why,
                                            sizeof why);
  return options;
}

// Waits for the answer to the one request on `queue`.
Result<Event> answer(rd_kafka_queue_t* queue, const char* doing, Deadline deadline) {
  Event event(rd_kafka_queue_poll(queue, std::max(100, deadline.left_ms() + 500)));
  if (!event) return error_of(doing, RD_KAFKA_RESP_ERR__TIMED_OUT);
  const auto code = rd_kafka_event_error(event.get());
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
    return error_of(doing, code, rd_kafka_event_error_string(event.get()));
  return event;
}

}  // namespace

static Error cannot_describe(const std::string& name, rd_kafka_resp_err_t code) {
  if (code == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED ||
      code == RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED) {
    return {Fault::absent, "the user may not describe " + name,
            "allow DescribeConfigs on it, or ask as somebody who may"};
  }
  return error_of("describing " + name, code);
}

Result<std::map<std::string, std::string>> describe_config(rd_kafka_t* client, ConfigOf kind,
                                                           const std::string& name,
                                                           Deadline deadline) {
  const std::string doing = "describing " + name;
  const ConfigResource resource(rd_kafka_ConfigResource_new(
      kind == ConfigOf::topic ? RD_KAFKA_RESOURCE_TOPIC : RD_KAFKA_RESOURCE_BROKER, name.c_str()));
  rd_kafka_ConfigResource_t* resources[] = {resource.get()};
  const Queue queue(rd_kafka_queue_new(client));
  const auto options = admin_options(client, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS, deadline);
  rd_kafka_DescribeConfigs(client, resources, 1, options.get(), queue.get());
  auto event = answer(queue.get(), doing.c_str(), deadline);
  if (!event) return event.error();
  std::size_t count = 0;
  const auto* const found = rd_kafka_DescribeConfigs_result_resources(
      rd_kafka_event_DescribeConfigs_result(event->get()), &count);
  if (count != 1) return error_of(doing, RD_KAFKA_RESP_ERR__BAD_MSG);
  const auto code = rd_kafka_ConfigResource_error(found[0]);
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) return cannot_describe(name, code);
  const auto* const entries = rd_kafka_ConfigResource_configs(found[0], &count);
  std::map<std::string, std::string> out;
  for (std::size_t i = 0; i < count; ++i) {
    const char* const value = rd_kafka_ConfigEntry_value(entries[i]);
    if (value != nullptr) out[rd_kafka_ConfigEntry_name(entries[i])] = value;
  }
  return out;
}

// Asks once. A broker that restarts closes connections, and this request is not repeated by the
// client.
static Result<bool> request_progress_topic(const Options& options, rd_kafka_t* client,
                                           Deadline deadline) {
  char why[256];
  const NewTopic topic(
      rd_kafka_NewTopic_new(options.progress_topic.c_str(), 1, -1, why, sizeof why));
  if (!topic)
    return Error{Fault::usage, "progress topic \"" + options.progress_topic + "\": " + why};
  rd_kafka_NewTopic_set_config(topic.get(), "cleanup.policy", "compact");
  rd_kafka_NewTopic_set_config(topic.get(), "segment.ms", "3600000");
  rd_kafka_NewTopic_t* topics[] = {topic.get()};
  const Queue queue(rd_kafka_queue_new(client));
  const auto admin = admin_options(client, RD_KAFKA_ADMIN_OP_CREATETOPICS, deadline);
  rd_kafka_CreateTopics(client, topics, 1, admin.get(), queue.get());
  auto event = answer(queue.get(), "creating the progress topic", deadline);
  if (!event) return event.error();
  std::size_t count = 0;
  const auto* const results =
      rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event->get()), &count);
  if (count != 1) return error_of("creating the progress topic", RD_KAFKA_RESP_ERR__BAD_MSG);
  const auto code = rd_kafka_topic_result_error(results[0]);
  if (code == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS) return false;
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
    const char* const detail = rd_kafka_topic_result_error_string(results[0]);
    if (code == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED ||
        code == RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED ||
        code == RD_KAFKA_RESP_ERR_POLICY_VIOLATION) {
      return Error{Fault::refused,
                   "Kafka refuses to create the progress topic: " +
                       std::string(detail != nullptr ? detail : rd_kafka_err2str(code)),
                   "allow Create on " + options.progress_topic +
                       ", or have it created with one partition and cleanup.policy=compact"};
    }
    return error_of("creating the progress topic", code, detail != nullptr ? detail : "");
  }
  return true;
}

// A topic that was created is not known to every broker at once.
static bool is_there(rd_kafka_t* client, const std::string& name, Deadline deadline) {
  const TopicHandle handle(rd_kafka_topic_new(client, name.c_str(), nullptr));
  const rd_kafka_metadata_t* raw = nullptr;
  const auto code =
      rd_kafka_metadata(client, 0, handle.get(), &raw, std::max(1, deadline.left_ms()));
  const Metadata metadata(raw);
  return code == RD_KAFKA_RESP_ERR_NO_ERROR && metadata->topic_cnt == 1 &&
         metadata->topics[0].err == RD_KAFKA_RESP_ERR_NO_ERROR;
}

Result<bool> create_progress_topic(const Options& options, Deadline deadline) {
  auto conf = make_conf(options, {});
  if (!conf) return conf.error();
  auto client = make_client(RD_KAFKA_PRODUCER, std::move(*conf));
  if (!client) return client.error();
  outbox::common::Backoff backoff(Millis{50}, Millis{1'000});
  auto created = request_progress_topic(options, client->get(), deadline);
  while (!created && created.error().fault == Fault::kafka && !deadline.passed()) {
    std::this_thread::sleep_for(std::min(backoff.next(), deadline.left()));
    created = request_progress_topic(options, client->get(), deadline);
  }
  if (!created) return created;
  for (backoff.reset(); !is_there(client->get(), options.progress_topic, deadline);) {
    if (deadline.passed()) {
      return Error{Fault::kafka,
                   "the progress topic \"" + options.progress_topic +
                       "\" was created, and the brokers do not show it yet",
                   "run init again when the cluster is less busy"};
    }
    std::this_thread::sleep_for(std::min(backoff.next(), deadline.left()));
  }
  return created;
}

}  // namespace relay::kafka
