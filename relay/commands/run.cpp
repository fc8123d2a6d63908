// SPDX-License-Identifier: Apache-2.0
#include "relay/base/log.h"
#include "relay/commands/commands.h"
#include "relay/commands/context.h"
#include "relay/commands/wakeup.h"
#include "relay/kafka/admin.h"
#include "relay/kafka/producer.h"
#include "relay/postgres/journal.h"
#include "relay/postgres/lease.h"
#include "relay/postgres/reader.h"
#include "relay/postgres/upkeep.h"

namespace outbox {

int run(const Config& config, std::function<void(Phase)> at_phase) {
  PollWakeup wakeup;  // first: threads inherit its signal mask
  log::start(config.log.format, config.log.level);
  const postgres::Options in_postgres = postgres_options(config);
  const kafka::Options in_kafka = kafka_options(config);
  log::event(log::Level::info, "starting", {{"relay", config.relay.name}, {"version", OUTBOX_VERSION},
                                            {"mode", to_string(config.relay.mode)}, {"holder", in_postgres.holder}});

  postgres::Reader reader(in_postgres);
  postgres::PgJournal journal(in_postgres, reader);
  postgres::PgLease lease(in_postgres, journal);
  postgres::PgUpkeep upkeep(in_postgres, {config.retention.keep, config.retention.prune_rows_per_second},
                            [&](const auto& topics) { return kafka::topics_that_exist(in_kafka, topics, Deadline(Millis{5'000})); });
  kafka::Producer producer(in_kafka, wakeup.kafka_fd());
  wakeup.watch_postgres([&] { return reader.busy() ? journal.fd() : -1; });

  LoopOptions options;
  options.relay = config.relay.name;
  options.mode = config.relay.mode;
  options.order = config.delivery.order;
  options.poll_idle = config.poll.idle;
  options.stop_on_lost_progress = config.delivery.on_lost_progress == OnLostProgress::stop;
  options.at_phase = std::move(at_phase);
  Loop loop(reader, journal, lease, producer, upkeep, wakeup, std::move(options));
  const auto ended = loop.run();
  return ended ? 0 : report(ended.error());
}

}  // namespace outbox
