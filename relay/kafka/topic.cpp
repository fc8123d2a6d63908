// SPDX-License-Identifier: Apache-2.0
#include "relay/kafka/topic.h"

#include <algorithm>

namespace relay::kafka {

bool TopicWriter::open(rd_kafka_t* client, const std::string& topic, void* opaque) {
  // A copy of the default configuration: it names the partitioner.
  rd_kafka_topic_conf_t* const conf = rd_kafka_default_topic_conf_dup(client);
  rd_kafka_topic_conf_set_opaque(conf, opaque);
  handle_.reset(rd_kafka_topic_new(client, topic.c_str(), conf));
  if (!handle_) rd_kafka_topic_conf_destroy(conf);
  return is_open();
}

void TopicWriter::close() {
  handle_.reset();
  acknowledged_.clear();
  all_acknowledged_until_ = never;
}

void TopicWriter::expect_partitions(std::size_t count) {
  if (count <= acknowledged_.size()) return;
  acknowledged_.resize(count, never);
  all_acknowledged_until_ = never;
}

void TopicWriter::acknowledge(std::size_t partition) {
  expect_partitions(partition + 1);
  acknowledged_[partition] = now_;
}

bool TopicWriter::all_acknowledged() const {
  if (now_ < all_acknowledged_until_ || acknowledged_.empty()) return true;
  const auto first = *std::min_element(acknowledged_.begin(), acknowledged_.end());
  if (first != never) all_acknowledged_until_ = first + remembered_for;
  return now_ < all_acknowledged_until_;
}

std::int32_t TopicWriter::partition_of(std::string_view key) const {
  return rd_kafka_msg_partitioner_murmur2_random(handle_.get(), key.data(), key.size(),
                                                 static_cast<std::int32_t>(acknowledged_.size()),
                                                 nullptr, nullptr);
}

void BatchOffsets::add(std::size_t partition, std::int64_t offset) {
  if (partition >= ranges_.size()) ranges_.resize(partition + 1, none);
  OffsetRange& range = ranges_[partition];
  if (range.last < range.first) range = {offset, offset};
  range.first = std::min(range.first, offset);
  range.last = std::max(range.last, offset);
}

std::map<std::int32_t, OffsetRange> BatchOffsets::ranges() const {
  std::map<std::int32_t, OffsetRange> found;
  for (std::size_t p = 0; p < ranges_.size(); ++p) {
    if (ranges_[p].last >= ranges_[p].first) found[static_cast<std::int32_t>(p)] = ranges_[p];
  }
  return found;
}

}  // namespace relay::kafka
