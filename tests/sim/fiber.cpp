// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/fiber.h"

#include <cstdint>

#include "common/check.h"

namespace relay::sim {

// makecontext() passes integers only.
void Fiber::enter(unsigned high, unsigned low) {
  auto* const self = reinterpret_cast<Fiber*>((static_cast<std::uintptr_t>(high) << 32) | low);
  self->body_();
  self->body_ = nullptr;
  self->give_way();
}

void Fiber::begin(std::function<void()> body) {
  CHECK(ended());
  body_ = std::move(body);
  getcontext(&own_);
  own_.uc_stack.ss_sp = stack_.get();
  own_.uc_stack.ss_size = stack_bytes;
  own_.uc_link = nullptr;
  const auto self = reinterpret_cast<std::uintptr_t>(this);
  makecontext(&own_, reinterpret_cast<void (*)()>(&Fiber::enter), 2,
              static_cast<unsigned>(self >> 32), static_cast<unsigned>(self));
}

void Fiber::resume() {
  CHECK(!ended());
  swapcontext(&caller_, &own_);
}

}  // namespace relay::sim
