// SPDX-License-Identifier: Apache-2.0
#include "relay/kafka/watermarks.h"

#include <algorithm>

namespace relay::kafka {
namespace {

using PartitionList =
    outbox::common::Owned<rd_kafka_topic_partition_list_t, rd_kafka_topic_partition_list_destroy>;

}  // namespace

Result<Watermarks> query_watermarks(rd_kafka_t* client, const std::string& topic,
                                    std::int32_t partition, const std::string& doing,
                                    Deadline deadline) {
  // The protocol's request for the offset of a time takes these two for the first and the last.
  std::int64_t offsets[] = {RD_KAFKA_OFFSET_BEGINNING, RD_KAFKA_OFFSET_END};
  for (std::int64_t& offset : offsets) {
    const PartitionList list(rd_kafka_topic_partition_list_new(1));
    rd_kafka_topic_partition_t* const wanted =
        rd_kafka_topic_partition_list_add(list.get(), topic.c_str(), partition);
    wanted->offset = offset;
    auto code = rd_kafka_offsets_for_times(client, list.get(), std::max(1, deadline.left_ms()));
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR) code = wanted->err;
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR && wanted->offset < 0) code = RD_KAFKA_RESP_ERR__BAD_MSG;
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
      Error e = error_of(doing, code);
      e.fault = Fault::kafka;
      return e;
    }
    offset = wanted->offset;
  }
  return Watermarks{offsets[0], offsets[1]};
}

}  // namespace relay::kafka
