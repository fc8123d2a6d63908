// SPDX-License-Identifier: Apache-2.0
// The commands of outbox-relay. Each returns the exit code of the process.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "relay/config/config.h"
#include "relay/core/loop.h"

namespace outbox {

struct InitOptions {
  bool dry_run = false;
  bool print_sql = false;
  bool roles = true;
  bool kafka = false;
};
int init(const Config& config, const InitOptions& options);
// init --print-sql: needs no configuration.
int print_sql(const InitOptions& options);

// The service. `at_phase` is for tests.
int run(const Config& config, std::function<void(Phase)> at_phase = {});

// Parses the command line and calls one of the others.
int main_command(int argc, char** argv, std::function<void(Phase)> at_phase = {});

}  // namespace outbox
