// SPDX-License-Identifier: Apache-2.0
// Prints what arrives in Kafka topics: the first messages one by one, then a count each second.
// Ends on SIGINT or SIGTERM.
#include <librdkafka/rdkafka.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <csignal>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

namespace {

volatile std::sig_atomic_t stopping = 0;

struct Destroy {
  void operator()(rd_kafka_t* p) const { rd_kafka_destroy(p); }
  void operator()(rd_kafka_message_t* p) const { rd_kafka_message_destroy(p); }
  void operator()(rd_kafka_topic_partition_list_t* p) const {
    rd_kafka_topic_partition_list_destroy(p);
  }
};
template <class T>
using Owned = std::unique_ptr<T, Destroy>;

// The deduplication key is what a consumer remembers to do the same thing only once.
std::string dedup_key(const rd_kafka_message_t& message) {
  rd_kafka_headers_t* headers = nullptr;
  const void* value = nullptr;
  std::size_t size = 0;
  if (rd_kafka_message_headers(&message, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR ||
      rd_kafka_header_get_last(headers, "dedup-key", &value, &size) != RD_KAFKA_RESP_ERR_NO_ERROR) {
    return "(none)";
  }
  return {static_cast<const char*>(value), size};
}

void print(const rd_kafka_message_t& message) {
  std::cout << rd_kafka_topic_name(message.rkt) << '[' << message.partition << "]@"
            << message.offset << "  key "
            << std::string_view(static_cast<const char*>(message.key), message.key_len)
            << "  dedup-key " << dedup_key(message) << "  "
            << std::string_view(static_cast<const char*>(message.payload), message.len)
            << std::endl;
}

Owned<rd_kafka_t> subscribe(const std::string& brokers, const std::vector<std::string>& topics) {
  char error[512] = "";
  rd_kafka_conf_t* conf = rd_kafka_conf_new();
  for (const auto& [name, value] : {std::pair{"bootstrap.servers", brokers.c_str()},
                                    {"group.id", "print-consumer"},
                                    {"auto.offset.reset", "earliest"},
                                    {"isolation.level", "read_committed"}}) {
    if (rd_kafka_conf_set(conf, name, value, error, sizeof error) != RD_KAFKA_CONF_OK)
      throw std::runtime_error(error);
  }
  Owned<rd_kafka_t> client(rd_kafka_new(RD_KAFKA_CONSUMER, conf, error, sizeof error));
  if (!client) throw std::runtime_error(error);
  rd_kafka_poll_set_consumer(client.get());
  const Owned<rd_kafka_topic_partition_list_t> list(
      rd_kafka_topic_partition_list_new(static_cast<int>(topics.size())));
  for (const std::string& topic : topics)
    rd_kafka_topic_partition_list_add(list.get(), topic.c_str(), RD_KAFKA_PARTITION_UA);
  if (const auto code = rd_kafka_subscribe(client.get(), list.get()))
    throw std::runtime_error(rd_kafka_err2str(code));
  return client;
}

void consume(rd_kafka_t* client, long first) {
  long seen = 0;
  long reported = 0;
  auto report_at = std::chrono::steady_clock::now();
  while (!stopping) {
    if (const Owned<rd_kafka_message_t> message{rd_kafka_consumer_poll(client, 100)}) {
      if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        std::cerr << "print-consumer: " << rd_kafka_message_errstr(message.get()) << std::endl;
      } else if (++seen <= first) {
        print(*message);
      }
    }
    if (std::chrono::steady_clock::now() >= report_at) {
      if (seen > std::max(first, reported))
        std::cout << seen << " messages have arrived" << std::endl;
      reported = seen;
      report_at = std::chrono::steady_clock::now() + std::chrono::seconds(1);
    }
  }
  std::cout << seen << " messages have arrived" << std::endl;
  rd_kafka_consumer_close(client);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Prints what arrives in Kafka topics.", "print-consumer");
  std::string brokers;
  std::vector<std::string> topics;
  long first = 10;
  app.add_option("--brokers", brokers, "Kafka bootstrap servers")
      ->envname("KAFKA_BROKERS")
      ->required();
  app.add_option("--first", first, "Messages that are printed, not only counted")
      ->capture_default_str();
  app.add_option("topics", topics, "Topics")->required();
  CLI11_PARSE(app, argc, argv);
  for (const int signal : {SIGINT, SIGTERM}) std::signal(signal, [](int) { stopping = 1; });
  try {
    consume(subscribe(brokers, topics).get(), first);
  } catch (const std::exception& e) {
    std::cerr << "print-consumer: " << e.what() << '\n';
    return 1;
  }
  return 0;
}
