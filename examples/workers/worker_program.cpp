// SPDX-License-Identifier: Apache-2.0
#include "worker_program.h"

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <iostream>
#include <thread>
#include <vector>

namespace {

void print(const outbox::ConsumerEvent& event) {
  if (event.level == outbox::ConsumerEvent::Level::debug) return;
  std::string line = event.name;
  for (const auto& [name, value] : event.fields) line += " " + name + "=" + value;
  std::cerr << line + "\n";
}

outbox::EffectWorkerOptions worker_options(const toml::table& config,
                                           const WorkerProgram& program) {
  outbox::EffectWorkerOptions options{.dsn = required(config, "postgres.dsn")};
  options.accounts.push_back(program.account());
  options.on_event = [](const outbox::EffectEvent& event) { std::cerr << event.text + "\n"; };
  return options;
}

outbox::ConsumerOptions consumer_options(const toml::table& config) {
  outbox::ConsumerOptions options{.brokers = required(config, "kafka.brokers"),
                                  .group = required(config, "kafka.group"),
                                  .topics = {required(config, "kafka.topic")},
                                  .dsn = required(config, "postgres.dsn"),
                                  .on_event = print};
  if (const toml::table* const properties = config.at_path("kafka.properties").as_table()) {
    for (const auto& [name, value] : *properties) {
      const auto text = value.value<std::string>();
      if (!text)
        throw std::runtime_error("kafka.properties: " + std::string(name.str()) +
                                 " is no text in the configuration");
      options.properties.emplace_back(name.str(), *text);
    }
  }
  return options;
}

int run_until(const sigset_t& signals, const toml::table& config, const WorkerProgram& program) {
  // A mistake in the configuration is to be seen before anything starts.
  outbox::Consumer consumer(consumer_options(config), program.plan);
  std::vector<std::unique_ptr<outbox::EffectWorker>> workers;
  for (long i = 0; i < config.at_path("threads").value_or(1L); ++i) {
    workers.push_back(std::make_unique<outbox::EffectWorker>(worker_options(config, program)));
  }
  std::atomic<bool> failed = false;
  std::vector<std::jthread> threads;
  threads.emplace_back([&](std::stop_token stop) {
    try {
      consumer.run(stop);
    } catch (const outbox::ConsumerSetupError& e) {
      std::cerr << std::string(e.what()) + "\n";
      failed = true;
      kill(getpid(), SIGTERM);
    }
  });
  for (const auto& worker : workers)
    threads.emplace_back([&worker](std::stop_token stop) { worker->run(stop); });
  int signal = 0;
  sigwait(&signals, &signal);
  for (std::jthread& thread : threads) thread.request_stop();
  threads.clear();
  return failed ? 1 : 0;
}

}  // namespace

std::string required(const toml::table& config, const char* path) {
  const auto value = config.at_path(path).value<std::string>();
  if (!value) throw std::runtime_error(std::string(path) + " is missing in the configuration");
  return *value;
}

int run_worker(int argc, char** argv,
               const std::function<WorkerProgram(const toml::table& config)>& make) {
  // No thread but this one takes them, and those that are started now inherit that.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  try {
    if (argc != 2) throw std::runtime_error("one argument is needed: the configuration");
    const toml::table config = toml::parse_file(argv[1]);
    return run_until(signals, config, make(config));
  } catch (const std::exception& e) {
    std::cerr << argv[0] << ": " << e.what() << "\n";
    return 2;
  }
}
