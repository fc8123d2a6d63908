// SPDX-License-Identifier: Apache-2.0
#include "tests/support/kafka_proxy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>
#include <vector>

namespace outbox::test {
namespace {

constexpr Millis wait_max{20'000};
constexpr std::int32_t frame_bytes_max = 64 << 20;

// Big-endian, as everything in the protocol.
template <class Int>
Int number_at(const std::string& bytes, std::size_t at) {
  if (at + sizeof(Int) > bytes.size()) throw std::runtime_error("a frame of Kafka's protocol is too short");
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < sizeof(Int); ++i) value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  return static_cast<Int>(value);
}

// False: the connection has ended.
bool receive(int socket, char* to, std::size_t size) {
  while (size > 0) {
    const ssize_t n = recv(socket, to, size, 0);
    if (n <= 0) return false;
    to += n;
    size -= static_cast<std::size_t>(n);
  }
  return true;
}

std::optional<std::string> receive_frame(int socket) {
  std::string head(4, '\0');
  if (!receive(socket, head.data(), head.size())) return std::nullopt;
  const auto size = number_at<std::int32_t>(head, 0);
  if (size < 0 || size > frame_bytes_max) return std::nullopt;
  std::string frame(static_cast<std::size_t>(size), '\0');
  if (!receive(socket, frame.data(), frame.size())) return std::nullopt;
  return frame;
}

bool send_frame(int socket, const std::string& frame) {
  const std::uint32_t size = htonl(static_cast<std::uint32_t>(frame.size()));
  std::string bytes(reinterpret_cast<const char*>(&size), sizeof size);
  bytes += frame;
  for (std::size_t at = 0; at < bytes.size();) {
    const ssize_t n = send(socket, bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
    if (n <= 0) return false;
    at += static_cast<std::size_t>(n);
  }
  return true;
}

sockaddr_in loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

void without_delay(int socket) {
  const int on = 1;
  setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

// Reads an answer from its first byte on. Since the versions that Kafka calls flexible, lengths are varints of the length plus one,
// and tagged fields end each structure.
class AnswerReader {
 public:
  AnswerReader(const std::string& bytes, bool flexible) : bytes_(bytes), flexible_(flexible) { skip(4); }

  template <class Int>
  Int number() {
    const Int value = number_at<Int>(bytes_, at_);
    at_ += sizeof(Int);
    return value;
  }
  void skip(std::size_t n) { at_ += n; }
  std::int64_t array() { return flexible_ ? varint() - 1 : number<std::int32_t>(); }
  void skip_string() { skip(static_cast<std::size_t>(std::max<std::int64_t>(0, flexible_ ? varint() - 1 : number<std::int16_t>()))); }
  void skip_tags() {
    for (std::int64_t n = flexible_ ? varint() : 0; n > 0; --n) {
      varint();
      skip(static_cast<std::size_t>(varint()));
    }
  }

 private:
  std::int64_t varint() {
    std::int64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = number<std::uint8_t>();
      value |= static_cast<std::int64_t>(byte & 0x7f) << shift;
      if ((byte & 0x80) == 0) return value;
    }
  }

  const std::string& bytes_;
  const bool flexible_;
  std::size_t at_ = 0;
};

// The first error of an answer to a request of this version, as librdkafka 2.0 to 2.16 sends them: Produce 3 to 10, InitProducerId 0
// to 4, AddPartitionsToTxn 0, EndTxn 1.
int error_in(KafkaApi api, int version, const std::string& answer) {
  constexpr std::size_t throttle = 4;
  const bool produce = api == KafkaApi::produce;
  AnswerReader in(answer, (produce && version >= 9) || (api == KafkaApi::init_producer_id && version >= 2));
  in.skip_tags();
  if (!produce) in.skip(throttle);
  if (api == KafkaApi::init_producer_id || api == KafkaApi::end_txn) return in.number<std::int16_t>();
  for (auto topics = in.array(); topics > 0; --topics) {
    in.skip_string();
    for (auto partitions = in.array(); partitions > 0; --partitions) {
      in.skip(4);
      if (const int error = in.number<std::int16_t>(); error != 0) return error;
      if (produce) in.skip(8 + 8 + 8);  // base offset, append time, log start offset
      for (auto errors = produce && version >= 8 ? in.array() : 0; errors > 0; --errors) {
        in.skip(4);
        in.skip_string();
        in.skip_tags();
      }
      if (produce && version >= 8) in.skip_string();
      in.skip_tags();
    }
    in.skip_tags();
  }
  return 0;
}

}  // namespace

KafkaApi KafkaRequest::api() const { return static_cast<KafkaApi>(number_at<std::int16_t>(bytes, 0)); }

int KafkaRequest::version() const { return number_at<std::int16_t>(bytes, 2); }

std::int32_t KafkaRequest::id() const { return number_at<std::int32_t>(bytes, 4); }

// A client's connection and its counterpart to the broker.
struct KafkaProxy::Link {
  Link(int client_socket, int broker_socket) : client(client_socket), broker(broker_socket) {}
  ~Link() {
    close(client);
    close(broker);
  }
  void cut() {
    ended_by_client = true;
    shutdown(client, SHUT_RDWR);
    shutdown(broker, SHUT_RDWR);
  }

  const int client;
  const int broker;
  int unanswered = 0;
  bool keeps_broker = false;     // although the client is gone
  bool ended_by_client = false;  // or by us
  std::vector<std::weak_ptr<Held>> held;
  int threads = 2;            // still at work
  std::thread requests;
  std::thread answers;
};

KafkaProxy::KafkaProxy() {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof address;
  if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(listener_, 64) != 0 ||
      getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    throw std::runtime_error(std::string("the proxy cannot listen: ") + std::strerror(errno));
  }
  address_ = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  acceptor_ = std::thread([this] { accept_clients(); });
}

KafkaProxy::~KafkaProxy() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
    changed_.notify_all();
  }
  shutdown(listener_, SHUT_RDWR);
  acceptor_.join();
  close(listener_);
  for (const auto& link : links_) {  // nobody else adds or removes any more
    link->cut();
    link->requests.join();
    link->answers.join();
  }
}

void KafkaProxy::accept_clients() {
  while (true) {
    const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (client < 0) return;
    const int broker = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_in address = loopback(std::stoi(broker_.substr(broker_.rfind(':') + 1)));
    if (connect(broker, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      close(client);
      close(broker);
      continue;
    }
    without_delay(client);
    without_delay(broker);
    const auto link = std::make_shared<Link>(client, broker);
    const std::lock_guard lock(mutex_);
    std::erase_if(links_, [](const std::shared_ptr<Link>& old) {
      if (old->threads > 0 || old->keeps_broker) return false;
      old->requests.join();
      old->answers.join();
      return true;
    });
    links_.push_back(link);
    link->requests = std::thread([this, link] { pass_requests(link); });
    link->answers = std::thread([this, link] { pass_answers(link); });
  }
}

void KafkaProxy::pass_requests(const std::shared_ptr<Link>& link) {
  while (auto frame = receive_frame(link->client)) {
    if (!pass_request(link, {std::move(*frame)})) break;
  }
  const std::lock_guard lock(mutex_);
  link->ended_by_client = true;
  if (!link->keeps_broker) shutdown(link->broker, SHUT_RDWR);
  --link->threads;
}

// False: nothing more is to be read from the client.
bool KafkaProxy::pass_request(const std::shared_ptr<Link>& link, KafkaRequest request) {
  std::unique_lock lock(mutex_);
  ++counts_[request.api()];
  for (auto it = waiting_.begin(); it != waiting_.end(); ++it) {
    const auto held = *it;
    if (!held->wanted_(request)) continue;
    waiting_.erase(it);
    link->held.push_back(held);
    link->keeps_broker = true;
    held->link_ = link;
    held->request_ = std::move(request);
    changed_.notify_all();
    if (held->then_ == Then::cut_client) {
      shutdown(link->client, SHUT_RDWR);
      return false;
    }
    if (held->then_ == Then::stall) {
      changed_.wait(lock, [&] { return held->done_ || closing_; });
      return !closing_;
    }
    request = *held->request_;
    break;
  }
  ++link->unanswered;
  lock.unlock();
  return send_frame(link->broker, request.bytes);
}

void KafkaProxy::pass_answers(const std::shared_ptr<Link>& link) {
  bool lost = false;
  while (const auto frame = receive_frame(link->broker)) {
    {
      const std::lock_guard lock(mutex_);
      --link->unanswered;
      for (const auto& order : link->held) {
        const auto held = order.lock();
        if (!held || number_at<std::int32_t>(*frame, 0) != held->request_->id()) continue;
        held->answer_ = *frame;
        lost = held->then_ == Then::lose_answer;
        link->keeps_broker = false;
      }
      changed_.notify_all();
    }
    if (lost) break;
    send_frame(link->client, *frame);  // whether or not it is still there
  }
  const std::lock_guard lock(mutex_);
  if (!lost && !link->ended_by_client) ++closed_by_broker_;
  shutdown(link->client, SHUT_RDWR);
  link->unanswered = 0;  // no answer comes any more
  --link->threads;
  changed_.notify_all();
}

std::shared_ptr<KafkaProxy::Held> KafkaProxy::hold(KafkaApi api, Then then, std::function<bool(const KafkaRequest&)> filter) {
  const auto wanted = [api, filter = std::move(filter)](const KafkaRequest& r) { return r.api() == api && (!filter || filter(r)); };
  const std::shared_ptr<Held> held(new Held(*this, wanted, then));
  const std::lock_guard lock(mutex_);
  waiting_.push_back(held);
  return held;
}

void KafkaProxy::forget(const std::shared_ptr<Held>& held) {
  const std::lock_guard lock(mutex_);
  waiting_.remove(held);
}

int KafkaProxy::count(KafkaApi api) {
  const std::lock_guard lock(mutex_);
  return counts_[api];
}

int KafkaProxy::closed_by_broker() {
  const std::lock_guard lock(mutex_);
  return closed_by_broker_;
}

void KafkaProxy::cut() {
  const std::lock_guard lock(mutex_);
  for (const auto& link : links_) link->cut();
}

void KafkaProxy::wait(std::unique_lock<std::mutex>& lock, const std::string& what, const std::function<bool()>& condition) {
  if (!changed_.wait_for(lock, wait_max, condition)) throw std::runtime_error("the proxy gave up waiting: " + what);
}

void KafkaProxy::Held::caught() {
  std::unique_lock lock(proxy_.mutex_);
  proxy_.wait(lock, "a request to hold", [this] { return request_.has_value(); });
  if (then_ == Then::lose_answer) {
    proxy_.wait(lock, "the answer that is lost", [this] { return answer_.has_value(); });
  } else {
    proxy_.wait(lock, "the answers before it", [this] { return link_->unanswered == 0; });
  }
}

int KafkaProxy::Held::release() { return release(request()); }

int KafkaProxy::Held::release(KafkaRequest altered) {
  caught();
  std::unique_lock lock(proxy_.mutex_);
  ++link_->unanswered;
  if (!send_frame(link_->broker, altered.bytes)) throw std::runtime_error("the broker has closed the connection of a held request");
  done_ = true;
  proxy_.changed_.notify_all();
  proxy_.wait(lock, "the broker's answer to a held request", [this] { return answer_.has_value(); });
  const int error = error_in(request_->api(), request_->version(), *answer_);
  if (then_ == Then::cut_client) link_->cut();
  return error;
}

void KafkaProxy::Held::drop() {
  const std::lock_guard lock(proxy_.mutex_);
  done_ = true;
  link_->keeps_broker = false;
  link_->cut();
  proxy_.changed_.notify_all();
}

}  // namespace outbox::test
