// SPDX-License-Identifier: Apache-2.0
#include "tests/support/proxy.h"

#include <stdexcept>
#include <utility>

namespace relay::test {
namespace {

constexpr Millis wait_max{20'000};
constexpr Millis latency_max{60'000};

}  // namespace

Proxy::Link::Link(Socket to_client, Socket to_server)
    : client_(std::move(to_client)), server_(std::move(to_server)) {}

void Proxy::Link::begin() {
  threads_ = {std::thread([this] { work([this] { pass_requests(); }); }),
              std::thread([this] { work([this] { pass_answers(); }); }),
              std::thread([this] { work([this] { requests.run(); }); }),
              std::thread([this] { work([this] { answers.run(); }); })};
}

void Proxy::Link::work(const std::function<void()>& work) {
  work();
  const std::lock_guard lock(mutex_);
  if (--working_ > 0) return;
  client_.close();
  server_.close();
}

bool Proxy::Link::over() {
  const std::lock_guard lock(mutex_);
  return working_ == 0;
}

void Proxy::Link::join() {
  for (auto& thread : threads_) thread.join();
}

void Proxy::Link::cut() {
  cut_ = true;
  requests.cut();
  answers.cut();
  const std::lock_guard lock(mutex_);
  client_.doom();
  server_.doom();
}

void Proxy::Link::swallow() {
  swallowed_ = true;
  requests.lose();
  answers.lose();
}

Proxy::Proxy()
    : listener_(listening_on_loopback()),
      port_(listener_.port()),
      address_("127.0.0.1:" + std::to_string(port_)) {}

void Proxy::begin() {
  acceptor_ = std::thread([this] { accept_clients(); });
}

void Proxy::end() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
    changed_.notify_all();
  }
  listener_.shut();
  acceptor_.join();
  cut();
  for (const auto& link : links_) link->join();  // nobody else adds or removes any more
}

void Proxy::accept_clients() {
  while (true) {
    Socket client = accept_from(listener_);
    if (!client) return;
    accept(std::move(client));
  }
}

void Proxy::accept(Socket client) {
  std::unique_lock lock(mutex_);
  const bool swallowed = swallowing_;
  Socket server;
  if (!refusing_ && !swallowed) {
    lock.unlock();
    server = connect_to_loopback(server_port_);
    lock.lock();
  }
  if (refusing_ || (!server && !swallowed)) {
    client.doom();
    return;
  }
  std::erase_if(links_, [this](const std::shared_ptr<Link>& old) {
    if (!old->over() || !forgettable(*old)) return false;
    old->join();
    return true;
  });
  const auto link = this->link(std::move(client), std::move(server));
  link->requests.schedule(schedule_);
  link->answers.schedule(schedule_);
  if (swallowed || swallowing_) link->swallow();
  links_.push_back(link);
  link->begin();
  if (swallowed && !swallowing_) link->cut();
}

void Proxy::cut() {
  const std::lock_guard lock(mutex_);
  for (const auto& link : links_) link->cut();
  changed_.notify_all();
}

void Proxy::swallow(bool on) {
  const std::lock_guard lock(mutex_);
  swallowing_ = on;
  for (const auto& link : links_) {
    if (on) {
      link->swallow();
    } else if (link->swallowed()) {
      link->cut();
    }
  }
  changed_.notify_all();
}

void Proxy::refuse(bool on) {
  const std::lock_guard lock(mutex_);
  refusing_ = on;
}

void Proxy::schedule(FaultSchedule schedule) {
  if (schedule.latency < Millis{0} || schedule.latency > latency_max ||
      schedule.bytes_per_second < 0)
    throw std::invalid_argument("schedule");
  const std::lock_guard lock(mutex_);
  for (const auto& link : links_) {
    link->requests.schedule(schedule);
    link->answers.schedule(schedule);
  }
  schedule_ = schedule;
}

void Proxy::wait(std::unique_lock<std::mutex>& lock, const std::string& what,
                 const std::function<bool()>& condition) {
  if (!changed_.wait_for(lock, wait_max, condition))
    throw std::runtime_error("the proxy gave up waiting: " + what);
}

}  // namespace relay::test
