// SPDX-License-Identifier: Apache-2.0
#include "tests/support/kafka_admin.h"

#include <algorithm>
#include <array>
#include <span>
#include <stdexcept>

#include "relay/kafka/handle.h"
#include "tests/support/process.h"

namespace relay::test {
namespace {

kafka::Client connect(const std::string& brokers) {
  std::array<char, 512> error{};
  rd_kafka_conf_t* conf = rd_kafka_conf_new();
  rd_kafka_conf_set(conf, "bootstrap.servers", brokers.c_str(), error.data(), error.size());
  kafka::Client client(rd_kafka_new(RD_KAFKA_PRODUCER, conf, error.data(), error.size()));
  if (!client) throw std::runtime_error(error.data());
  return client;
}

void require(rd_kafka_resp_err_t code, const std::string& doing) {
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
    throw std::runtime_error(doing + ": " + rd_kafka_err2str(code));
}

kafka::Event answer(rd_kafka_queue_t* queue, const std::string& doing) {
  kafka::Event event(rd_kafka_queue_poll(queue, 15'000));
  if (!event) throw std::runtime_error("no answer: " + doing);
  require(rd_kafka_event_error(event.get()), doing);
  return event;
}

}  // namespace

void delete_records(const std::string& brokers, const std::string& topic, int partition) {
  const std::string doing = "deleting records of " + topic;
  const kafka::Client client = connect(brokers);
  const kafka::Queue queue(rd_kafka_queue_new(client.get()));
  using Offsets =
      kafka::Owned<rd_kafka_topic_partition_list_t, rd_kafka_topic_partition_list_destroy>;
  const Offsets offsets(rd_kafka_topic_partition_list_new(1));
  rd_kafka_topic_partition_list_add(offsets.get(), topic.c_str(), partition)->offset =
      RD_KAFKA_OFFSET_END;
  const kafka::Owned<rd_kafka_DeleteRecords_t, rd_kafka_DeleteRecords_destroy> request(
      rd_kafka_DeleteRecords_new(offsets.get()));
  rd_kafka_DeleteRecords_t* requests = request.get();
  rd_kafka_DeleteRecords(client.get(), &requests, 1, nullptr, queue.get());
  const auto event = answer(queue.get(), doing);
  const auto* const result =
      rd_kafka_DeleteRecords_result_offsets(rd_kafka_event_DeleteRecords_result(event.get()));
  require(result->elems[0].err, doing);
}

bool has_topic(const std::string& brokers, const std::string& topic) {
  const kafka::Client client = connect(brokers);
  const rd_kafka_metadata_t* raw = nullptr;
  require(rd_kafka_metadata(client.get(), 1, nullptr, &raw, 15'000), "asking for all topics");
  const kafka::Metadata all(raw);
  const std::span topics(all->topics, static_cast<std::size_t>(all->topic_cnt));
  return std::any_of(topics.begin(), topics.end(),
                     [&](const auto& found) { return found.topic == topic; });
}

void create_topic_on(const std::string& brokers, const std::string& topic, int broker) {
  const std::string doing = "creating " + topic;
  const kafka::Client client = connect(brokers);
  const kafka::Queue queue(rd_kafka_queue_new(client.get()));
  std::array<char, 512> error{};
  const kafka::Owned<rd_kafka_NewTopic_t, rd_kafka_NewTopic_destroy> request(
      rd_kafka_NewTopic_new(topic.c_str(), 1, -1, error.data(), error.size()));
  std::int32_t replica = broker;
  if (!request) throw std::runtime_error(doing + ": " + error.data());
  require(rd_kafka_NewTopic_set_replica_assignment(request.get(), 0, &replica, 1, error.data(),
                                                   error.size()),
          doing);
  rd_kafka_NewTopic_t* requests = request.get();
  rd_kafka_CreateTopics(client.get(), &requests, 1, nullptr, queue.get());
  const auto event = answer(queue.get(), doing);
  std::size_t count = 0;
  const auto* const* const results =
      rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event.get()), &count);
  require(rd_kafka_topic_result_error(results[0]), doing);
  eventually(topic + " has a leader", [&] { return has_leader(brokers, topic); });
}

bool has_leader(const std::string& brokers, const std::string& topic) {
  const kafka::Client client = connect(brokers);
  const kafka::TopicHandle handle(rd_kafka_topic_new(client.get(), topic.c_str(), nullptr));
  const rd_kafka_metadata_t* raw = nullptr;
  require(rd_kafka_metadata(client.get(), 0, handle.get(), &raw, 15'000), "asking for " + topic);
  const kafka::Metadata found(raw);
  return found->topics[0].partition_cnt == 1 && found->topics[0].partitions[0].leader >= 0;
}

void add_partitions(const std::string& brokers, const std::string& topic, int partitions) {
  const std::string doing = "adding partitions to " + topic;
  const kafka::Client client = connect(brokers);
  const kafka::Queue queue(rd_kafka_queue_new(client.get()));
  std::array<char, 512> error{};
  const kafka::Owned<rd_kafka_NewPartitions_t, rd_kafka_NewPartitions_destroy> request(
      rd_kafka_NewPartitions_new(topic.c_str(), static_cast<std::size_t>(partitions), error.data(),
                                 error.size()));
  if (!request) throw std::runtime_error(doing + ": " + error.data());
  rd_kafka_NewPartitions_t* requests = request.get();
  rd_kafka_CreatePartitions(client.get(), &requests, 1, nullptr, queue.get());
  const auto event = answer(queue.get(), doing);
  std::size_t count = 0;
  const auto* const* const results = rd_kafka_CreatePartitions_result_topics(
      rd_kafka_event_CreatePartitions_result(event.get()), &count);
  require(rd_kafka_topic_result_error(results[0]), doing);
}

void deny(const std::string& brokers, const std::string& topic, Denied operation) {
  const std::string doing = "denying an operation on " + topic;
  const auto code = operation == Denied::describe ? RD_KAFKA_ACL_OPERATION_DESCRIBE
                    : operation == Denied::write  ? RD_KAFKA_ACL_OPERATION_WRITE
                                                  : RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS;
  const kafka::Client client = connect(brokers);
  const kafka::Queue queue(rd_kafka_queue_new(client.get()));
  std::array<char, 512> error{};
  // With an authorizer that allows whatever no rule is about, the first rule would forbid
  // everything else.
  const auto rule = [&](rd_kafka_AclOperation_t what, rd_kafka_AclPermissionType_t how) {
    return rd_kafka_AclBinding_new(RD_KAFKA_RESOURCE_TOPIC, topic.c_str(),
                                   RD_KAFKA_RESOURCE_PATTERN_LITERAL, "User:*", "*", what, how,
                                   error.data(), error.size());
  };
  using Rule = kafka::Owned<rd_kafka_AclBinding_t, rd_kafka_AclBinding_destroy>;
  const Rule allowed(rule(RD_KAFKA_ACL_OPERATION_ALL, RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW));
  const Rule denied(rule(code, RD_KAFKA_ACL_PERMISSION_TYPE_DENY));
  if (!allowed || !denied) throw std::runtime_error(doing + ": " + error.data());
  std::array<rd_kafka_AclBinding_t*, 2> rules = {allowed.get(), denied.get()};
  rd_kafka_CreateAcls(client.get(), rules.data(), rules.size(), nullptr, queue.get());
  const auto event = answer(queue.get(), doing);
  std::size_t count = 0;
  const auto* const results =
      rd_kafka_CreateAcls_result_acls(rd_kafka_event_CreateAcls_result(event.get()), &count);
  for (std::size_t i = 0; i < count; ++i) {
    if (const auto* e = rd_kafka_acl_result_error(results[i]))
      throw std::runtime_error(doing + ": " + rd_kafka_error_string(e));
  }
  // The controller has them; what the broker goes by follows a moment later.
  eventually(doing, [&] {
    rd_kafka_DescribeAcls(client.get(), denied.get(), nullptr, queue.get());
    const auto described = answer(queue.get(), doing);
    std::size_t known = 0;
    rd_kafka_DescribeAcls_result_acls(rd_kafka_event_DescribeAcls_result(described.get()), &known);
    return known > 0;
  });
}

void allow_again(const std::string& brokers, const std::string& topic) {
  const std::string doing = "allowing operations on " + topic;
  const kafka::Client client = connect(brokers);
  const kafka::Queue queue(rd_kafka_queue_new(client.get()));
  std::array<char, 512> error{};
  using Rules = kafka::Owned<rd_kafka_AclBindingFilter_t, rd_kafka_AclBinding_destroy>;
  const Rules denials(rd_kafka_AclBindingFilter_new(
      RD_KAFKA_RESOURCE_TOPIC, topic.c_str(), RD_KAFKA_RESOURCE_PATTERN_LITERAL, nullptr, nullptr,
      RD_KAFKA_ACL_OPERATION_ANY, RD_KAFKA_ACL_PERMISSION_TYPE_DENY, error.data(), error.size()));
  if (!denials) throw std::runtime_error(doing + ": " + error.data());
  rd_kafka_AclBindingFilter_t* filters = denials.get();
  rd_kafka_DeleteAcls(client.get(), &filters, 1, nullptr, queue.get());
  const auto event = answer(queue.get(), doing);
  std::size_t count = 0;
  const auto* const results =
      rd_kafka_DeleteAcls_result_responses(rd_kafka_event_DeleteAcls_result(event.get()), &count);
  for (std::size_t i = 0; i < count; ++i) {
    if (const auto* e = rd_kafka_DeleteAcls_result_response_error(results[i]))
      throw std::runtime_error(doing + ": " + rd_kafka_error_string(e));
  }
}

}  // namespace relay::test
