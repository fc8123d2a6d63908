// SPDX-License-Identifier: Apache-2.0
// How people bring a database to another server, with PostgreSQL's own programs. What fails throws
// std::runtime_error.
#pragma once

#include <string>

#include "tests/support/scratch_servers.h"

namespace relay::test {

// The path of one of PostgreSQL's programs, as the scratch servers use it.
std::string postgres_program(const std::string& name);

// The roles and this database. REQUIRES: both servers run, and `to` has no database of this name.
void dump_and_restore(const ScratchPostgres& from, ScratchPostgres& to,
                      const std::string& database);

// pg_upgrade: `to` is a new server, and has everything that `from` has. Both run afterwards.
// `old_programs`: the folder of those of `from`, if it is of another version.
void upgrade(ScratchPostgres& from, ScratchPostgres& to, const std::string& old_programs = {});

// Moves the server's transaction ids on.
void burn_ids(const ScratchPostgres& server, int ids);

}  // namespace relay::test
