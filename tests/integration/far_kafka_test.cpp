// SPDX-License-Identifier: Apache-2.0
// A Kafka that is far away and encrypted: each connection takes many round trips before the first
// answer, and recovery makes several.
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>

#include "tests/support/checker.h"
#include "tests/support/proxy.h"

namespace relay {
namespace {

// So far that a question for the progress record takes longer than a relay first waits for it.
constexpr Millis one_way{350};

// Passes on what it cannot read.
class OpaqueProxy final : public test::Proxy {
 public:
  OpaqueProxy() { begin(); }
  ~OpaqueProxy() { end(); }
  using Proxy::forward_to;

 private:
  class OpaqueLink final : public Link {
   public:
    using Link::Link;
    void pass_requests() override { pass(client_, requests); }
    void pass_answers() override { pass(server_, answers); }

   private:
    static void pass(const test::Socket& from, test::Wire& to) {
      std::string bytes(16 << 10, '\0');
      while (const auto size = test::receive_some(from, bytes.data(), bytes.size())) {
        if (!to.send(bytes.substr(0, size))) return;
      }
      to.finish();
    }
  };
  std::shared_ptr<Link> link(test::Socket client, test::Socket server) override {
    return std::make_shared<OpaqueLink>(std::move(client), std::move(server));
  }
};

// A certificate of the broker, for clients and with its key for the broker.
class Certificate {
 public:
  Certificate() {
    std::filesystem::create_directory(folder_);
    const auto made =
        test::run_command({"/usr/bin/openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes",
                           "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
                           "subjectAltName=IP:127.0.0.1", "-keyout", key(), "-out", file()},
                          {});
    if (made.code != 0) throw std::runtime_error("openssl: " + made.output);
    std::ofstream both(with_key());
    both << std::ifstream(key()).rdbuf() << std::ifstream(file()).rdbuf();
  }
  ~Certificate() { std::filesystem::remove_all(folder_); }
  Certificate(const Certificate&) = delete;
  Certificate& operator=(const Certificate&) = delete;

  std::string file() const { return folder_ / "cert.pem"; }
  std::string with_key() const { return folder_ / "both.pem"; }

 private:
  std::string key() const { return folder_ / "key.pem"; }
  const std::filesystem::path folder_ =
      std::filesystem::path(testing::TempDir()) / ("far-kafka-" + std::to_string(getpid()));
};

class FarKafka : public ::testing::Test {
 protected:
  FarKafka()
      : kafka({"advertised=" + proxy.address(), "sasl.enabled.mechanisms=PLAIN",
               "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,"
               "PROXIED:SASL_SSL",
               "listener.name.proxied.plain.sasl.jaas.config="
               "org.apache.kafka.common.security.plain.PlainLoginModule required "
               "user_relay=\"relay-secret\";",
               "ssl.keystore.type=PEM", "ssl.keystore.location=" + certificate.with_key()}),
        db(test::shared_postgres(), &kafka) {
    const std::string listener = kafka.proxied();
    proxy.forward_to(std::stoi(listener.substr(listener.rfind(':') + 1)));
    db.environment["OUTBOX_RELAY_KAFKA_BROKERS"] = proxy.address();
    db.environment["OUTBOX_RELAY_KAFKA_PROPERTIES"] =
        "security.protocol=SASL_SSL,sasl.mechanism=PLAIN,sasl.username=relay,"
        "sasl.password=relay-secret,ssl.ca.location=" +
        certificate.file();
  }

  const Certificate certificate;
  OpaqueProxy proxy;
  test::ScratchKafka kafka;
  test::TestOutbox db;
};

TEST_F(FarKafka, ARelayRecoversAndStreams) {
  const std::string topic = db.topic("t");
  proxy.schedule({one_way, 0});
  const auto began = Clock::now();
  auto relay = db.relay();
  relay.says("to=streaming", Millis{120'000});
  const auto recovered = std::chrono::duration_cast<Millis>(Clock::now() - began);
  RecordProperty("recovered_ms", std::to_string(recovered.count()));
  db.sql("insert into outbox.message (topic, key, payload) values ('" + topic + "', 'k', 'x')");
  db.wait_until_idle();
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
}

}  // namespace
}  // namespace relay
