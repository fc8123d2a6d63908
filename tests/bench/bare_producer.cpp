// SPDX-License-Identifier: Apache-2.0
// What librdkafka itself moves, in transactions, against a broker: the yardstick for the relay's
// drain.
//
//   bare_producer BROKERS TOPIC MESSAGES [PER_TRANSACTION] [BYTES]
//
// One header of 36 bytes per message, as the relay sends; payloads are not copied. Prints messages
// per second and the processor time per message.
#include <librdkafka/rdkafka.h>
#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace {

void check(rd_kafka_error_t* error, const char* doing) {
  if (error == nullptr) return;
  std::fprintf(stderr, "%s: %s\n", doing, rd_kafka_error_string(error));
  std::exit(1);
}

void set(rd_kafka_conf_t* conf, const char* name, const std::string& value) {
  char why[512];
  if (rd_kafka_conf_set(conf, name, value.c_str(), why, sizeof why) != RD_KAFKA_CONF_OK) {
    std::fprintf(stderr, "%s\n", why);
    std::exit(1);
  }
}

double cpu_seconds() {
  rusage use{};
  getrusage(RUSAGE_SELF, &use);
  const auto seconds = [](timeval t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return seconds(use.ru_utime) + seconds(use.ru_stime);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: bare_producer BROKERS TOPIC MESSAGES [PER_TRANSACTION] [BYTES]\n");
    return 2;
  }
  const long messages = std::atol(argv[3]);
  const long per_transaction = argc > 4 ? std::atol(argv[4]) : 20'000;
  std::string payload(argc > 5 ? std::stoul(argv[5]) : 200, 'x');
  rd_kafka_conf_t* const conf = rd_kafka_conf_new();
  set(conf, "bootstrap.servers", argv[1]);
  set(conf, "transactional.id", "bare-producer");
  set(conf, "partitioner", "murmur2_random");
  set(conf, "socket.nagle.disable", "true");
  set(conf, "linger.ms", std::getenv("LINGER") != nullptr ? std::getenv("LINGER") : "1");
  set(conf, "queue.buffering.max.messages", std::to_string(per_transaction + 1'000));
  char why[512];
  rd_kafka_t* const rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
  if (rk == nullptr) return 1;
  rd_kafka_topic_t* const topic = rd_kafka_topic_new(rk, argv[2], nullptr);
  const rd_kafka_metadata_t* metadata = nullptr;
  if (rd_kafka_metadata(rk, 0, topic, &metadata, 10'000) != RD_KAFKA_RESP_ERR_NO_ERROR) return 1;
  rd_kafka_metadata_destroy(metadata);
  check(rd_kafka_init_transactions(rk, 10'000), "init");

  const auto began = std::chrono::steady_clock::now();
  const double cpu = cpu_seconds();
  std::string key;
  const std::string id(36, 'i');
  for (long done = 0; done < messages;) {
    check(rd_kafka_begin_transaction(rk), "begin");
    for (long i = 0; i < per_transaction && done < messages; ++i, ++done) {
      key = "k" + std::to_string(done % 1'000);
      rd_kafka_headers_t* const headers = rd_kafka_headers_new(1);
      rd_kafka_header_add(headers, "dedup-key", 9, id.data(), static_cast<ssize_t>(id.size()));
      const auto code =
          rd_kafka_producev(rk, RD_KAFKA_V_RKT(topic), RD_KAFKA_V_KEY(key.data(), key.size()),
                            RD_KAFKA_V_VALUE(payload.data(), payload.size()),
                            RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_END);
      if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        std::fprintf(stderr, "produce: %s\n", rd_kafka_err2str(code));
        return 1;
      }
    }
    check(rd_kafka_commit_transaction(rk, 30'000), "commit");
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  std::printf("%.0f msg/s, %.2f us of processor time per message\n",
              static_cast<double>(messages) / seconds,
              (cpu_seconds() - cpu) * 1e6 / static_cast<double>(messages));
  rd_kafka_topic_destroy(topic);
  rd_kafka_destroy(rk);
  return 0;
}
