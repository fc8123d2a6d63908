// SPDX-License-Identifier: Apache-2.0
// What the proxies of both protocols have in common: connections, their schedule, and faults that
// need no protocol.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "tests/support/loopback.h"
#include "tests/support/wire.h"

namespace relay::test {

// A proxy on a loopback port of its own, which passes each connection on to a server on another.
//
// Every public member may be called from any thread, at any time, and returns at once.
class Proxy {
 public:
  Proxy(const Proxy&) = delete;
  Proxy& operator=(const Proxy&) = delete;

  int port() const { return port_; }
  // HOST:PORT for clients.
  const std::string& address() const { return address_; }

  // Resets every connection there is, on both sides. What was on its way is lost.
  void cut();
  // Half-open: the bytes of both directions are taken and thrown away, on the connections there are
  // and on those to come, which no server hears of. Both ends see a peer that acknowledges and says
  // nothing, and neither sees the other end. Turned off, every connection that lost something is
  // cut, and new ones work.
  void swallow(bool on);
  // New connections are reset at once. Those there are stay.
  void refuse(bool on);
  // Of all connections, in each direction, what is on its way included. Throws
  // std::invalid_argument for a latency of more than a minute, and for anything negative.
  void schedule(FaultSchedule schedule);

 protected:
  // A client's connection and its counterpart to the server. A protocol reads from both sockets,
  // each on a thread, and gives to the wires what is to be passed on.
  class Link : public std::enable_shared_from_this<Link> {
   public:
    Link(Socket to_client, Socket to_server);
    virtual ~Link() = default;
    Link(const Link&) = delete;
    Link& operator=(const Link&) = delete;

   protected:
    // Read until the connection ends, or until they want no more of it.
    virtual void pass_requests() = 0;
    virtual void pass_answers() = 0;

    Socket client_;
    Socket server_;

   public:
    Wire requests{server_};
    Wire answers{client_};

    // The reset is on the wire when all threads have ended, some 100 ms later at most.
    void cut();
    bool was_cut() const { return cut_; }
    void swallow();
    bool swallowed() const { return swallowed_; }
    // Closes the client's side in good order, the server's stays.
    void close_client() const { client_.shut(); }

   private:
    friend class Proxy;
    void begin();
    void join();
    void work(const std::function<void()>& work);
    bool over();

    std::atomic<bool> cut_{false};
    std::atomic<bool> swallowed_{false};
    std::mutex mutex_;  // of the sockets' end
    int working_ = 4;
    std::array<std::thread, 4> threads_;
  };

  Proxy();
  ~Proxy() = default;
  // Between these two, connections are passed on. REQUIRES: the derived constructor and destructor
  // call them, the first and the last of what they do with connections. end() cuts all and returns
  // when no thread is left.
  void begin();
  void end();
  void forward_to(int port) { server_port_ = port; }
  virtual std::shared_ptr<Link> link(Socket client, Socket server) = 0;
  // Whether it can be forgotten when its connections are over; called with mutex_ held.
  virtual bool forgettable(const Link&) const { return true; }
  // Waits for changed_; throws std::runtime_error when the condition does not hold in time.
  void wait(std::unique_lock<std::mutex>& lock, const std::string& what,
            const std::function<bool()>& condition);

  std::mutex mutex_;  // of everything below, and of what derived classes have
  std::condition_variable changed_;
  bool closing_ = false;

 private:
  void accept_clients();
  void accept(Socket client);

  std::list<std::shared_ptr<Link>> links_;
  bool swallowing_ = false;
  bool refusing_ = false;
  FaultSchedule schedule_;
  std::atomic<int> server_port_{0};
  Socket listener_;
  const int port_;
  const std::string address_;
  std::thread acceptor_;
};

}  // namespace relay::test
