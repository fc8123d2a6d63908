// SPDX-License-Identifier: Apache-2.0
// A value that must not reach a log, an error text or a core dump's strings.
#pragma once

#include <string.h>

#include <algorithm>
#include <cstddef>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>

namespace relay {

// Overwrites every byte that `text` has allocated and empties it. The compiler may not leave it
// out.
inline void wipe(std::string& text) {
  text.resize(text.capacity());
  ::explicit_bzero(text.data(), text.size());
  text.clear();
}

// Holds a password or a connection string. However it is printed, it prints `***`; the value comes
// out by reveal() only.
//
// Its own bytes are overwritten when it is destroyed, assigned or moved from. What is made of
// reveal() is the caller's care. Two secrets cannot be compared: std::string's comparison leaks by
// its timing where the common prefix ends.
class Secret {
 public:
  Secret() = default;
  explicit Secret(std::string value, std::string origin = {}) : origin_(std::move(origin)) {
    keep(value);
    wipe(value);
  }
  Secret(const Secret& other) : origin_(other.origin_) { keep(other.value_); }
  // A long string moves its buffer, and keep() makes every string long: nothing stays behind in
  // `other`.
  Secret(Secret&& other) noexcept = default;
  Secret& operator=(Secret other) noexcept {
    value_.swap(other.value_);
    origin_.swap(other.origin_);
    return *this;
  }
  ~Secret() { wipe(value_); }

  bool empty() const { return value_.empty(); }
  const std::string& reveal() const { return value_; }
  // The file that it was read from, which is no secret; empty: it came from no file.
  const std::string& origin() const { return origin_; }

  friend bool operator==(const Secret&, const Secret&) = delete;
  friend bool operator<(const Secret&, const Secret&) = delete;

 private:
  // Above the size that std::string stores inside itself, where a move would copy.
  static constexpr std::size_t always_on_heap = 64;

  void keep(std::string_view value) {
    value_.reserve(std::max(value.size(), always_on_heap));
    value_.append(value);
  }

  std::string value_;
  std::string origin_;
};

inline std::string to_string(const Secret&) { return "***"; }
inline std::ostream& operator<<(std::ostream& out, const Secret&) { return out << "***"; }

}  // namespace relay
