// SPDX-License-Identifier: Apache-2.0
// What the workers have in common: a consumer that plans effects, threads that execute them, and an
// end at SIGTERM.
#pragma once

#include <toml++/toml.h>
#include <functional>
#include <string>

#include "outbox/consumer.h"
#include "outbox/effect_worker.h"

// A text of the configuration; throws when it is missing.
std::string required(const toml::table& config, const char* path);

struct WorkerProgram {
  // Writes down what a message asks for, in the transaction that accepts it. What it throws parks
  // the message.
  outbox::Consumer::Handler plan;
  // The account that executes it; called once for each thread.
  std::function<outbox::EffectWorkerOptions::Account()> account;
};

// Runs until SIGTERM or SIGINT. The only argument is the configuration: sections kafka (with
// properties of librdkafka, as texts) and postgres, and `threads`. Returns the exit code.
int run_worker(int argc, char** argv,
               const std::function<WorkerProgram(const toml::table& config)>& make);
