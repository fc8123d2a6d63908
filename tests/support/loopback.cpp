// SPDX-License-Identifier: Apache-2.0
#include "tests/support/loopback.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace relay::test {
namespace {

constexpr timeval connect_max{5, 0};
constexpr timeval send_max{0, 100'000};  // of one attempt; send_all() makes another

void set_send_timeout(const Socket& socket, const timeval& limit) {
  setsockopt(socket.fd(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

void make_ready(const Socket& connection) {
  const int on = 1;
  setsockopt(connection.fd(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  set_send_timeout(connection, send_max);
}

sockaddr_in loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

}  // namespace

int Socket::port() const {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  if (getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size) != 0)
    throw std::runtime_error("a socket without a port");
  return ntohs(address.sin_port);
}

void Socket::shut() const { shutdown(fd_, SHUT_RDWR); }

void Socket::doom() const {
  const linger none{1, 0};
  setsockopt(fd_, SOL_SOCKET, SO_LINGER, &none, sizeof none);
  shutdown(fd_, SHUT_RD);  // to end both would signal a good end to the peer first
}

void Socket::close() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

Socket bound_to_loopback() {
  Socket bound(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_in address = loopback(0);
  if (bind(bound.fd(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    throw std::runtime_error(std::string("cannot bind to a port: ") + std::strerror(errno));
  }
  return bound;
}

Socket listening_on_loopback() {
  Socket listener = bound_to_loopback();
  if (listen(listener.fd(), 64) != 0)
    throw std::runtime_error(std::string("cannot listen: ") + std::strerror(errno));
  return listener;
}

Socket accept_from(const Socket& listener) {
  Socket connection(accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC));
  if (connection) make_ready(connection);
  return connection;
}

Socket connect_to_loopback(int port) {
  Socket connection(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  set_send_timeout(connection, connect_max);
  const sockaddr_in address = loopback(port);
  if (connect(connection.fd(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return {};
  make_ready(connection);
  return connection;
}

bool receive(const Socket& from, char* to, std::size_t size) {
  while (size > 0) {
    const std::size_t n = receive_some(from, to, size);
    if (n == 0) return false;
    to += n;
    size -= n;
  }
  return true;
}

std::size_t receive_some(const Socket& from, char* to, std::size_t size) {
  const ssize_t n = recv(from.fd(), to, size, 0);
  return n > 0 ? static_cast<std::size_t>(n) : 0;
}

bool send_all(const Socket& to, const std::string& bytes, const std::atomic<bool>& given_up) {
  for (std::size_t at = 0; at < bytes.size();) {
    if (given_up) return false;
    const ssize_t n = send(to.fd(), bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
    if (n > 0) {
      at += static_cast<std::size_t>(n);
    } else if (errno != EAGAIN && errno != EWOULDBLOCK) {
      return false;
    }
  }
  return true;
}

}  // namespace relay::test
