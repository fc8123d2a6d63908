// SPDX-License-Identifier: Apache-2.0
#include "relay/kafka/handle.h"

#include <cerrno>
#include <string_view>

#include "relay/base/log.h"
#include "relay/kafka/connection_failure.h"

namespace relay::kafka {
namespace {

// librdkafka repeats itself once per broker and second while a cluster is away: that is detail for
// debugging. What matters comes back as an error of a call, which quotes the last reason.
void on_log(const rd_kafka_t*, int, const char* facility, const char* text) {
  if (std::string_view(facility) == "FAIL") note_connection_failure(text);
  log::event(log::Level::debug, "librdkafka", {{"facility", facility}, {"text", text}});
}

Fault fault_for(rd_kafka_resp_err_t code) {
  switch (code) {
    case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
    case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
    case RD_KAFKA_RESP_ERR_INVALID_RECORD:
    case RD_KAFKA_RESP_ERR_POLICY_VIOLATION: return Fault::message;
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART: return Fault::topic;
    case RD_KAFKA_RESP_ERR__FENCED:
    case RD_KAFKA_RESP_ERR_PRODUCER_FENCED:
    case RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH: return Fault::fenced;
    case RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE:
    case RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION:
    case RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED: return Fault::refused;
    default: return Fault::kafka;
  }
}

// Whether a connection that failed may be the cause, and its reason is worth adding.
bool is_about_connections(rd_kafka_resp_err_t code) {
  switch (code) {
    case RD_KAFKA_RESP_ERR__TRANSPORT:
    case RD_KAFKA_RESP_ERR__TIMED_OUT:
    case RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE:
    case RD_KAFKA_RESP_ERR__MSG_TIMED_OUT:
    case RD_KAFKA_RESP_ERR__RESOLVE:
    case RD_KAFKA_RESP_ERR__SSL:
    case RD_KAFKA_RESP_ERR__AUTHENTICATION:
    case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN: return true;
    default: return false;
  }
}

const char* hint_of(rd_kafka_resp_err_t code) {
  switch (code) {
    case RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE:
    case RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION:
      return "this broker cannot do transactions: set relay.mode = \"at-least-once\", or use Kafka "
             "3.6 or newer";
    case RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
      return "allow Write and Describe on the transactional id outbox-relay.<name>";
    case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
      return "allow IdempotentWrite on the cluster";
    // All records of a batch carry the time at which it was opened: it is a clock that is wrong,
    // not a message.
    case RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP:
      return "compare the clocks of PostgreSQL and of the brokers, and look at "
             "message.timestamp.*.max.ms of the topic";
    case RD_KAFKA_RESP_ERR__AUTHENTICATION:
    case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
      return "check the user and the password file";
    default: return "";
  }
}

}  // namespace

Error error_of(const std::string& doing, rd_kafka_resp_err_t code, const std::string& detail) {
  std::string what = "Kafka, " + doing + ": " + (detail.empty() ? rd_kafka_err2str(code) : detail);
  if (is_about_connections(code)) {
    if (const std::string why = connection_failure(); !why.empty()) what += ": " + why;
  }
  Error e{fault_for(code), std::move(what), hint_of(code)};
  e.may_pass = true;
  return e;
}

Result<Conf> make_conf(const Options& options, const Properties& ours) {
  Conf conf(rd_kafka_conf_new());
  char why[512];
  Properties all = {{"socket.nagle.disable", "true"},
                    {"client.id", "outbox-relay"},
                    {"reconnect.backoff.max.ms", "2000"}};
  all.insert(all.end(), options.properties.begin(), options.properties.end());
  for (const auto& [name, secret] : options.secret_properties)
    all.emplace_back(name, secret.reveal());
  if (!options.password.reveal().empty())
    all.emplace_back("sasl.password", options.password.reveal());
  all.emplace_back("bootstrap.servers", options.brokers);
  all.insert(all.end(), ours.begin(), ours.end());
  for (const auto& [name, value] : all) {
    const auto result = rd_kafka_conf_set(conf.get(), name.c_str(), value.c_str(), why, sizeof why);
    if (result != RD_KAFKA_CONF_OK) {
      // librdkafka's text can quote the value, and the value can be a secret.
      return Error{
          Fault::usage, "kafka.properties: librdkafka refuses the value of \"" + name + "\"",
          "see the configuration reference of librdkafka " + std::string(rd_kafka_version_str())};
    }
  }
  // Newer versions can hang for minutes in an abort with their default of this one; older ones do
  // not know it.
  rd_kafka_conf_set(conf.get(), "metadata.recovery.strategy", "none", why, sizeof why);
  rd_kafka_conf_set_log_cb(conf.get(), &on_log);
  return conf;
}

Result<Client> make_client(rd_kafka_type_t type, Conf conf) {
  char why[512];
  Client client(rd_kafka_new(type, conf.get(), why, sizeof why));
  if (!client) {
    // Anything else is of the moment, such as a thread that did not start in time because the clock
    // was set.
    const int reason = errno;
    const bool of_the_moment = rd_kafka_last_error() != RD_KAFKA_RESP_ERR__INVALID_ARG;
    if (reason == EDEADLK)
      static_cast<void>(conf.release());  // its threads may still come, and use it
    if (of_the_moment) return Error{Fault::kafka, std::string("librdkafka does not start: ") + why};
    return Error{Fault::usage, std::string("librdkafka refuses the configuration: ") + why};
  }
  static_cast<void>(conf.release());  // owned by the client from here on
  return client;
}

void AsyncCloser::take(Client client) {
  if (!client) return;
  std::erase_if(under_way_, [](const auto& f) {
    return f.wait_for(std::chrono::seconds{0}) == std::future_status::ready;
  });
  // Taken out of its owner only here: should no thread be had, the client goes with the closure.
  under_way_.push_back(
      std::async(std::launch::async, [doomed = std::move(client)]() mutable { doomed.reset(); }));
}

Result<Client> make_admin_client(const Options& options) {
  auto conf = make_conf(options, {{"allow.auto.create.topics", "false"}});
  if (!conf) return conf.error();
  return make_client(RD_KAFKA_CONSUMER, std::move(*conf));
}

}  // namespace relay::kafka
