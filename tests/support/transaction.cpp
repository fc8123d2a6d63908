// SPDX-License-Identifier: Apache-2.0
#include "tests/support/transaction.h"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <utility>
#include <vector>

namespace relay::test {
namespace {

using Client = outbox::common::Owned<rd_kafka_t, rd_kafka_destroy>;
using Error = outbox::common::Owned<rd_kafka_error_t, rd_kafka_error_destroy>;
using Partitions =
    outbox::common::Owned<rd_kafka_topic_partition_list_t, rd_kafka_topic_partition_list_destroy>;

constexpr int timeout_ms = 15'000;

void require(rd_kafka_error_t* raw) {
  const Error error(raw);
  if (error) throw std::runtime_error(rd_kafka_error_string(error.get()));
}

void require(rd_kafka_resp_err_t code) {
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) throw std::runtime_error(rd_kafka_err2str(code));
}

Client make_client(rd_kafka_type_t type,
                   const std::vector<std::pair<std::string, std::string>>& properties) {
  std::array<char, 512> why{};
  rd_kafka_conf_t* conf = rd_kafka_conf_new();
  for (const auto& [name, value] : properties) {
    if (rd_kafka_conf_set(conf, name.c_str(), value.c_str(), why.data(), why.size()) !=
        RD_KAFKA_CONF_OK) {
      throw std::runtime_error(why.data());
    }
  }
  Client client(rd_kafka_new(type, conf, why.data(), why.size()));
  if (!client) throw std::runtime_error(why.data());
  return client;
}

}  // namespace

TransactionalSender::TransactionalSender(const std::string& brokers,
                                         const std::string& transactional_id)
    : client_(make_client(RD_KAFKA_PRODUCER, {{"bootstrap.servers", brokers},
                                              {"transactional.id", transactional_id}})) {
  require(rd_kafka_init_transactions(client_.get(), timeout_ms));
}

void TransactionalSender::begin() { require(rd_kafka_begin_transaction(client_.get())); }
void TransactionalSender::commit() {
  require(rd_kafka_commit_transaction(client_.get(), timeout_ms));
}
void TransactionalSender::abort() {
  require(rd_kafka_abort_transaction(client_.get(), timeout_ms));
}

void TransactionalSender::send(const std::string& dedup_key, const std::string& topic,
                               const std::string& key, int partition) {
  require(rd_kafka_producev(client_.get(), RD_KAFKA_V_TOPIC(topic.c_str()),
                            RD_KAFKA_V_PARTITION(partition), RD_KAFKA_V_KEY(key.data(), key.size()),
                            RD_KAFKA_V_HEADER("dedup-key", dedup_key.data(), dedup_key.size()),
                            RD_KAFKA_V_END));
  require(rd_kafka_flush(client_.get(), timeout_ms));
}

std::int64_t group_lag(const std::string& brokers, const std::string& group,
                       const std::string& topic) {
  const Client client =
      make_client(RD_KAFKA_CONSUMER, {{"bootstrap.servers", brokers}, {"group.id", group}});
  const Partitions list(rd_kafka_topic_partition_list_new(1));
  rd_kafka_topic_partition_list_add(list.get(), topic.c_str(), 0);
  require(rd_kafka_committed(client.get(), list.get(), timeout_ms));
  std::int64_t low = 0;
  std::int64_t high = 0;
  require(
      rd_kafka_query_watermark_offsets(client.get(), topic.c_str(), 0, &low, &high, timeout_ms));
  return high - std::max(low, list->elems[0].offset);
}

}  // namespace relay::test
