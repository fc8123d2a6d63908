// SPDX-License-Identifier: Apache-2.0
// The network between a client and a PostgreSQL server, with its delays and cuts placed at chosen
// statements.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>

#include "tests/support/proxy.h"

namespace relay::test {

// A statement is what the server answers with one ReadyForQuery: a Query message, or a group of the
// extended protocol that ends with Sync and executes something. Its text is that of the Query, or
// of what the group executes, whether parsed in it or prepared before; several of one group stand
// one after the other. What prepares and does not execute is no statement, so that a filter catches
// the execution.
//
// For clients that send a statement when the one before is answered, as libpq does outside of its
// pipeline mode; a group with a Flush in it passes as it comes. The server must not speak TLS or
// GSS: a connection for which it agrees to either is cut.
//
// Used by one test; every wait ends with std::runtime_error when its deadline passes. The
// destructor cuts all connections.
class PostgresProxy final : public Proxy {
 public:
  // What becomes of a statement that is held, and of its connection. A cut is a reset of both
  // sides.
  enum class Then {
    lose_request,  // cut; the server has not seen it
    lose_answer,   // passed on, and cut when the server has answered all of it, or ended the
                   // connection; the client gets nothing
    cut_amid,      // passed on, and cut at once: the server may have acted on it, or act on it now
    stall          // both sides stay, and nothing of this client reaches the server
  };
  using Filter = std::function<bool(const std::string& text)>;

 private:
  struct Link;

 public:
  // A statement on its way, or that is waited for.
  class Held {
   public:
    // Waits until a statement was caught; unless it is stalled, until the cut as well.
    void caught();
    // REQUIRES: caught(), of everything below.
    const std::string& text() const { return text_; }
    // The process that serves its connection; 0 if the server has not sent it.
    int backend() const { return backend_; }
    // With lose_answer: what was lost holds an error.
    bool refused() const { return refused_; }
    // Ends a stall: the server gets the statement, although the client may be gone. Does not wait
    // for the answer.
    void release();
    // Ends a stall: cuts the connection, and the server does not get the statement.
    void drop();

   private:
    friend class PostgresProxy;
    Held(PostgresProxy& proxy, Filter wanted, Then then)
        : proxy_(proxy), wanted_(std::move(wanted)), then_(then) {}

    PostgresProxy& proxy_;
    const Filter wanted_;
    const Then then_;
    std::shared_ptr<Proxy::Link> link_;
    std::string text_;
    int backend_ = 0;
    bool refused_ = false;
    bool caught_ = false;
    bool done_ = false;  // released or dropped
  };

  // In front of the server on this port of the loopback interface, which may come and go.
  explicit PostgresProxy(int server_port);
  ~PostgresProxy();

  // The same connection string by the proxy. REQUIRES: it is of the form "host=127.0.0.1 …".
  std::string dsn(const std::string& of_server) const {
    return of_server + " port=" + std::to_string(port());
  }

  // Holds the next statement for whose text `filter` holds; of several such orders the oldest
  // catches first. The filter is called with the proxy's lock: it must not call the proxy.
  std::shared_ptr<Held> hold(Filter filter, Then then);
  // Ends an order to hold that has caught nothing.
  void forget(const std::shared_ptr<Held>& held);

 private:
  std::shared_ptr<Proxy::Link> link(Socket client, Socket server) override;

  std::list<std::shared_ptr<Held>> waiting_;
};

}  // namespace relay::test
