// SPDX-License-Identifier: Apache-2.0
#include "tests/support/database_copy.h"

#include <unistd.h>

#include <filesystem>
#include <pqxx/pqxx>
#include <stdexcept>

#include "tests/support/process.h"

namespace relay::test {
namespace {

// Returns what it says.
std::string run(const std::string& shell) {
  const auto done = run_command({"/usr/bin/env", "bash", "-c", "set -euo pipefail; " + shell}, {},
                                Millis{120'000});
  if (done.code != 0)
    throw std::runtime_error(shell + " ended with " + std::to_string(done.code) + ": " +
                             done.output);
  return done.output;
}

}  // namespace

std::string postgres_program(const std::string& name) {
  const std::string found = run(". " OUTBOX_SOURCE_DIR "/scripts/lib.sh; pg_bin");
  return found.substr(0, found.find('\n')) + "/" + name;
}

void dump_and_restore(const ScratchPostgres& from, ScratchPostgres& to,
                      const std::string& database) {
  run(postgres_program("pg_dumpall") + " --roles-only -d '" + from.dsn() +
      "' | grep -v 'ROLE postgres' | " + postgres_program("psql") + " -X -q '" + to.dsn() +
      "' >/dev/null");
  to.create_database(database);
  run(postgres_program("pg_dump") + " '" + from.dsn(database) + "' | " + postgres_program("psql") +
      " -X -q -v ON_ERROR_STOP=1 '" + to.dsn(database) + "' >/dev/null");
}

void upgrade(ScratchPostgres& from, ScratchPostgres& to, const std::string& old_programs) {
  to.stop(ScratchPostgres::Stop::fast);
  from.stop(ScratchPostgres::Stop::fast);
  const std::string user =
      geteuid() == 0 ? "setpriv --reuid=postgres --regid=postgres --init-groups -- " : "";
  const std::string programs = std::filesystem::path(postgres_program("initdb")).parent_path();
  const std::string data = "/postgres";
  run("cd " + to.folder().string() + data + "; " + user + postgres_program("pg_upgrade") +
      " -U postgres -b " + (old_programs.empty() ? programs : old_programs) + " -B " + programs +
      " -d " + from.folder().string() + data + " -D " + to.folder().string() + data + " -p " +
      std::to_string(from.port()) + " -P " + std::to_string(to.port()));
  to.start();
  from.start();
}

void burn_ids(const ScratchPostgres& server, int ids) {
  pqxx::connection connection(server.dsn());
  pqxx::nontransaction tx(connection);
  tx.exec("do $$ begin for i in 1.." + std::to_string(ids) +
          " loop perform pg_current_xact_id(); commit; end loop; end $$");
}

}  // namespace relay::test
