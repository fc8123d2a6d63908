// SPDX-License-Identifier: Apache-2.0
#include "relay/kafka/find_record.h"

#include <algorithm>
#include <limits>
#include <string_view>

#include "relay/kafka/watermarks.h"

namespace relay::kafka {
namespace {

using Verdict = RecordLookup::Verdict;
using Record = outbox::common::Owned<rd_kafka_message_t, rd_kafka_message_destroy>;

// How long to wait for an open transaction that hides the rest of every partition.
constexpr Millis held_back_max{2'000};
// How long to wait for the first answer of the cluster.
constexpr Millis first_metadata_max{10'000};

// What is to be read of one partition.
struct ReadRange {
  std::int64_t from;
  std::int64_t to;  // included
  bool done = false;
  bool held_back = false;  // the end of what is committed was seen before `to`
};

struct Plan {
  std::map<std::int32_t, ReadRange> ranges;
  bool removed = false;  // records were removed from where it can have been
};

Result<Client> make_reader(const Options& options, const char* isolation) {
  auto conf = make_conf(options, {{"isolation.level", isolation},
                                  {"enable.partition.eof", "true"},
                                  {"auto.offset.reset", "error"},
                                  {"fetch.wait.max.ms", "50"},
                                  {"fetch.error.backoff.ms", "50"}});
  if (!conf) return conf.error();
  return make_client(RD_KAFKA_CONSUMER, std::move(*conf));
}

// nullopt: the topic does not exist.
Result<std::optional<int>> count_partitions(rd_kafka_t* client, const std::string& name,
                                            Deadline deadline) {
  const TopicHandle topic(rd_kafka_topic_new(client, name.c_str(), nullptr));
  if (!topic) return error_of("opening topic " + name, rd_kafka_last_error());
  const rd_kafka_metadata_t* raw = nullptr;
  const auto wait = std::clamp(deadline.left(), Millis{1}, first_metadata_max);
  const auto code = rd_kafka_metadata(client, 0, topic.get(), &raw, static_cast<int>(wait.count()));
  const Metadata metadata(raw);
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) return error_of("looking up topic " + name, code);
  const auto& found = metadata->topics[0];
  if (found.err == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) return std::optional<int>{};
  if (found.err == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED) {
    return Error{Fault::refused, "not authorized for topic " + name,
                 "allow Read and Describe on it to the user that traces messages"};
  }
  if (found.err != RD_KAFKA_RESP_ERR_NO_ERROR)
    return error_of("looking up topic " + name, found.err);
  return std::optional<int>(found.partition_cnt);
}

// Cuts what can hold the record down to what the topic still has.
Result<Plan> plan_search(rd_kafka_t* client, const RecordQuery& query, int partitions,
                         Deadline deadline) {
  Plan plan;
  for (std::int32_t p = 0; p < partitions; ++p) {
    const auto known = query.within.find(p);
    if (query.exact && known == query.within.end()) continue;
    const OffsetRange wanted = known != query.within.end()
                                   ? known->second
                                   : OffsetRange{0, std::numeric_limits<std::int64_t>::max()};
    const auto has = query_watermarks(client, query.topic, p,
                                      "asking for the offsets of " + query.topic, deadline);
    if (!has) return has.error();
    if (wanted.first < has->low) plan.removed = true;
    const ReadRange range{std::max(wanted.first, has->low), std::min(wanted.last, has->end - 1)};
    if (range.from <= range.to) plan.ranges.emplace(p, range);
  }
  return plan;
}

std::optional<std::string_view> header(const rd_kafka_message_t& m, const char* name) {
  rd_kafka_headers_t* headers = nullptr;  // owned by the record
  if (rd_kafka_message_headers(&m, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR) return std::nullopt;
  const void* value = nullptr;
  std::size_t size = 0;
  if (rd_kafka_header_get_last(headers, name, &value, &size) != RD_KAFKA_RESP_ERR_NO_ERROR)
    return std::nullopt;
  return std::string_view(static_cast<const char*>(value), size);
}

bool matches(const rd_kafka_message_t& m, const RecordQuery& query) {
  if (header(m, "dedup-key") != std::string_view(query.dedup_key)) return false;
  rd_kafka_timestamp_type_t type = RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
  const auto written_at = rd_kafka_message_timestamp(&m, &type);
  if (written_at == query.timestamp_ms) return true;
  const auto sent_at = header(m, "sent-at");
  // A relay that may not describe the topic does not know that the broker puts its own time in
  // place of the batch's.
  if (!sent_at && type == RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME)
    return written_at >= query.timestamp_ms;
  return sent_at == std::string_view(std::to_string(query.timestamp_ms));
}

// All ranges of a topic, consumed into one queue.
class Consumption {
 public:
  Consumption(rd_kafka_t* client, const std::string& topic)
      : queue_(rd_kafka_queue_new(client)),
        topic_(rd_kafka_topic_new(client, topic.c_str(), nullptr)) {}
  ~Consumption() {
    for (const auto p : started_) rd_kafka_consume_stop(topic_.get(), p);
  }
  Consumption(const Consumption&) = delete;
  Consumption& operator=(const Consumption&) = delete;

  bool start(std::int32_t partition, std::int64_t from) {
    if (rd_kafka_consume_start_queue(topic_.get(), partition, from, queue_.get()) != 0)
      return false;
    started_.push_back(partition);
    return true;
  }
  Record next(int timeout_ms) { return Record(rd_kafka_consume_queue(queue_.get(), timeout_ms)); }

 private:
  Queue queue_;
  TopicHandle topic_;
  std::vector<std::int32_t> started_;
};

// Takes note of an event that is no record.
Result<void> take_event(const rd_kafka_message_t& m, Plan& plan, ReadRange& range) {
  switch (m.err) {
    case RD_KAFKA_RESP_ERR__PARTITION_EOF:
      range.done = range.done || m.offset > range.to;
      range.held_back = !range.done;
      return {};
    case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
    case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:  // removed since we asked where the topic begins
      plan.removed = range.done = true;
      return {};
    default: return error_of("reading the topic", m.err, rd_kafka_message_errstr(&m));
  }
}

Result<RecordLookup> read_plan(rd_kafka_t* client, const RecordQuery& query, Plan& plan,
                               Deadline deadline) {
  Consumption consumption(client, query.topic);
  for (const auto& [partition, range] : plan.ranges) {
    if (!consumption.start(partition, range.from))
      return error_of("reading topic " + query.topic, rd_kafka_last_error());
  }
  std::optional<Deadline> patience;  // set while every range that is not done is held back
  while (std::any_of(plan.ranges.begin(), plan.ranges.end(),
                     [](const auto& s) { return !s.second.done; })) {
    const bool held_back = std::all_of(plan.ranges.begin(), plan.ranges.end(), [](const auto& s) {
      return s.second.done || s.second.held_back;
    });
    if (!held_back) patience.reset();
    else if (!patience) patience.emplace(held_back_max);
    if (deadline.passed() || (patience && patience->passed()))
      return RecordLookup{Verdict::undecided};
    const Record m = consumption.next(std::min(200, std::max(1, deadline.left_ms())));
    if (!m) continue;
    const auto it = plan.ranges.find(m->partition);
    if (it == plan.ranges.end())
      return error_of("reading the topic", m->err, rd_kafka_message_errstr(m.get()));
    ReadRange& range = it->second;
    if (m->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
      if (auto r = take_event(*m, plan, range); !r) return r.error();
      continue;
    }
    range.held_back = false;
    if (m->offset <= range.to && matches(*m, query))
      return RecordLookup{Verdict::found, m->partition, m->offset};
    range.done = range.done || m->offset >= range.to;
  }
  return RecordLookup{plan.removed ? Verdict::expired : Verdict::absent};
}

}  // namespace

const char* to_string(Verdict verdict) {
  switch (verdict) {
    case Verdict::found: return "found";
    case Verdict::expired: return "expired";
    case Verdict::absent: return "absent";
    case Verdict::no_topic: return "no_topic";
    case Verdict::undecided: return "undecided";
  }
  return "unknown";
}

Result<RecordLookup> find_record(const Options& options, const RecordQuery& query,
                                 Deadline deadline) {
  // The bounds of a partition with open transactions included: a read_committed handle stops before
  // them.
  auto all = make_reader(options, "read_uncommitted");
  if (!all) return all.error();
  auto partitions = count_partitions(all->get(), query.topic, deadline);
  if (!partitions) return partitions.error();
  if (!*partitions) return RecordLookup{Verdict::no_topic};
  auto plan = plan_search(all->get(), query, **partitions, deadline);
  if (!plan) return plan.error();
  auto committed = make_reader(options, "read_committed");
  if (!committed) return committed.error();
  return read_plan(committed->get(), query, *plan, deadline);
}

}  // namespace relay::kafka
