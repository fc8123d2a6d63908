// SPDX-License-Identifier: Apache-2.0
// What a test and the preloaded library fault_at_socket_call share: a file that both have mapped,
// of this one object.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace relay::test {

struct SocketFault {
  // after: the call is made, so that its bytes are on their way, and then the process is killed or
  // the call said to have failed. suspend: before the call, the machine was suspended for an hour:
  // CLOCK_BOOTTIME has gone on, and CLOCK_MONOTONIC has not.
  enum class What : int { kill_before, kill_after, fail_before, fail_after, suspend };

  std::atomic<bool> armed{false};  // calls count from then on
  std::atomic<std::int64_t> calls{0};
  std::atomic<std::int64_t> at{0};  // the call that is struck, counted from 1; 0: none
  std::atomic<What> what{What::kill_before};
  std::atomic<int> error{0};  // errno of a call that fails; its connection is shut down as well, so
                              // that the next one fails, too
  // Of the call that was struck; written before it is.
  std::array<char, 16> name{};
  std::atomic<int> port{0};  // of the peer
  std::atomic<bool> struck{false};
  std::atomic<bool> suspended{false};
};
static_assert(std::atomic<std::int64_t>::is_always_lock_free &&
              std::atomic<SocketFault::What>::is_always_lock_free);

}  // namespace relay::test
