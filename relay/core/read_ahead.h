// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "common/backoff.h"
#include "relay/core/ports.h"

namespace relay {

// Keeps one page of the stream read ahead, without blocking. When nothing new is visible it looks
// again after a pause that doubles up to `idle_max`. Used by the loop's thread.
class ReadAhead {
 public:
  ReadAhead(Reader& reader, const Poller& poller, Millis idle_max)
      : reader_(reader), poller_(poller), idle_(Millis{1}, idle_max) {}

  // Recovery begins: the page, and the question that is under way, are void.
  void forget();
  // The stream begins: the first look is due at once.
  void start() { look_again_at_ = poller_.now(); }

  // Takes what the reader has read since.
  Result<void> advance();
  // Asks for the next page, if none is there or under way and the pause is over.
  Result<void> want();

  bool ready() const { return page_.has_value(); }
  bool reading() const { return reading_; }  // asked, and no answer yet
  // REQUIRES: ready().
  const Page& page() const { return *page_; }
  Page take();
  // When want() has something to do; nullopt: not by the time alone.
  std::optional<Clock::time_point> due() const;

 private:
  Reader& reader_;
  const Poller& poller_;
  std::optional<Page> page_;
  bool reading_ = false;
  Clock::time_point look_again_at_{};
  outbox::common::Backoff idle_;
};

}  // namespace relay
