// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "relay/config/config.h"

namespace outbox::config {

// What a running relay takes of a configuration that was read anew: the options that can be reloaded.
struct Reloaded {
  Config config;                     // the running one, with those options as they are now
  std::vector<std::string> changed;  // full names of options that have another value in it
  std::vector<std::string> ignored;  // full names of options that differ too, but need a restart
};
Reloaded reloaded(const Config& running, Config fresh);

}  // namespace outbox::config
