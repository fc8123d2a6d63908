// SPDX-License-Identifier: Apache-2.0
// Owners of what C libraries hand out: each has one, and is destroyed by it.
#pragma once

#include <memory>

namespace outbox::common {

template <auto destroy>
struct Destroyer {
  template <class T>
  void operator()(T* p) const {
    destroy(p);
  }
};

template <class T, auto destroy>
using Owned = std::unique_ptr<T, Destroyer<destroy>>;

}  // namespace outbox::common
