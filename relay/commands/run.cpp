// SPDX-License-Identifier: Apache-2.0
#include <spdlog/fmt/ranges.h>

#include "relay/base/log.h"
#include "relay/commands/commands.h"
#include "relay/commands/context.h"
#include "relay/commands/wakeup.h"
#include "relay/config/reload.h"
#include "relay/kafka/admin.h"
#include "relay/kafka/producer.h"
#include "relay/postgres/database.h"
#include "relay/postgres/journal.h"
#include "relay/postgres/lease.h"
#include "relay/postgres/maintenance.h"
#include "relay/postgres/reader.h"

namespace outbox {
namespace {

// One life of the loop and of everything below it.
Result<void> run_once(const Config& config, const std::string& holder, PollWakeup& wakeup, const std::function<void(Phase)>& at_phase) {
  postgres::Options in_postgres = postgres_options(config);
  in_postgres.holder = holder;
  const kafka::Options in_kafka = kafka_options(config);
  postgres::PgDatabase database(in_postgres);
  postgres::PgReader reader(in_postgres, database);
  postgres::PgJournal journal(in_postgres, database);
  postgres::PgLease lease(in_postgres, database);
  postgres::PgMaintenance maintenance(in_postgres, {config.retention.keep, config.retention.prune_rows_per_second},
                            [&](const auto& topics) { return kafka::topics_that_exist(in_kafka, topics, Deadline(Millis{5'000})); });
  kafka::KafkaProducer producer(in_kafka, wakeup.kafka_fd());
  wakeup.watch_postgres([&] { return database.fd(); });

  LoopOptions options;
  options.relay = config.relay.name;
  options.mode = config.relay.mode;
  options.order = config.delivery.order;
  options.poll_idle = config.poll.idle;
  options.stop_on_lost_progress = config.delivery.on_lost_progress == OnLostProgress::stop;
  options.at_phase = at_phase;
  auto ended = Loop({database, reader, journal, lease, producer, maintenance, wakeup}, std::move(options)).run();
  wakeup.watch_postgres([] { return -1; });
  return ended;
}

// Takes what can be taken of the configuration as it is now; true if that is a reason to begin anew.
bool reload(Config& config, const std::function<Result<Config>()>& read_again) {
  auto fresh = read_again();
  if (!fresh) {
    log::event(log::Level::error, "reload_refused", {{"reason", fresh.error().text()}});
    return false;
  }
  auto taken = config::reloaded(config, std::move(*fresh));
  log::event(taken.ignored.empty() ? log::Level::info : log::Level::warn, "reloaded",
             {{"changed", fmt::format("{}", fmt::join(taken.changed, " "))}, {"needs_restart", fmt::format("{}", fmt::join(taken.ignored, " "))}});
  config = std::move(taken.config);
  log::set_level(config.log.level);
  return !taken.changed.empty();
}

}  // namespace

int run(Config config, const std::function<Result<Config>()>& read_again, const std::function<void(Phase)>& at_phase) {
  PollWakeup wakeup;  // first: threads inherit its signal mask
  log::start(config.log.format, config.log.level);
  const std::string holder = holder_name();
  log::event(log::Level::info, "starting", {{"relay", config.relay.name}, {"version", OUTBOX_VERSION},
                                            {"mode", to_string(config.relay.mode)}, {"holder", holder}});
  wakeup.on_reload([&] { return reload(config, read_again); });
  while (true) {
    const Config running = config;  // reload() changes the other while this one is in use
    const auto ended = run_once(running, holder, wakeup, at_phase);
    if (!ended) return report(ended.error());
    if (!wakeup.restart_requested()) return 0;
    wakeup.restarting();
  }
}

}  // namespace outbox
