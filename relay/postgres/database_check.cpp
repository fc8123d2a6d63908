// SPDX-License-Identifier: Apache-2.0
#include "relay/postgres/database_check.h"

#include "relay/postgres/startup_checks.h"

namespace relay::postgres {
namespace {

constexpr const char* about = "PostgreSQL";

// What is wrong with the server or the tables, one row each; no row: nothing. Looks at the catalogs
// only, so that it works whatever is left of the schema.
constexpr const char* defects_sql = R"(
  select 'fsync is off: a crash of the machine can lose or destroy what was committed',
         'set fsync = on'
  where current_setting('fsync') = 'off'
  union all
  select 'full_page_writes is off: a crash of the machine can destroy pages of the outbox',
         'set full_page_writes = on'
  where current_setting('full_page_writes') = 'off'
  union all
  select c.oid::regclass::text || ' is unlogged: a crash of the server empties it',
         'alter table ' || c.oid::regclass::text || ' set logged'
  from pg_class c
  where c.relnamespace = to_regnamespace('outbox') and c.relkind = 'r' and c.relpersistence = 'u'
  union all
  select 'the constraint own_txid is missing on outbox.message: rows that are copied or updated '
         'into it are skipped in silence',
         'alter table outbox.message add constraint own_txid check (txid = pg_current_xact_id()) '
         'not valid'
  where to_regclass('outbox.message') is not null
    and not exists (select from pg_constraint k
                    where k.conrelid = to_regclass('outbox.message') and k.conname = 'own_txid'))";

Severity severity_of(const Error& error) {
  return error.fault == Fault::postgres ? Severity::unreachable : Severity::refused;
}

// REQUIRES: postgres.allow_unverified_server, or the checks would have failed.
void name_missing_checks(const Identity& here, std::vector<CheckResult>& out) {
  const std::string hint =
      "postgres.allow_unverified_server = true accepts that; grant execute to the relay's user to "
      "enable the check";
  if (here.cluster == 0) {
    out.push_back({Severity::note, about,
                   "the check for another cluster is off: pg_control_system() is forbidden here",
                   hint});
  }
  if (here.timeline == 0) {
    out.push_back({Severity::note, about,
                   "the check for a former primary is off: pg_walfile_name() is forbidden here",
                   hint});
  }
}

}  // namespace

std::vector<CheckResult> inspect_database(PqxxSession& control, const Options& options,
                                          Identity& here) {
  std::vector<CheckResult> out;
  auto identity = check_database(control, options);
  if (identity) {
    here = *identity;
    name_missing_checks(here, out);
  } else {
    out.push_back(
        {severity_of(identity.error()), about, identity.error().what, identity.error().hint});
    if (identity.error().connection_lost) return out;
  }
  auto defects = control.run("looking at the settings of the server", defects_sql);
  if (!defects) {
    out.push_back(
        {severity_of(defects.error()), about, defects.error().what, defects.error().hint});
    return out;
  }
  for (const auto& row : *defects)
    out.push_back({Severity::finding, about, row[0].c_str(), row[1].c_str()});
  return out;
}

}  // namespace relay::postgres
