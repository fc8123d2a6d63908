// SPDX-License-Identifier: Apache-2.0
// The network between a client and a Kafka broker, with its delays and cuts placed at chosen
// requests.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "tests/support/proxy.h"

namespace relay::test {

enum class KafkaApi : std::int16_t {
  produce = 0,
  fetch = 1,
  list_offsets = 2,
  metadata = 3,
  find_coordinator = 10,
  api_versions = 18,
  init_producer_id = 22,
  add_partitions_to_txn = 24,
  end_txn = 26
};

constexpr int invalid_producer_epoch = 47;
constexpr int concurrent_transactions = 51;

// One frame of a client, without its length.
struct KafkaRequest {
  std::string bytes;

  KafkaApi api() const;
  int version() const;
  std::int32_t id() const;  // chosen by the client; the answer repeats it
  bool contains(const std::string& text) const { return bytes.find(text) != std::string::npos; }
};

// Requests pass in their order, connection by connection; one that is held stops those behind it on
// its connection and no others.
//
// Used by one test; every wait ends with std::runtime_error when its deadline passes. The
// destructor cuts all connections.
class KafkaProxy final : public Proxy {
 public:
  // What becomes of the connection of a request that is held.
  enum class Then {
    cut_client,  // the client's side is closed, so that it repeats the request on a new connection;
                 // the broker's side stays open
    stall,       // both sides stay, the client waits
    lose_request,  // both sides are cut, and the broker has not seen it
    lose_answer    // the request is passed on; when the broker has answered, both sides are cut in
                   // place of the answer
  };

 private:
  struct Link;

 public:
  // A request on its way, or that is waited for.
  class Held {
   public:
    // Waits until a request was caught and everything before it on its connection is answered; with
    // lose_answer, until it was answered itself; with lose_request, until it was caught.
    void caught();
    // What was caught. REQUIRES: caught().
    const KafkaRequest& request() const { return *request_; }
    // Lets the broker have the bytes, by the connection on which they came, and waits for its
    // answer: the first error code in it, or 0: of those apis only that a producer writes with. A
    // client that still waits gets the answer as well. REQUIRES: cut_client or stall.
    int release();
    // The same with other bytes in place of what was caught, of the same api and id.
    int release(KafkaRequest altered);
    // Does away with the bytes and their connection. REQUIRES: caught().
    void drop();

   private:
    friend class KafkaProxy;
    Held(KafkaProxy& proxy, std::function<bool(const KafkaRequest&)> wanted, Then then)
        : proxy_(proxy), wanted_(std::move(wanted)), then_(then) {}

    KafkaProxy& proxy_;
    const std::function<bool(const KafkaRequest&)> wanted_;
    const Then then_;
    std::shared_ptr<Link> link_;
    std::optional<KafkaRequest> request_;
    std::optional<std::string> answer_;
    bool done_ = false;  // released or dropped
  };

  KafkaProxy();
  ~KafkaProxy();
  KafkaProxy(const KafkaProxy&) = delete;
  KafkaProxy& operator=(const KafkaProxy&) = delete;

  // Where connections are passed on to, HOST:PORT; address() is what that broker has to advertise.
  // REQUIRES: no client has connected yet.
  void forward_to(const std::string& broker);

  // Holds the next request of `api` for which `filter` holds; of several such orders the oldest
  // catches first.
  std::shared_ptr<Held> hold(KafkaApi api, Then then,
                             std::function<bool(const KafkaRequest&)> filter = {});
  // Ends an order to hold that has caught nothing.
  void forget(const std::shared_ptr<Held>& held);
  // Requests of this api that came from clients.
  int count(KafkaApi api);
  // Connections that the broker ended.
  int closed_by_broker();

 private:
  std::shared_ptr<Proxy::Link> link(Socket client, Socket broker) override;
  bool forgettable(const Proxy::Link& link) const override;

  std::list<std::shared_ptr<Held>> waiting_;
  std::map<KafkaApi, int> counts_;
  int closed_by_broker_ = 0;
};

}  // namespace relay::test
