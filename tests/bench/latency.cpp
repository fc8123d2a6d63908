// SPDX-License-Identifier: Apache-2.0
// How long a message takes from the return of COMMIT to a read_committed consumer, both by one
// monotonic clock.
//
//   latency [--mode exactly-once] [--rate 1000] [--seconds 60] [--warm-up 10] [--bare]
//
// Open loop: each message has its time, one row per transaction, and is committed then, or as soon
// after as its connection is free. Also prints the relay's processor share, and its share when
// nothing comes (--idle seconds). A broker compiles its own code through its first minutes, at the
// cost of half a core: --warm-up 100 waits for most of that. With --bare, a librdkafka producer
// then sends the same messages to the same broker in transactions of what is due: what is left to
// gain, on this machine.
#include <librdkafka/rdkafka.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "relay/kafka/handle.h"
#include "tests/support/bench_main.h"
#include "tests/support/test_outbox.h"
#include "tests/support/usage.h"

namespace {

using namespace relay;
using namespace relay::test;
using std::chrono::nanoseconds;

struct Options {
  std::string mode = "exactly-once";
  int rate = 1'000;
  int seconds = 60;
  int warm_up = 10;
  int connections = 4;
  int partitions = 6;
  int idle = 0;
  bool bare = false;
};

constexpr Millis bare_gap{2};  // between two transactions: begun sooner, librdkafka may wait 20 ms

std::int64_t to_ns(Clock::time_point t) {
  return std::chrono::duration_cast<nanoseconds>(t.time_since_epoch()).count();
}

using Times = std::vector<std::atomic<std::int64_t>>;  // by message; 0: not yet

Clock::time_point due_at(Clock::time_point start, std::size_t message, const Options& o) {
  return start + nanoseconds(1'000'000'000LL * static_cast<std::int64_t>(message) / o.rate);
}

void commit_in_time(const std::string& dsn, const std::string& topic, const Options& o, int first,
                    Clock::time_point start, Times& committed) {
  pqxx::connection connection(dsn);
  connection.prepare("put", "insert into outbox.message (topic, key, payload) values ('" + topic +
                                "', convert_to('k' || ($1::bigint % 100), 'UTF8'), "
                                "convert_to(rpad($1::bigint::text || ' ', 200, 'x'), 'UTF8'))");
  for (std::size_t i = static_cast<std::size_t>(first); i < committed.size();
       i += static_cast<std::size_t>(o.connections)) {
    std::this_thread::sleep_until(due_at(start, i, o));
    pqxx::work tx(connection);
    tx.exec_prepared0("put", static_cast<std::int64_t>(i));
    tx.commit();
    committed[i] = to_ns(Clock::now());
  }
}

kafka::Client make_client(rd_kafka_type_t type, const std::string& brokers,
                          const kafka::Properties& properties) {
  kafka::Options options;
  options.brokers = brokers;
  auto conf = kafka::make_conf(options, properties);
  if (!conf) throw std::runtime_error(conf.error().text());
  auto client = kafka::make_client(type, std::move(*conf));
  if (!client) throw std::runtime_error(client.error().text());
  return std::move(*client);
}

// Puts what is due into one transaction after the other. A message counts from when it was due.
class BareProducer {
 public:
  BareProducer(const std::string& brokers, const std::string& topic)
      : client_(make_client(RD_KAFKA_PRODUCER, brokers,
                            {{"transactional.id", "bare-latency"},
                             {"partitioner", "murmur2_random"},
                             {"linger.ms", "0"}})),
        topic_(rd_kafka_topic_new(client_.get(), topic.c_str(), nullptr)) {
    const rd_kafka_metadata_t* raw = nullptr;
    check(rd_kafka_metadata(client_.get(), 0, topic_.get(), &raw, 10'000));
    const kafka::Metadata metadata(raw);
    check(rd_kafka_init_transactions(client_.get(), 10'000));
  }

  // Returns how many transactions it took.
  int produce_in_time(const Options& o, Clock::time_point start, Times& committed) {
    int transactions = 0;
    for (std::size_t i = 0; i < committed.size(); ++transactions) {
      std::this_thread::sleep_until(std::max(due_at(start, i, o), Clock::now() + bare_gap));
      const auto now = Clock::now();
      check(rd_kafka_begin_transaction(client_.get()));
      for (; i < committed.size() && due_at(start, i, o) <= now; ++i) {
        const std::string key = "k" + std::to_string(i % 100);
        std::string payload = std::to_string(i) + ' ';
        payload.resize(200, 'x');
        committed[i] = to_ns(due_at(start, i, o));
        check(rd_kafka_producev(client_.get(), RD_KAFKA_V_RKT(topic_.get()),
                                RD_KAFKA_V_KEY(key.data(), key.size()),
                                RD_KAFKA_V_VALUE(payload.data(), payload.size()),
                                RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END));
      }
      check(rd_kafka_commit_transaction(client_.get(), 30'000));
    }
    return transactions;
  }

 private:
  static void check(rd_kafka_error_t* raw) {
    if (const kafka::KafkaError error{raw})
      throw std::runtime_error(rd_kafka_error_string(error.get()));
  }
  static void check(rd_kafka_resp_err_t code) {
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) throw std::runtime_error(rd_kafka_err2str(code));
  }

  kafka::Client client_;
  kafka::TopicHandle topic_;
};

// Consumes from the beginning of the topic, without a group.
class Consumer {
 public:
  Consumer(const std::string& brokers, const std::string& topic, int partitions)
      : client_(make_client(RD_KAFKA_CONSUMER, brokers,
                            {{"group.id", "latency"},
                             {"enable.auto.commit", "false"},
                             {"isolation.level", "read_committed"}})) {
    rd_kafka_poll_set_consumer(client_.get());
    rd_kafka_topic_partition_list_t* const list = rd_kafka_topic_partition_list_new(partitions);
    for (int p = 0; p < partitions; ++p)
      rd_kafka_topic_partition_list_add(list, topic.c_str(), p)->offset = 0;
    rd_kafka_assign(client_.get(), list);
    rd_kafka_topic_partition_list_destroy(list);
  }

  void consume(Times& received, const std::stop_token& stop) {
    for (std::size_t missing = received.size(); missing > 0 && !stop.stop_requested();) {
      rd_kafka_message_t* const m = rd_kafka_consumer_poll(client_.get(), 100);
      if (m == nullptr) continue;
      if (m->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
        received[std::stoul(std::string(static_cast<const char*>(m->payload), m->len))] =
            to_ns(Clock::now());
        --missing;
      }
      rd_kafka_message_destroy(m);
    }
  }

 private:
  kafka::Client client_;
};

double share_over(pid_t pid, double cpu_before, Clock::time_point since) {
  return 100 * (cpu_seconds(pid) - cpu_before) /
         std::chrono::duration<double>(Clock::now() - since).count();
}

void measure_idle(const Process& relay, pid_t postgres, int seconds) {
  const double before = cpu_seconds(relay.pid());
  const double postgres_before = cpu_seconds_with_children(postgres);
  const auto since = Clock::now();
  std::this_thread::sleep_for(std::chrono::seconds(seconds));
  const double share = share_over(relay.pid(), before, since);
  std::printf("idle for %d s: relay %.2f %% of a core, PostgreSQL %.2f %%\n", seconds, share,
              100 * (cpu_seconds_with_children(postgres) - postgres_before) / seconds);
}

// Prints from when each message is committed until a consumer has it. `load` commits them all, from
// the given time on.
template <class Load>
void measure(const char* name, const std::string& brokers, const std::string& topic,
             const Options& o, Load load) {
  const auto messages = static_cast<std::size_t>(o.rate * (o.warm_up + o.seconds));
  const auto warm = static_cast<std::size_t>(o.rate * o.warm_up);
  Times committed(messages);
  Times received(messages);
  Consumer consumer(brokers, topic, o.partitions);
  std::jthread reader([&](const std::stop_token& stop) { consumer.consume(received, stop); });
  const auto start = Clock::now() + Millis{200};
  load(start, committed);
  eventually("every message is consumed", [&] {
    return std::all_of(received.begin(), received.end(), [](auto& t) { return t != 0; });
  });
  reader.join();

  std::vector<double> ms;
  std::vector<double> behind;  // of the open loop's schedule
  for (std::size_t i = warm; i < messages; ++i) {
    ms.push_back(static_cast<double>(received[i] - committed[i]) / 1e6);
    behind.push_back(static_cast<double>(committed[i] - to_ns(due_at(start, i, o))) / 1e6);
  }
  std::printf(
      "%s, %d msg/s for %d s after %d s, librdkafka %s: p50 %.2f, p90 %.2f, p99 %.2f, most %.2f "
      "ms; commits done p50 %.2f, "
      "p99 %.2f ms after their time\n",
      name, o.rate, o.seconds, o.warm_up, rd_kafka_version_str(), quantile(ms, 0.5),
      quantile(ms, 0.9), quantile(ms, 0.99), quantile(ms, 1.0), quantile(behind, 0.5),
      quantile(behind, 0.99));
  std::fflush(stdout);
}

void bench(const Options& o) {
  ScratchPostgres postgres;
  ScratchKafka kafka;
  TestOutbox db(postgres, &kafka);
  db.environment["OUTBOX_RELAY_RELAY_MODE"] = o.mode;
  db.environment["OUTBOX_RELAY_LEASE_TTL"] = "5s";
  const std::string topic = db.topic("t", o.partitions);
  auto relay = db.relay();
  relay.says("to=streaming");
  if (o.idle > 0) measure_idle(relay, postgres.pid(), o.idle);

  double share = 0;
  measure(o.mode.c_str(), kafka.brokers(), topic, o,
          [&](Clock::time_point start, Times& committed) {
            const double cpu_before = cpu_seconds(relay.pid());
            {
              std::vector<std::jthread> writers;
              for (int c = 0; c < o.connections; ++c)
                writers.emplace_back(
                    [&, c] { commit_in_time(db.dsn(), topic, o, c, start, committed); });
            }
            share = share_over(relay.pid(), cpu_before, start);
          });
  std::printf("  relay %.1f %% of a core; batches %s\n", share,
              db.value("select count(*) from outbox.batch").c_str());
  relay.signal(SIGTERM);
  if (relay.wait() != 0) throw std::runtime_error(relay.output());

  if (!o.bare) return;
  const std::string other = db.topic("bare", o.partitions);
  BareProducer producer(kafka.brokers(), other);
  int transactions = 0;
  measure("bare producer", kafka.brokers(), other, o,
          [&](Clock::time_point start, Times& committed) {
            transactions = producer.produce_in_time(o, start, committed);
          });
  std::printf("  %d transactions\n", transactions);
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return relay::test::bench_main(
      argc, argv, "latency", "Measures commit to consumer.",
      {{"--mode", &o.mode},
       {"--rate", &o.rate, "Messages a second"},
       {"--seconds", &o.seconds},
       {"--warm-up", &o.warm_up, "Seconds that do not count"},
       {"--connections", &o.connections},
       {"--idle", &o.idle, "Measure so many idle seconds first"},
       {"--bare", &o.bare,
        "Then a bare librdkafka producer in transactions, whatever the mode, for comparison"}},
      [&] { bench(o); });
}
