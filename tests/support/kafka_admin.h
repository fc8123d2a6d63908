// SPDX-License-Identifier: Apache-2.0
// What tests change in a Kafka cluster beside creating topics. Each throws std::runtime_error when
// the cluster does not do it.
#pragma once

#include <string>

namespace relay::test {

// Whether the broker knows the topic.
bool has_topic(const std::string& brokers, const std::string& topic);
// Creates a topic of one partition without a second copy, on the broker of this number.
void create_topic_on(const std::string& brokers, const std::string& topic, int broker);
// Whether the topic's only partition has a leader, as the brokers that run see it.
bool has_leader(const std::string& brokers, const std::string& topic);
// Adds partitions until there are so many.
void add_partitions(const std::string& brokers, const std::string& topic, int partitions);
// Deletes every record of the partition that is there now.
void delete_records(const std::string& brokers, const std::string& topic, int partition);

// Denies an operation on a topic to every user; needs a broker with an authorizer.
enum class Denied { describe, write, describe_configs };
void deny(const std::string& brokers, const std::string& topic, Denied operation);
// Takes back what was denied on the topic.
void allow_again(const std::string& brokers, const std::string& topic);

}  // namespace relay::test
