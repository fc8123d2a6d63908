// SPDX-License-Identifier: Apache-2.0
#include "tests/support/wire.h"

#include <algorithm>
#include <utility>

namespace relay::test {
namespace {

constexpr std::size_t bytes_on_their_way_max = 16 << 20;
constexpr std::int64_t pieces_per_second = 20;  // so that a change of the bandwidth is soon felt

}  // namespace

void Wire::schedule(FaultSchedule schedule) {
  const std::lock_guard lock(mutex_);
  schedule_ = schedule;
  changed_.notify_all();
}

bool Wire::send(std::string bytes) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] {
    return broken_ || losing_ || bytes_ == 0 || bytes_ + bytes.size() <= bytes_on_their_way_max;
  });
  if (broken_) return false;
  if (losing_ || bytes.empty()) return true;
  bytes_ += bytes.size();
  chunks_.push_back({Clock::now(), std::move(bytes), 0});
  changed_.notify_all();
  return true;
}

bool Wire::drained(Millis within) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, within, [this] { return broken_ || losing_ || bytes_ == 0; }) &&
         !broken_ && !losing_;
}

void Wire::finish() {
  const std::lock_guard lock(mutex_);
  finished_ = true;
  changed_.notify_all();
}

void Wire::lose() {
  const std::lock_guard lock(mutex_);
  losing_ = true;
  chunks_.clear();
  bytes_ = 0;
  changed_.notify_all();
}

void Wire::cut() {
  const std::lock_guard lock(mutex_);
  broken_ = true;
  changed_.notify_all();
}

void Wire::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return broken_ || finished_ || !chunks_.empty(); });
    if (broken_) return;
    if (chunks_.empty()) break;
    pay_out(lock);
  }
  out_.shut();
}

// Sends the next piece if it is due, else waits for that or for a change.
void Wire::pay_out(std::unique_lock<std::mutex>& lock) {
  const auto now = Clock::now();
  Chunk& next = chunks_.front();
  auto due = next.sent + schedule_.latency;
  std::size_t size = next.bytes.size() - next.at;
  if (const auto rate = schedule_.bytes_per_second; rate > 0) {
    size = std::min(size,
                    static_cast<std::size_t>(std::max<std::int64_t>(1, rate / pieces_per_second)));
    const std::chrono::duration<double> takes(static_cast<double>(size) /
                                              static_cast<double>(rate));
    due = std::max(due, busy_until_) + std::chrono::duration_cast<Clock::duration>(takes);
  }
  if (now < due) {
    changed_.wait_until(lock, due);
    return;
  }
  busy_until_ = now;
  const bool whole = size == next.bytes.size();
  const std::string piece = whole ? std::move(next.bytes) : next.bytes.substr(next.at, size);
  next.at += size;
  if (whole || next.at == next.bytes.size()) chunks_.pop_front();
  lock.unlock();
  const bool sent = send_all(out_, piece, broken_);
  lock.lock();
  if (!sent) broken_ = true;
  if (!losing_) bytes_ -= piece.size();
  changed_.notify_all();
}

}  // namespace relay::test
