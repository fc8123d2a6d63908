// SPDX-License-Identifier: Apache-2.0
#include "relay/commands/system_poller.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/check.h"

namespace relay {

SystemPoller::SystemPoller() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGHUP);
  CHECK(pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0);
  signal(SIGPIPE, SIG_IGN);  // libpq and librdkafka write to sockets that others close
  signals_ = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
  kafka_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  CHECK(signals_ >= 0 && kafka_ >= 0);
}

SystemPoller::~SystemPoller() {
  close(signals_);
  close(kafka_);
}

void SystemPoller::wait(std::chrono::microseconds at_most) {
  pollfd fds[] = {{signals_, POLLIN, 0}, {kafka_, POLLIN, 0}, {postgres_(), POLLIN, 0}};
  const auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(at_most).count();
  const timespec limit{ns / 1'000'000'000, ns % 1'000'000'000};
  if (ppoll(fds, std::size(fds), &limit, nullptr) <= 0) return;
  if ((fds[1].revents & POLLIN) != 0) {
    eventfd_t count;
    static_cast<void>(eventfd_read(kafka_, &count));
  }
  if ((fds[0].revents & POLLIN) != 0) {
    signalfd_siginfo info;
    bool reload = false;
    while (read(signals_, &info, sizeof info) == sizeof info)
      (info.ssi_signo == SIGHUP ? reload : stop_) = true;
    if (reload && !stop_ && reload_()) restart_ = true;
  }
}

}  // namespace relay
