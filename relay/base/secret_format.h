// SPDX-License-Identifier: Apache-2.0
// Lets fmt print a Secret, as `***`. Apart from secret.h, because fmt takes long to compile.
#pragma once

#include <spdlog/fmt/fmt.h>

#include "relay/base/secret.h"

template <>
struct fmt::formatter<relay::Secret> : fmt::formatter<std::string_view> {
  template <class Context>
  auto format(const relay::Secret&, Context& context) const {
    return fmt::formatter<std::string_view>::format("***", context);
  }
};
