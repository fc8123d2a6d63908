// SPDX-License-Identifier: Apache-2.0
#include "tests/support/kafka_proxy.h"

#include <algorithm>
#include <stdexcept>
#include <utility>
#include <vector>

namespace relay::test {
namespace {

constexpr std::int32_t frame_bytes_min = 4;  // of an answer, its id
constexpr std::int32_t frame_bytes_max = 64 << 20;

// Big-endian, as everything in the protocol.
template <class Int>
Int number_at(const std::string& bytes, std::size_t at) {
  if (at + sizeof(Int) > bytes.size())
    throw std::runtime_error("a frame of Kafka's protocol is too short");
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < sizeof(Int); ++i)
    value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  return static_cast<Int>(value);
}

std::optional<std::string> receive_frame(const Socket& socket) {
  std::string head(4, '\0');
  if (!receive(socket, head.data(), head.size())) return std::nullopt;
  const auto size = number_at<std::int32_t>(head, 0);
  if (size < frame_bytes_min || size > frame_bytes_max) return std::nullopt;
  std::string frame(static_cast<std::size_t>(size), '\0');
  if (!receive(socket, frame.data(), frame.size())) return std::nullopt;
  return frame;
}

std::string with_length(const std::string& frame) {
  const auto size = static_cast<std::uint32_t>(frame.size());
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(size >> shift & 0xff);
  return bytes + frame;
}

// Reads an answer from its first byte on. Since the versions that Kafka calls flexible, lengths are
// varints of the length plus one, and tagged fields end each structure.
class AnswerReader {
 public:
  AnswerReader(const std::string& bytes, bool flexible) : bytes_(bytes), flexible_(flexible) {
    skip(4);
  }

  template <class Int>
  Int number() {
    const Int value = number_at<Int>(bytes_, at_);
    at_ += sizeof(Int);
    return value;
  }
  void skip(std::size_t n) { at_ += n; }
  std::int64_t array() { return flexible_ ? varint() - 1 : number<std::int32_t>(); }
  void skip_string() {
    skip(static_cast<std::size_t>(
        std::max<std::int64_t>(0, flexible_ ? varint() - 1 : number<std::int16_t>())));
  }
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

// The first error of an answer to a request of this version, as librdkafka 2.0 to 2.16 sends them:
// Produce 3 to 10, InitProducerId 0 to 4, AddPartitionsToTxn 0, EndTxn 1.
int error_in(KafkaApi api, int version, const std::string& answer) {
  constexpr std::size_t throttle = 4;
  const bool produce = api == KafkaApi::produce;
  AnswerReader in(answer,
                  (produce && version >= 9) || (api == KafkaApi::init_producer_id && version >= 2));
  in.skip_tags();
  if (!produce) in.skip(throttle);
  if (api == KafkaApi::init_producer_id || api == KafkaApi::end_txn)
    return in.number<std::int16_t>();
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

KafkaApi KafkaRequest::api() const {
  return static_cast<KafkaApi>(number_at<std::int16_t>(bytes, 0));
}

int KafkaRequest::version() const { return number_at<std::int16_t>(bytes, 2); }

std::int32_t KafkaRequest::id() const { return number_at<std::int32_t>(bytes, 4); }

struct KafkaProxy::Link : Proxy::Link {
  Link(KafkaProxy& owner, Socket client, Socket broker)
      : Proxy::Link(std::move(client), std::move(broker)), proxy(owner) {}
  void pass_requests() override;
  void pass_answers() override;
  bool pass_request(KafkaRequest request);
  bool pass_answer(const std::string& answer);

  KafkaProxy& proxy;
  // Of proxy.mutex_.
  int unanswered = 0;
  bool keeps_broker = false;  // although the client is gone
  bool ended_by_client = false;
  std::vector<std::weak_ptr<Held>> held;
};

KafkaProxy::KafkaProxy() { begin(); }

KafkaProxy::~KafkaProxy() { end(); }

void KafkaProxy::forward_to(const std::string& broker) {
  Proxy::forward_to(std::stoi(broker.substr(broker.rfind(':') + 1)));
}

std::shared_ptr<Proxy::Link> KafkaProxy::link(Socket client, Socket broker) {
  return std::make_shared<Link>(*this, std::move(client), std::move(broker));
}

bool KafkaProxy::forgettable(const Proxy::Link& link) const {
  return !static_cast<const Link&>(link).keeps_broker;
}

void KafkaProxy::Link::pass_requests() {
  while (auto frame = receive_frame(client_)) {
    if (!swallowed() && !pass_request({std::move(*frame)})) break;
  }
  const std::lock_guard lock(proxy.mutex_);
  ended_by_client = true;
  if (!keeps_broker && !swallowed()) requests.finish();
}

// False: nothing more is to be read from the client.
bool KafkaProxy::Link::pass_request(KafkaRequest request) {
  std::unique_lock lock(proxy.mutex_);
  ++proxy.counts_[request.api()];
  const auto order = std::find_if(proxy.waiting_.begin(), proxy.waiting_.end(),
                                  [&](const auto& h) { return h->wanted_(request); });
  if (order != proxy.waiting_.end()) {
    const auto caught = *order;
    proxy.waiting_.erase(order);
    held.push_back(caught);
    caught->link_ = std::static_pointer_cast<Link>(shared_from_this());
    caught->request_ = request;
    proxy.changed_.notify_all();
    switch (caught->then_) {
      case Then::lose_request: cut(); return false;
      case Then::cut_client:
        keeps_broker = true;
        close_client();
        return false;
      case Then::stall:
        keeps_broker = true;
        proxy.changed_.wait(lock, [&] { return caught->done_ || was_cut() || proxy.closing_; });
        return !was_cut() && !proxy.closing_;
      case Then::lose_answer: keeps_broker = true;
    }
  }
  ++unanswered;
  lock.unlock();
  return requests.send(with_length(request.bytes));
}

void KafkaProxy::Link::pass_answers() {
  bool lost = false;
  while (const auto frame = receive_frame(server_)) {
    if (swallowed()) continue;
    lost = !pass_answer(*frame);
    if (lost) break;
    answers.send(with_length(*frame));  // whether or not the client is still there
  }
  const std::lock_guard lock(proxy.mutex_);
  if (lost) cut();
  if (!swallowed()) {
    if (!was_cut() && !ended_by_client) ++proxy.closed_by_broker_;
    answers.finish();
    requests.cut();
  }
  unanswered = 0;  // no answer comes any more
  proxy.changed_.notify_all();
}

// False: it is one to be lost.
bool KafkaProxy::Link::pass_answer(const std::string& answer) {
  const std::lock_guard lock(proxy.mutex_);
  bool lost = false;
  --unanswered;
  for (const auto& order : held) {
    const auto caught = order.lock();
    if (!caught || number_at<std::int32_t>(answer, 0) != caught->request_->id()) continue;
    caught->answer_ = answer;
    lost = caught->then_ == Then::lose_answer;
    keeps_broker = false;
  }
  proxy.changed_.notify_all();
  return !lost;
}

std::shared_ptr<KafkaProxy::Held> KafkaProxy::hold(
    KafkaApi api, Then then, std::function<bool(const KafkaRequest&)> filter) {
  const auto wanted = [api, filter = std::move(filter)](const KafkaRequest& r) {
    return r.api() == api && (!filter || filter(r));
  };
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

void KafkaProxy::Held::caught() {
  std::unique_lock lock(proxy_.mutex_);
  proxy_.wait(lock, "a request to hold", [this] { return request_.has_value(); });
  if (then_ == Then::lose_answer) {
    proxy_.wait(lock, "the answer that is lost", [this] { return answer_.has_value(); });
  } else if (then_ != Then::lose_request) {
    proxy_.wait(lock, "the answers before it", [this] { return link_->unanswered == 0; });
  }
}

int KafkaProxy::Held::release() { return release(request()); }

int KafkaProxy::Held::release(KafkaRequest altered) {
  caught();
  std::unique_lock lock(proxy_.mutex_);
  ++link_->unanswered;
  if (!link_->requests.send(with_length(altered.bytes)))
    throw std::runtime_error("the broker has closed the connection of a held request");
  done_ = true;
  proxy_.changed_.notify_all();
  proxy_.wait(lock, "the broker's answer to a held request",
              [this] { return answer_.has_value(); });
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

}  // namespace relay::test
