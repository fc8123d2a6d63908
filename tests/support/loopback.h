// SPDX-License-Identifier: Apache-2.0
// Sockets on the loopback interface.
#pragma once

#include <atomic>
#include <cstddef>
#include <string>
#include <utility>

namespace relay::test {

// Owns a descriptor. What does not change which one may be called from any thread, also while
// another is in a call on it.
class Socket {
 public:
  Socket() = default;  // none: every call on it fails
  explicit Socket(int fd) : fd_(fd) {}
  ~Socket() { close(); }
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }

  explicit operator bool() const { return fd_ >= 0; }
  int fd() const { return fd_; }
  int port() const;  // our own

  // Ends both directions in good order; a thread that is blocked in a call on it returns.
  void shut() const;
  // A thread that reads returns, and close() will be a reset, which the peer cannot take for a good
  // end.
  void doom() const;
  // REQUIRES: nobody is in a call on it.
  void close();

 private:
  int fd_ = -1;
};

// Bound to a free port; throws std::runtime_error if there is none.
Socket bound_to_loopback();
// The same, and connections are taken.
Socket listening_on_loopback();
// None: the listener was shut.
Socket accept_from(const Socket& listener);
// None: refused, or not answered in a few seconds. Small packets are not kept back, on either kind
// of connection.
Socket connect_to_loopback(int port);

// Reads exactly so much. False: the connection has ended.
bool receive(const Socket& from, char* to, std::size_t size);
// Reads what has come, at least one byte. 0: the connection has ended.
std::size_t receive_some(const Socket& from, char* to, std::size_t size);
// False: the connection has ended, or `given_up` has become true, which is looked at several times
// a second.
bool send_all(const Socket& to, const std::string& bytes, const std::atomic<bool>& given_up);

}  // namespace relay::test
