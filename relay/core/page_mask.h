// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace relay {

// A set of messages of one page, by their index: those that are not sent, because they are parked,
// or not sent this time. A bitmap; an empty one owns no memory.
class PageMask {
 public:
  bool empty() const { return count_ == 0; }
  std::size_t count() const { return count_; }
  bool contains(std::size_t index) const {
    return index / bits < words_.size() && (words_[index / bits] >> index % bits & 1) != 0;
  }
  void add(std::size_t index) {
    if (index / bits >= words_.size()) words_.resize(index / bits + 1);
    if (contains(index)) return;
    words_[index / bits] |= std::uint64_t{1} << index % bits;
    ++count_;
  }
  // Calls visit(index) for each of them, ascending.
  template <typename Visit>
  void for_each(Visit visit) const {
    for (std::size_t w = 0; w < words_.size(); ++w) {
      for (std::uint64_t rest = words_[w]; rest != 0; rest &= rest - 1) {
        visit(w * bits + static_cast<std::size_t>(std::countr_zero(rest)));
      }
    }
  }

 private:
  static constexpr std::size_t bits = 64;
  std::vector<std::uint64_t> words_;
  std::size_t count_ = 0;
};

}  // namespace relay
