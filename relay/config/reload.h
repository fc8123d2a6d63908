// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "relay/config/config.h"

namespace relay::config {

// The part of a new configuration that a running relay applies: the options that are reloadable.
struct Reloaded {
  Config config;                     // the running one, with those options at their new values
  std::vector<std::string> changed;  // full names of the options that it changes
  std::vector<std::string> ignored;  // full names of options that differ but need a restart
};
Reloaded reloaded(const Config& running, Config next);

}  // namespace relay::config
