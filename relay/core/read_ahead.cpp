// SPDX-License-Identifier: Apache-2.0
#include "relay/core/read_ahead.h"

#include <utility>

namespace relay {

void ReadAhead::forget() {
  page_.reset();
  reading_ = false;
}

Result<void> ReadAhead::advance() {
  if (page_) return {};
  auto news = reader_.advance();
  if (!news) return news.error();
  if (!*news) return {};
  reading_ = false;
  page_ = reader_.take();
  if (page_) {
    idle_.reset();
  } else {
    look_again_at_ = poller_.now() + idle_.next();
  }
  return {};
}

Result<void> ReadAhead::want() {
  if (page_ || reading_ || poller_.now() < look_again_at_) return {};
  reading_ = true;
  return reader_.want();
}

Page ReadAhead::take() {
  Page page = std::move(*page_);
  page_.reset();
  return page;
}

std::optional<Clock::time_point> ReadAhead::due() const {
  if (page_ || reading_) return std::nullopt;
  return look_again_at_;
}

}  // namespace relay
