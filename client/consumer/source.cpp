// SPDX-License-Identifier: Apache-2.0
#include "client/consumer/source.h"

#include <algorithm>
#include <array>

#include "client/consumer/properties.h"
#include "common/check.h"

namespace outbox::consumer {
namespace {

constexpr int version_of_safe_destroy = 0x02030000;  // librdkafka 2.3
constexpr int group_poll_ms = 100;
constexpr std::chrono::milliseconds commit_interval{200};
constexpr std::chrono::minutes error_event_interval{1};  // librdkafka repeats errors every second

// The client takes ownership of the configuration only if it can be created.
Client make_client(Conf conf) {
  std::array<char, 512> why{};
  Client client(rd_kafka_new(RD_KAFKA_CONSUMER, conf.get(), why.data(), why.size()));
  if (!client) {
    throw ConsumerSetupError(std::string("librdkafka rejects the properties: ") + why.data() +
                             ". HINT: see its CONFIGURATION.md");
  }
  static_cast<void>(conf.release());  // now owned by the client
  return client;
}

PartitionEnd end_of(const rd_kafka_message_t& event) {
  return {rd_kafka_topic_name(event.rkt), event.partition, event.offset};
}

}  // namespace

RecordSource::RecordSource(const ConsumerOptions& options, Events& events) : events_(events) {
  Conf conf = make_conf(options);
  rd_kafka_conf_set_opaque(conf.get(), this);
  rd_kafka_conf_set_rebalance_cb(conf.get(), &on_rebalance);
  rd_kafka_conf_set_offset_commit_cb(conf.get(), &on_commit);
  rd_kafka_conf_set_error_cb(conf.get(), &on_error);
  rd_kafka_conf_set_log_cb(conf.get(), &on_log);
  client_ = make_client(std::move(conf));
  records_.reset(rd_kafka_queue_new(client_.get()));
  rd_kafka_poll_set_consumer(client_.get());
  const Partitions topics(
      rd_kafka_topic_partition_list_new(static_cast<int>(options.topics.size())));
  for (const std::string& topic : options.topics) {
    rd_kafka_topic_partition_list_add(topics.get(), topic.c_str(), RD_KAFKA_PARTITION_UA);
  }
  if (const auto code = rd_kafka_subscribe(client_.get(), topics.get())) {
    throw ConsumerSetupError(std::string("Kafka rejects the subscription: ") +
                             rd_kafka_err2str(code) + ". HINT: check the names in topics");
  }
  group_thread_ = std::jthread([this](std::stop_token stop) { serve_group(std::move(stop)); });
}

RecordSource::~RecordSource() {
  if (!group_thread_.joinable()) return;
  group_thread_.request_stop();
  group_thread_.join();
  commit();
  rd_kafka_consumer_close(client_.get());  // serves commit answers and the last rebalance
  // librdkafka before 2.3 aborts when a member without any assignment is destroyed (its issue
  // 4312). The member has left the group, and its memory is leaked on purpose.
  if (!assigned_once_ && rd_kafka_version() < version_of_safe_destroy) {
    rd_kafka_set_log_level(client_.get(), 0);
    static_cast<void>(client_.release());
  }
}

// --- Thread of run() ---------------------------------------------------------------------------

Batch RecordSource::poll(int messages_max, std::chrono::milliseconds wait) {
  if (rd_kafka_fatal_error(client_.get(), nullptr, 0) != RD_KAFKA_RESP_ERR_NO_ERROR) {
    std::array<char, 512> why{};
    rd_kafka_fatal_error(client_.get(), why.data(), why.size());
    throw ConsumerSetupError(
        std::string("Kafka reports a fatal error: ") + why.data() +
        ". HINT: check that no other consumer uses the same group.instance.id");
  }
  std::vector<rd_kafka_message_t*> raw(static_cast<std::size_t>(messages_max));
  // A poll for many waits until it has them all: wait for one, then take what is available.
  auto count =
      rd_kafka_consume_batch_queue(records_.get(), static_cast<int>(wait.count()), raw.data(), 1);
  if (count == 1 && messages_max > 1) {
    count += std::max<ssize_t>(
        0, rd_kafka_consume_batch_queue(records_.get(), 0, raw.data() + 1, raw.size() - 1));
  }
  Batch batch;
  for (ssize_t i = 0; i < count; ++i) {
    Message message(raw[static_cast<std::size_t>(i)]);
    switch (message->err) {
      case RD_KAFKA_RESP_ERR_NO_ERROR: batch.add(std::move(message)); break;
      case RD_KAFKA_RESP_ERR__PARTITION_EOF: batch.ends.push_back(end_of(*message)); break;
      default: report_error(*message);
    }
  }
  // Without records, nothing has to be processed before the ends.
  if (batch.empty()) handled(batch);
  else set_reachable(true);
  if (batch.empty() || Clock::now() - committed_at_ >= commit_interval) commit();
  return batch;
}

void RecordSource::handled(const Batch& batch) {
  for (const Record& record : batch.records) offsets_.handled(record);
  for (const PartitionEnd& end : batch.ends) offsets_.ended(end);
}

// The end that a reader of committed records sees can lie before the records of an open
// transaction: the partition was read to its end only if nothing follows.
std::vector<RecordSource::Position> RecordSource::positions() const {
  std::vector<Position> all;
  offsets_.each([&](const std::string& topic, std::int32_t partition, const PartitionState& state) {
    std::int64_t low = 0;
    std::int64_t high = 0;
    const bool ended = state.end >= state.handled &&
                       rd_kafka_get_watermark_offsets(client_.get(), topic.c_str(), partition, &low,
                                                      &high) == RD_KAFKA_RESP_ERR_NO_ERROR &&
                       high == state.end;
    all.push_back({topic, partition, state.read_to});
    if (ended) all.back().read_to = std::chrono::system_clock::now();
  });
  return all;
}

// Asynchronous: on_commit() receives the answer. A rejected or lost commit is harmless.
void RecordSource::commit() {
  committed_at_ = Clock::now();
  if (const Partitions list = offsets_.uncommitted()) rd_kafka_commit(client_.get(), list.get(), 1);
}

// At most one event a minute for each code.
void RecordSource::report_error(const rd_kafka_message_t& message) {
  {
    const std::lock_guard lock(mutex_);
    auto& reported_at = reported_at_[message.err];
    if (reported_at != Clock::time_point{} && Clock::now() - reported_at < error_event_interval) {
      return;
    }
    reported_at = Clock::now();
  }
  events_.emit(Level::warn, "kafka_trouble",
               {{"topic", message.rkt != nullptr ? rd_kafka_topic_name(message.rkt) : ""},
                {"code", rd_kafka_err2name(message.err)},
                {"error", rd_kafka_message_errstr(&message)}});
}

// Emits an event on each change only.
void RecordSource::set_reachable(bool reachable) {
  if (reachable_.exchange(reachable) == reachable) return;
  events_.emit(reachable ? Level::info : Level::warn, reachable ? "kafka_back" : "kafka_away");
}

// --- Thread of the group -----------------------------------------------------------------------

// Serves rebalances and commit answers through their callbacks, until the stop.
void RecordSource::serve_group(std::stop_token stop) {
  while (!stop.stop_requested()) {
    const Message message(rd_kafka_consumer_poll(client_.get(), group_poll_ms));
    if (!message) continue;
    CHECK(message->err != RD_KAFKA_RESP_ERR_NO_ERROR);  // a record read here would be lost
    report_error(*message);
  }
}

void RecordSource::on_rebalance(rd_kafka_t*, rd_kafka_resp_err_t code,
                                rd_kafka_topic_partition_list_t* partitions, void* self) {
  auto& source = *static_cast<RecordSource*>(self);
  if (code == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) source.assign(partitions);
  else source.revoke(partitions);
}

// Forwards the queues before the assignment: records fetched earlier would go to the group's queue.
void RecordSource::assign(const rd_kafka_topic_partition_list_t* partitions) {
  for (int i = 0; i < partitions->cnt; ++i) {
    const Queue queue(rd_kafka_queue_get_partition(client_.get(), partitions->elems[i].topic,
                                                   partitions->elems[i].partition));
    rd_kafka_queue_forward(queue.get(), records_.get());
  }
  assigned_once_ = true;
  offsets_.assigned(*partitions);
  set_reachable(true);
  const KafkaError error(rd_kafka_incremental_assign(client_.get(), partitions));
  if (error) {
    events_.emit(Level::warn, "kafka_trouble", {{"error", rd_kafka_error_string(error.get())}});
  } else if (partitions->cnt > 0) {
    events_.emit(Level::info, "partitions_assigned", {{"count", std::to_string(partitions->cnt)}});
  }
}

// Commits the processed offsets before the partitions are revoked. The current batch completes, but
// its offsets can no longer be committed, and the next owner receives duplicates. Partitions can
// also be lost without notice: when a commit of the previous generation arrives after a rebalance,
// Kafka makes the member join again. The inbox makes both harmless.
void RecordSource::revoke(const rd_kafka_topic_partition_list_t* partitions) {
  if (const Partitions list = offsets_.uncommitted()) rd_kafka_commit(client_.get(), list.get(), 1);
  offsets_.revoked(*partitions);
  const bool lost = rd_kafka_assignment_lost(client_.get()) != 0;
  const KafkaError error(rd_kafka_incremental_unassign(client_.get(), partitions));
  if (error) {
    events_.emit(Level::warn, "kafka_trouble", {{"error", rd_kafka_error_string(error.get())}});
  }
  events_.emit(Level::info, lost ? "partitions_lost" : "partitions_revoked",
               {{"count", std::to_string(partitions->cnt)}});
}

// A rejected commit is repeated with the next one.
void RecordSource::on_commit(rd_kafka_t*, rd_kafka_resp_err_t code,
                             rd_kafka_topic_partition_list_t* partitions, void* self) {
  if (code == RD_KAFKA_RESP_ERR_NO_ERROR && partitions != nullptr) {
    static_cast<RecordSource*>(self)->offsets_.committed(*partitions);
  }
}

// Other errors also arrive as messages, see report_error().
void RecordSource::on_error(rd_kafka_t*, int code, const char*, void* self) {
  if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) {
    static_cast<RecordSource*>(self)->set_reachable(false);
  }
}

// May be called by any thread of librdkafka.
void RecordSource::on_log(const rd_kafka_t* client, int, const char* facility, const char* text) {
  if (auto* self = static_cast<RecordSource*>(rd_kafka_opaque(client))) {
    self->events_.emit(Level::debug, "librdkafka", {{"facility", facility}, {"text", text}});
  }
}

}  // namespace outbox::consumer
