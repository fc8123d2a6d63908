// SPDX-License-Identifier: Apache-2.0
// A library to preload: before or after the n-th call that has to do with a socket, it kills its
// process (SIGKILL) or lets the call fail. The environment says so when the process starts:
//
//   OUTBOX_KILL_AT=N            counted from 1; 0 or not set: never
//   OUTBOX_KILL_WHEN=before|after|suspend    suspend kills nobody: see SocketFault
//   OUTBOX_SOCKET_CALLS=FILE    gets the number of calls when the process ends by itself
//
// or at any time by a file that holds a SocketFault:
//
//   OUTBOX_SOCKET_FAULT=FILE    poll() does not count then: it changes nothing that anybody else
//   can see, and how often it is called is chance
#include "tests/crash/fault_at_socket_call.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string_view>

namespace {

using relay::test::SocketFault;
using What = SocketFault::What;

std::array<std::atomic<bool>, 4096> is_socket{};

SocketFault* fault_from_environment() {
  static SocketFault own;
  const char* const at = std::getenv("OUTBOX_KILL_AT");
  const char* const when = std::getenv("OUTBOX_KILL_WHEN");
  own.at = at != nullptr ? std::atol(at) : 0;
  const std::string_view how = when == nullptr ? "before" : when;
  own.what = how == "before"    ? What::kill_before
             : how == "suspend" ? What::suspend
                                : What::kill_after;
  own.armed = true;
  return &own;
}

SocketFault* mapped_fault() {
  const char* const file = std::getenv("OUTBOX_SOCKET_FAULT");
  if (file == nullptr) return nullptr;
  const int fd = open(file, O_RDWR | O_CLOEXEC);
  void* const at =
      fd < 0 ? MAP_FAILED
             : mmap(nullptr, sizeof(SocketFault), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) {
    std::perror(file);
    std::_Exit(127);
  }
  ::close(fd);
  return static_cast<SocketFault*>(at);
}

SocketFault* const mapped = mapped_fault();
SocketFault* const fault =
    mapped != nullptr ? mapped
                      : fault_from_environment();  // null before its turn to be set has come

struct AtExit {
  ~AtExit() {
    const char* const file = std::getenv("OUTBOX_SOCKET_CALLS");
    if (file == nullptr) return;
    if (std::FILE* out = std::fopen(file, "w"); out != nullptr) {
      std::fprintf(out, "%ld\n", static_cast<long>(fault->calls));
      std::fclose(out);
    }
  }
} at_exit;

bool tracked(int fd) {
  return fd >= 0 && static_cast<std::size_t>(fd) < is_socket.size() &&
         is_socket[static_cast<std::size_t>(fd)];
}
void track(int fd, bool yes) {
  if (fd >= 0 && static_cast<std::size_t>(fd) < is_socket.size())
    is_socket[static_cast<std::size_t>(fd)] = yes;
}

int port_of_peer(int fd) {
  sockaddr_storage peer{};
  socklen_t size = sizeof peer;
  if (fd < 0 || getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) != 0) return 0;
  if (peer.ss_family == AF_INET6)
    return ntohs(reinterpret_cast<const sockaddr_in6*>(&peer)->sin6_port);
  return peer.ss_family == AF_INET ? ntohs(reinterpret_cast<const sockaddr_in*>(&peer)->sin_port)
                                   : 0;
}

template <class F>
F next(const char* name) {
  return reinterpret_cast<F>(dlsym(RTLD_NEXT, name));
}

#define FORWARD(name, ...) (next<decltype(&::name)>(#name)(__VA_ARGS__))

// Makes the call. If its turn has come: dies before or after it, or lets it fail.
template <class F>
auto counted(const char* name, int fd, F&& call) -> decltype(call()) {
  if (fault == nullptr || !fault->armed || ++fault->calls != fault->at) return call();
  std::strncpy(fault->name.data(), name, fault->name.size() - 1);
  fault->port = port_of_peer(fd);
  fault->struck = true;
  const What what = fault->what;
  if (what == What::suspend) {
    fault->suspended = true;
    return call();
  }
  if (what == What::kill_before) std::raise(SIGKILL);
  const auto result = what == What::fail_before ? -1 : call();
  if (what == What::kill_after) std::raise(SIGKILL);
  if (what == What::kill_before || what == What::kill_after) return result;
  FORWARD(shutdown, fd, SHUT_RDWR);
  errno = fault->error;
  return -1;
}

}  // namespace

extern "C" {

int clock_gettime(clockid_t clock, timespec* time) noexcept {
  const int result = FORWARD(clock_gettime, clock, time);
  if (clock == CLOCK_BOOTTIME && fault != nullptr && fault->suspended) time->tv_sec += 3'600;
  return result;
}
int socket(int domain, int type, int protocol) noexcept {
  const int fd = FORWARD(socket, domain, type, protocol);
  track(fd, true);
  return fd;
}
int connect(int fd, const sockaddr* address, socklen_t size) {
  return counted("connect", fd, [&] { return FORWARD(connect, fd, address, size); });
}
ssize_t send(int fd, const void* data, size_t size, int flags) {
  return counted("send", fd, [&] { return FORWARD(send, fd, data, size, flags); });
}
ssize_t sendto(int fd, const void* data, size_t size, int flags, const sockaddr* to,
               socklen_t to_size) {
  return counted("sendto", fd, [&] { return FORWARD(sendto, fd, data, size, flags, to, to_size); });
}
ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  return counted("sendmsg", fd, [&] { return FORWARD(sendmsg, fd, message, flags); });
}
ssize_t recv(int fd, void* data, size_t size, int flags) {
  return counted("recv", fd, [&] { return FORWARD(recv, fd, data, size, flags); });
}
ssize_t __recv_chk(int fd, void* data, size_t size, size_t, int flags) {
  return recv(fd, data, size, flags);
}
ssize_t recvfrom(int fd, void* data, size_t size, int flags, sockaddr* from, socklen_t* from_size) {
  return counted("recvfrom", fd,
                 [&] { return FORWARD(recvfrom, fd, data, size, flags, from, from_size); });
}
ssize_t recvmsg(int fd, msghdr* message, int flags) {
  return counted("recvmsg", fd, [&] { return FORWARD(recvmsg, fd, message, flags); });
}
ssize_t write(int fd, const void* data, size_t size) {
  if (!tracked(fd)) return FORWARD(write, fd, data, size);
  return counted("write", fd, [&] { return FORWARD(write, fd, data, size); });
}
ssize_t writev(int fd, const iovec* parts, int count) {
  if (!tracked(fd)) return FORWARD(writev, fd, parts, count);
  return counted("writev", fd, [&] { return FORWARD(writev, fd, parts, count); });
}
ssize_t read(int fd, void* data, size_t size) {
  if (!tracked(fd)) return FORWARD(read, fd, data, size);
  return counted("read", fd, [&] { return FORWARD(read, fd, data, size); });
}
ssize_t __read_chk(int fd, void* data, size_t size, size_t) { return read(fd, data, size); }
int poll(pollfd* fds, nfds_t count, int timeout) {
  if (mapped != nullptr) return FORWARD(poll, fds, count, timeout);
  return counted("poll", -1, [&] { return FORWARD(poll, fds, count, timeout); });
}
int __poll_chk(pollfd* fds, nfds_t count, int timeout, size_t) { return poll(fds, count, timeout); }
int shutdown(int fd, int how) noexcept {
  if (mapped != nullptr) return FORWARD(shutdown, fd, how);
  return counted("shutdown", fd, [&] { return FORWARD(shutdown, fd, how); });
}
int close(int fd) {
  if (!tracked(fd)) return FORWARD(close, fd);
  track(fd, false);
  if (mapped != nullptr) return FORWARD(close, fd);
  return counted("close", fd, [&] { return FORWARD(close, fd); });
}

}  // extern "C"
