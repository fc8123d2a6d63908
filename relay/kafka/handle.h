// SPDX-License-Identifier: Apache-2.0
// Owners of librdkafka's objects, and the configuration that every handle of the relay shares.
#pragma once

#include <librdkafka/rdkafka.h>

#include <chrono>
#include <cstdint>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/owned.h"
#include "relay/base/error.h"
#include "relay/base/secret.h"
#include "relay/core/mode.h"

namespace relay::kafka {

using outbox::common::Owned;

using Conf = outbox::common::Owned<rd_kafka_conf_t, rd_kafka_conf_destroy>;
using Client = outbox::common::Owned<rd_kafka_t, rd_kafka_destroy>;
using TopicHandle = outbox::common::Owned<rd_kafka_topic_t, rd_kafka_topic_destroy>;
using Queue = outbox::common::Owned<rd_kafka_queue_t, rd_kafka_queue_destroy>;
using Event = outbox::common::Owned<rd_kafka_event_t, rd_kafka_event_destroy>;
using KafkaError = outbox::common::Owned<rd_kafka_error_t, rd_kafka_error_destroy>;
using Headers = outbox::common::Owned<rd_kafka_headers_t, rd_kafka_headers_destroy>;
using Metadata = outbox::common::Owned<const rd_kafka_metadata_t, rd_kafka_metadata_destroy>;

// What the Kafka side of one relay needs to know.
struct Options {
  std::string brokers;
  std::vector<std::pair<std::string, std::string>> properties;  // passed through to librdkafka
  std::vector<std::pair<std::string, Secret>> secret_properties;
  Secret password;  // sasl.password; empty: none
  std::string relay;
  std::string progress_topic;
  Mode mode = Mode::exactly_once;
  KeyOrder order = KeyOrder::key;
  std::vector<std::string> allow;  // names, prefixes ending in *, or *
  std::chrono::milliseconds missing_after{5000};
  std::int64_t batch_messages_max = 20'000;
  std::int64_t batch_bytes_max = 8 << 20;
  std::int64_t message_bytes_max = 1 << 20;

  std::string transactional_id() const { return "outbox-relay." + relay; }
};

using Properties = std::vector<std::pair<std::string, std::string>>;

// A configuration with the common properties, the user's, and then `ours`, which win.
//   usage   librdkafka refuses a property or value of the user's.
Result<Conf> make_conf(const Options& options, const Properties& ours);

// A client made of `conf`.
Result<Client> make_client(rd_kafka_type_t type, Conf conf);

// Destroys clients aside: librdkafka 2.6 to 2.9 takes a second over one in five, and a take-over
// must not wait for that. Waits for all of them when it goes itself. Used by one thread at a
// time.
class AsyncCloser {
 public:
  void take(Client client);

 private:
  std::vector<std::future<void>> under_way_;
};

// A client for one question, which goes to the closer; without one it is destroyed here.
class ScopedClient {
 public:
  ScopedClient(Client client, AsyncCloser* closer) : client_(std::move(client)), closer_(closer) {}
  ~ScopedClient() {
    if (closer_ != nullptr) closer_->take(std::move(client_));
  }
  ScopedClient(const ScopedClient&) = delete;
  ScopedClient& operator=(const ScopedClient&) = delete;
  rd_kafka_t* get() const { return client_.get(); }

 private:
  Client client_;
  AsyncCloser* const closer_;
};

// A client that only asks: a producer's questions about a topic would create it where the brokers
// allow that.
Result<Client> make_admin_client(const Options& options);

// An error for a librdkafka code; decides whose fault it is.
Error error_of(const std::string& doing, rd_kafka_resp_err_t code, const std::string& detail = {});

}  // namespace relay::kafka
