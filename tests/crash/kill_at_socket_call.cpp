// SPDX-License-Identifier: Apache-2.0
// A library to preload: kills its process (SIGKILL) before or after the n-th call that has to do with a socket.
//
//   OUTBOX_KILL_AT=N            counted from 1; 0 or not set: never
//   OUTBOX_KILL_WHEN=before|after
//   OUTBOX_SOCKET_CALLS=FILE    gets the number of calls when the process ends by itself
#include <dlfcn.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

std::atomic<long> calls{0};
std::array<std::atomic<bool>, 4096> is_socket{};

const long kill_at = std::getenv("OUTBOX_KILL_AT") != nullptr ? std::atol(std::getenv("OUTBOX_KILL_AT")) : 0;
const bool kill_before = std::getenv("OUTBOX_KILL_WHEN") == nullptr || std::strcmp(std::getenv("OUTBOX_KILL_WHEN"), "before") == 0;

struct AtExit {
  ~AtExit() {
    const char* const file = std::getenv("OUTBOX_SOCKET_CALLS");
    if (file == nullptr) return;
    if (std::FILE* out = std::fopen(file, "w"); out != nullptr) {
      std::fprintf(out, "%ld\n", calls.load());
      std::fclose(out);
    }
  }
} at_exit;

bool tracked(int fd) { return fd >= 0 && static_cast<std::size_t>(fd) < is_socket.size() && is_socket[static_cast<std::size_t>(fd)]; }
void track(int fd, bool yes) {
  if (fd >= 0 && static_cast<std::size_t>(fd) < is_socket.size()) is_socket[static_cast<std::size_t>(fd)] = yes;
}

// Makes the call, and dies before or after it if its turn has come.
template <class F>
auto counted(F&& call) {
  const bool last = ++calls == kill_at;
  if (last && kill_before) std::raise(SIGKILL);
  const auto result = call();
  if (last) std::raise(SIGKILL);
  return result;
}

template <class F>
F next(const char* name) {
  return reinterpret_cast<F>(dlsym(RTLD_NEXT, name));
}

}  // namespace

#define FORWARD(name, ...) (next<decltype(&::name)>(#name)(__VA_ARGS__))

extern "C" {

int socket(int domain, int type, int protocol) noexcept {
  const int fd = FORWARD(socket, domain, type, protocol);
  track(fd, true);
  return fd;
}
int connect(int fd, const sockaddr* address, socklen_t size) {
  return counted([&] { return FORWARD(connect, fd, address, size); });
}
ssize_t send(int fd, const void* data, size_t size, int flags) {
  return counted([&] { return FORWARD(send, fd, data, size, flags); });
}
ssize_t sendto(int fd, const void* data, size_t size, int flags, const sockaddr* to, socklen_t to_size) {
  return counted([&] { return FORWARD(sendto, fd, data, size, flags, to, to_size); });
}
ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  return counted([&] { return FORWARD(sendmsg, fd, message, flags); });
}
ssize_t recv(int fd, void* data, size_t size, int flags) {
  return counted([&] { return FORWARD(recv, fd, data, size, flags); });
}
ssize_t __recv_chk(int fd, void* data, size_t size, size_t, int flags) { return recv(fd, data, size, flags); }
ssize_t recvfrom(int fd, void* data, size_t size, int flags, sockaddr* from, socklen_t* from_size) {
  return counted([&] { return FORWARD(recvfrom, fd, data, size, flags, from, from_size); });
}
ssize_t write(int fd, const void* data, size_t size) {
  if (!tracked(fd)) return FORWARD(write, fd, data, size);
  return counted([&] { return FORWARD(write, fd, data, size); });
}
ssize_t read(int fd, void* data, size_t size) {
  if (!tracked(fd)) return FORWARD(read, fd, data, size);
  return counted([&] { return FORWARD(read, fd, data, size); });
}
ssize_t __read_chk(int fd, void* data, size_t size, size_t) { return read(fd, data, size); }
int poll(pollfd* fds, nfds_t count, int timeout) {
  return counted([&] { return FORWARD(poll, fds, count, timeout); });
}
int __poll_chk(pollfd* fds, nfds_t count, int timeout, size_t) { return poll(fds, count, timeout); }
int shutdown(int fd, int how) noexcept {
  return counted([&] { return FORWARD(shutdown, fd, how); });
}
int close(int fd) {
  if (!tracked(fd)) return FORWARD(close, fd);
  track(fd, false);
  return counted([&] { return FORWARD(close, fd); });
}

}  // extern "C"
