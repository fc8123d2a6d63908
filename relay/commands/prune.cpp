// SPDX-License-Identifier: Apache-2.0
// prune: retention on demand, for an outbox whose relay does not run.
#include <cstdio>
#include <memory>
#include <thread>

#include "relay/commands/commands.h"
#include "relay/commands/context.h"
#include "relay/postgres/database.h"
#include "relay/postgres/lease.h"
#include "relay/postgres/retention.h"
#include "relay/postgres/statements.h"

namespace relay {
namespace {

constexpr std::int64_t page_rows = 2'000;

// Counts what prune_page() would delete, by the same horizon. Only reads, so it needs no lease.
int count(const Config& config) {
  auto control = open_control(config);
  if (!control) return report(control.error());
  auto rows = (*control)->run("counting what retention would delete", postgres::sql::count_prunable,
                              postgres::interval_text(config.retention.keep));
  if (!rows) return report(rows.error());
  std::printf("would delete %s messages and %s batches\n", (*rows)[0][0].c_str(),
              (*rows)[0][1].c_str());
  return 0;
}

// Page by page at the configured pace, until a page is not full.
Result<postgres::Pruned> prune_all(const Config& config, const postgres::Options& options,
                                   postgres::PqxxSession& control, postgres::PgLease& lease,
                                   std::int64_t epoch) {
  postgres::Pruned all;
  auto position = postgres::PrunePosition::beginning();
  const Millis pace{1000 * page_rows / config.retention.prune_rows_per_second};
  while (true) {
    const auto began = Clock::now();
    auto page =
        postgres::prune_page(control, options, config.retention.keep, epoch, page_rows, position);
    if (!page) return page.error();
    all.messages += page->messages;
    all.batches += page->batches;
    if (!page->more) return all;
    // A slow pace must not cost the lease.
    do {
      if (lease.due()) {
        if (auto renewed = lease.renew(); !renewed) return renewed.error();
      }
      std::this_thread::sleep_for(
          std::min<Clock::duration>(began + pace - Clock::now(), options.lease_ttl / 4));
    } while (Clock::now() < began + pace);
  }
}

int prune(const Config& config, bool dry_run) {
  if (dry_run) return count(config);
  const postgres::Options options = postgres_options(config);
  postgres::PgDatabase database(options);
  auto identity = database.connect();
  if (!identity) return report(identity.error());

  postgres::PgLease lease(options, database);
  const auto free = lease.available();
  if (!free) return report(free.error());
  auto taken =
      *free ? lease.take() : Result<std::optional<Lease::Taken>>(std::optional<Lease::Taken>{});
  if (!taken) return report(taken.error());
  if (!*taken) {
    return report({Fault::refused, "a relay is active on this outbox, and prunes it",
                   "to prune more or faster, set retention.keep or retention.prune_rows_per_second "
                   "and restart it; "
                   "`outbox-relay status` shows the process"});
  }
  auto pruned = prune_all(config, options, database.control(), lease, (*taken)->epoch);
  const auto released = lease.resign();
  if (!pruned) return report(pruned.error());
  std::printf("deleted %lld messages and %lld batches\n", static_cast<long long>(pruned->messages),
              static_cast<long long>(pruned->batches));
  return released ? 0 : report(released.error());
}

}  // namespace

Command prune_command() {
  const auto dry_run = std::make_shared<bool>(false);
  return {
      .name = "prune",
      .summary =
          "Deletes messages and batches that are older than retention.keep, while no relay runs.",
      .details =
          "A running relay does this itself. Only delivered messages are deleted; a parked message "
          "is kept until it is "
          "released.",
      .options = {{.name = "--dry-run",
                   .value = dry_run.get(),
                   .text = "Only count what would be deleted."}},
      .exit_codes = {done_code,
                     usage_code,
                     postgres_code,
                     {5, "refused: a relay is active"},
                     {6, "a relay took over the lease meanwhile"}},
      .examples = {{"prune --dry-run", "Counts the messages and batches to delete."}},
      .run = with_database([dry_run](const Config& config) { return prune(config, *dry_run); }),
  };
}

}  // namespace relay
