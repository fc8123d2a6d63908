// SPDX-License-Identifier: Apache-2.0
#include "tests/support/postgres_proxy.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <stdexcept>
#include <utility>

namespace relay::test {
namespace {

constexpr std::size_t read_bytes = 64 << 10;
constexpr std::size_t length_bytes = 4;
constexpr std::size_t message_bytes_max = 1 << 30;  // as PostgreSQL itself
constexpr Millis drained_max{20'000};

// What a first packet, which has no type, can ask for in place of a version of the protocol.
constexpr std::uint32_t tls_wanted = 80877103;
constexpr std::uint32_t gss_wanted = 80877104;
constexpr char wanted_in_vain = 'N';

// Of the client.
constexpr char query = 'Q';
constexpr char parse = 'P';
constexpr char bind = 'B';
constexpr char execute = 'E';
constexpr char describe = 'D';
constexpr char close_one = 'C';
constexpr char sync = 'S';
// Of the server.
constexpr char backend_key = 'K';
constexpr char failed = 'E';
constexpr char ready = 'Z';

// Big-endian, as everything in the protocol. REQUIRES: at + 4 <= bytes.size().
std::uint32_t number_at(const std::string& bytes, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i)
    value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  return value;
}

// Text that ends with a zero byte; what follows it begins at `at`.
std::string text_at(const std::string& bytes, std::size_t& at) {
  const std::size_t begin = std::min(at, bytes.size());
  const std::size_t end = std::min(bytes.find('\0', begin), bytes.size());
  at = end + 1;
  return bytes.substr(begin, end - begin);
}

// Cuts what comes by a socket into messages.
class MessageReader {
 public:
  explicit MessageReader(const Socket& from) : from_(from) {}

  // The next message, from its type (1 byte; a first packet has none) and length on. None: the
  // connection has ended.
  std::optional<std::string> next(std::size_t type_bytes = 1) {
    while (!whole(type_bytes)) {
      if (!valid(type_bytes) || !read()) return std::nullopt;
    }
    const std::size_t size = type_bytes + number_at(bytes_, at_ + type_bytes);
    std::string message = bytes_.substr(at_, size);
    at_ += size;
    return message;
  }
  // Whether the next one need not be waited for.
  bool more() const { return whole(1); }

 private:
  bool has_length(std::size_t type_bytes) const {
    return bytes_.size() - at_ >= type_bytes + length_bytes;
  }
  bool valid(std::size_t type_bytes) const {
    if (!has_length(type_bytes)) return true;
    const std::size_t size = number_at(bytes_, at_ + type_bytes);
    return size >= length_bytes && size <= message_bytes_max;
  }
  bool whole(std::size_t type_bytes) const {
    return has_length(type_bytes) && valid(type_bytes) &&
           bytes_.size() - at_ >= type_bytes + number_at(bytes_, at_ + type_bytes);
  }
  bool read() {
    bytes_.erase(0, at_);
    at_ = 0;
    const std::size_t before = bytes_.size();
    bytes_.resize(before + read_bytes);
    const std::size_t n = receive_some(from_, bytes_.data() + before, read_bytes);
    bytes_.resize(before + n);
    return n > 0;
  }

  const Socket& from_;
  std::string bytes_;
  std::size_t at_ = 0;
};

// Puts the messages of a client together to statements.
class StatementReader {
 public:
  struct Part {
    std::string bytes;
    std::optional<std::string> statement;  // its text, if this is one
  };

  // None: more belongs to it.
  std::optional<Part> take(const std::string& message) {
    const char type = message[0];
    std::size_t at = 1 + length_bytes;
    if (type == query) return Part{message, text_at(message, at)};
    bytes_ += message;
    if (type == parse) {
      const std::string name = text_at(message, at);
      prepared_[name] = text_at(message, at);
    } else if (type == bind) {
      const std::string portal = text_at(message, at);
      portals_[portal] = prepared_[text_at(message, at)];
    } else if (type == execute) {
      text_ += (text_.empty() ? "" : "; ") + portals_[text_at(message, at)];
      executes_ = true;
    }
    if (type == parse || type == bind || type == execute || type == describe || type == close_one)
      return std::nullopt;
    Part part{std::exchange(bytes_, {}), std::nullopt};
    if (type == sync && executes_) part.statement = std::exchange(text_, {});
    text_.clear();
    executes_ = false;
    return part;
  }

 private:
  std::map<std::string, std::string> prepared_;  // text by name
  std::map<std::string, std::string> portals_;   // text by name
  std::string bytes_;
  std::string text_;
  bool executes_ = false;
};

}  // namespace

struct PostgresProxy::Link : Proxy::Link {
  Link(PostgresProxy& owner, Socket client, Socket server)
      : Proxy::Link(std::move(client), std::move(server)), proxy(owner) {}
  void pass_requests() override;
  void pass_answers() override;
  bool pass_start(MessageReader& from_client);
  bool pass(StatementReader::Part part);
  bool pass_held(std::string bytes, const std::shared_ptr<Held>& held);
  bool pass_answer(const std::string& message);
  void end_held(const std::shared_ptr<Held>& held);  // with proxy.mutex_ held

  PostgresProxy& proxy;
  // Of proxy.mutex_.
  bool started = false;  // what the server says is messages from now on
  int backend = 0;
  std::shared_ptr<Held> losing;  // the answers are its, and are lost
};

PostgresProxy::PostgresProxy(int server_port) {
  forward_to(server_port);
  begin();
}

PostgresProxy::~PostgresProxy() { end(); }

std::shared_ptr<Proxy::Link> PostgresProxy::link(Socket client, Socket server) {
  return std::make_shared<Link>(*this, std::move(client), std::move(server));
}

void PostgresProxy::Link::pass_requests() {
  MessageReader from_client(client_);
  StatementReader statements;
  bool open = pass_start(from_client);
  {
    const std::lock_guard lock(proxy.mutex_);
    started = true;
    proxy.changed_.notify_all();
  }
  while (open) {
    auto message = from_client.next();
    if (!message) break;
    if (swallowed()) continue;
    auto part = statements.take(*message);
    if (part) open = pass(std::move(*part));
  }
  if (!swallowed()) requests.finish();
}

// False: the connection is of no use.
bool PostgresProxy::Link::pass_start(MessageReader& from_client) {
  while (const auto packet = from_client.next(0)) {
    const std::uint32_t code =
        packet->size() >= 2 * length_bytes ? number_at(*packet, length_bytes) : 0;
    if (!requests.send(*packet)) return false;
    if (code != tls_wanted && code != gss_wanted) return true;
    char answer = 0;
    if (!receive(server_, &answer, 1)) return swallowed();
    answers.send({answer});
    if (answer == wanted_in_vain) continue;
    cut();
    return false;
  }
  return false;
}

// False: nothing more is to be read from the client.
bool PostgresProxy::Link::pass(StatementReader::Part part) {
  std::unique_lock lock(proxy.mutex_);
  if (part.statement) {
    const auto order = std::find_if(proxy.waiting_.begin(), proxy.waiting_.end(),
                                    [&](const auto& h) { return h->wanted_(*part.statement); });
    if (order != proxy.waiting_.end()) {
      const auto held = *order;
      proxy.waiting_.erase(order);
      held->link_ = shared_from_this();
      held->text_ = *part.statement;
      held->backend_ = backend;
      if (held->then_ == Then::lose_answer) losing = held;
      lock.unlock();
      return pass_held(std::move(part.bytes), held);
    }
  }
  lock.unlock();
  return requests.send(std::move(part.bytes));
}

bool PostgresProxy::Link::pass_held(std::string bytes, const std::shared_ptr<Held>& held) {
  if (held->then_ == Then::stall) {
    std::unique_lock lock(proxy.mutex_);
    held->caught_ = true;
    proxy.changed_.notify_all();
    proxy.changed_.wait(lock, [&] { return held->done_ || was_cut() || proxy.closing_; });
    if (was_cut() || proxy.closing_) return false;
  }
  const bool sent = held->then_ != Then::lose_request && requests.send(std::move(bytes));
  if (held->then_ == Then::cut_amid) requests.drained(drained_max);
  if (held->then_ == Then::stall || (held->then_ == Then::lose_answer && sent)) return sent;
  const std::lock_guard lock(proxy.mutex_);
  end_held(held);
  return false;
}

void PostgresProxy::Link::end_held(const std::shared_ptr<Held>& held) {
  cut();
  held->caught_ = true;
  proxy.changed_.notify_all();
}

void PostgresProxy::Link::pass_answers() {
  {
    std::unique_lock lock(proxy.mutex_);
    proxy.changed_.wait(lock, [this] { return started; });
  }
  MessageReader from_server(server_);
  std::string passing;
  while (const auto message = from_server.next()) {
    if (swallowed()) continue;
    if (pass_answer(*message)) passing += *message;
    if (!from_server.more()) answers.send(std::exchange(passing, {}));
  }
  const std::lock_guard lock(proxy.mutex_);
  const auto held = std::exchange(losing, nullptr);
  if (swallowed()) return;
  if (held) end_held(held);
  answers.finish();
  requests.cut();
}

// False: it is lost.
bool PostgresProxy::Link::pass_answer(const std::string& message) {
  const std::lock_guard lock(proxy.mutex_);
  if (message[0] == backend_key && message.size() >= 1 + 2 * length_bytes)
    backend = static_cast<int>(number_at(message, 1 + length_bytes));
  if (!losing) return true;
  if (message[0] == failed) losing->refused_ = true;
  if (message[0] == ready) end_held(std::exchange(losing, nullptr));
  return false;
}

std::shared_ptr<PostgresProxy::Held> PostgresProxy::hold(Filter filter, Then then) {
  const std::shared_ptr<Held> held(new Held(*this, std::move(filter), then));
  const std::lock_guard lock(mutex_);
  waiting_.push_back(held);
  return held;
}

void PostgresProxy::forget(const std::shared_ptr<Held>& held) {
  const std::lock_guard lock(mutex_);
  waiting_.remove(held);
}

void PostgresProxy::Held::caught() {
  std::unique_lock lock(proxy_.mutex_);
  proxy_.wait(lock, "a statement to hold", [this] { return caught_; });
}

void PostgresProxy::Held::release() {
  const std::lock_guard lock(proxy_.mutex_);
  done_ = true;
  proxy_.changed_.notify_all();
}

void PostgresProxy::Held::drop() {
  const std::lock_guard lock(proxy_.mutex_);
  link_->cut();
  done_ = true;
  proxy_.changed_.notify_all();
}

}  // namespace relay::test
