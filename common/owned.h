// SPDX-License-Identifier: Apache-2.0
// Owning pointers to objects of C libraries: Owned<T, destroy> calls destroy(object) at its end.
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
