// SPDX-License-Identifier: Apache-2.0
// run: the relay itself.
#include <spdlog/fmt/ranges.h>

#include "relay/base/log.h"
#include "relay/commands/commands.h"
#include "relay/commands/context.h"
#include "relay/commands/system_poller.h"
#include "relay/config/reload.h"
#include "relay/core/loop.h"
#include "relay/kafka/producer.h"
#include "relay/kafka/topic_lookup.h"
#include "relay/postgres/database.h"
#include "relay/postgres/journal.h"
#include "relay/postgres/lease.h"
#include "relay/postgres/maintenance.h"
#include "relay/postgres/reader.h"

namespace relay {
namespace {

// One run of the loop, with everything that it needs.
Result<void> run_once(const Config& config, const std::string& holder, SystemPoller& poller,
                      const std::function<void(Phase)>& at_phase) {
  postgres::Options in_postgres = postgres_options(config);
  in_postgres.holder = holder;
  const kafka::Options in_kafka = kafka_options(config);
  postgres::PgDatabase database(in_postgres);
  postgres::PgReader reader(in_postgres, database);
  postgres::PgJournal journal(in_postgres, database);
  postgres::PgLease lease(in_postgres, database);
  kafka::TopicLookup topic_lookup(in_kafka);
  postgres::PgMaintenance maintenance(
      in_postgres, {config.retention.keep, config.retention.prune_rows_per_second},
      [&](const auto& topics) { return topic_lookup.existing(topics, Deadline(Millis{5'000})); });
  kafka::KafkaProducer producer(in_kafka, poller.kafka_fd());
  poller.watch_postgres([&] { return database.fd(); });

  LoopOptions options;
  options.relay = config.relay.name;
  options.mode = config.relay.mode;
  options.order = config.delivery.order;
  options.poll_idle = config.poll.idle;
  options.stop_on_lost_progress = config.delivery.on_lost_progress == OnLostProgress::stop;
  options.at_phase = at_phase;
  auto ended =
      Loop({database, reader, journal, lease, producer, maintenance, poller}, std::move(options))
          .run();
  poller.watch_postgres([] { return -1; });
  return ended;
}

// Applies the reloadable options of the configuration as it is now; true if the loop must restart.
bool reload(Config& config, const Invocation& invocation) {
  auto next = invocation.load();
  if (!next) {
    log::event(log::Level::error, "reload_refused", {{"reason", next.error().text()}});
    return false;
  }
  auto taken = config::reloaded(config, std::move(*next));
  log::event(taken.ignored.empty() ? log::Level::info : log::Level::warn, "reloaded",
             {{"changed", fmt::format("{}", fmt::join(taken.changed, " "))},
              {"needs_restart", fmt::format("{}", fmt::join(taken.ignored, " "))}});
  config = std::move(taken.config);
  log::set_level(config.log.level);
  return !taken.changed.empty();
}

int run(const Invocation& invocation, const std::function<void(Phase)>& at_phase) {
  auto loaded = invocation.load();
  if (!loaded) return report(loaded.error());
  Config config = std::move(*loaded);
  SystemPoller poller;  // first: threads inherit its signal mask
  log::start(config.log.format, config.log.level);
  const std::string holder = holder_name();
  log::event(log::Level::info, "starting",
             {{"relay", config.relay.name},
              {"version", OUTBOX_VERSION},
              {"mode", to_string(config.relay.mode)},
              {"holder", holder}});
  poller.on_reload([&] { return reload(config, invocation); });
  while (true) {
    const Config running = config;  // reload() changes the other one meanwhile
    const auto ended = run_once(running, holder, poller, at_phase);
    if (!ended) return report(ended.error());
    if (!poller.restart_requested()) return 0;
    poller.restarting();
  }
}

}  // namespace

Command run_command(std::function<void(Phase)> at_phase) {
  return {
      .name = "run",
      .summary = "Runs the relay until SIGTERM or SIGINT.",
      .details =
          "On SIGTERM or SIGINT it delivers the batch in flight and releases the lease. On SIGHUP "
          "it reads the "
          "configuration again, finishes the batch in flight, and continues with the new values of "
          "the reloadable options. Of "
          "several instances for one outbox, one is active and the others stand by. While "
          "PostgreSQL or Kafka "
          "is not available, it retries.",
      .exit_codes = {{0, "stopped by a signal"},
                     usage_code,
                     {5, "refused, because a guarantee could not be kept"}},
      .reference = R"(
[Configuration](configuration.md) says which options are reloadable.
)",
      .examples = {{"run --config /etc/outbox-relay/relay.toml",
                    "Runs the relay with this configuration."}},
      .run = [at_phase = std::move(at_phase)](const Invocation& i) { return run(i, at_phase); },
  };
}

}  // namespace relay
