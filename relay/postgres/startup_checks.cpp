// SPDX-License-Identifier: Apache-2.0
#include "relay/postgres/startup_checks.h"

#include <algorithm>

#include "relay/postgres/statements.h"

namespace relay::postgres {
namespace {

Error refused(std::string what, std::string hint) {
  return {Fault::refused, std::move(what), std::move(hint)};
}

Result<void> check_server(PqxxSession& control) {
  auto rows =
      control.run("looking at the server",
                  "select pg_is_in_recovery(), current_setting('server_version_num')::integer, "
                  "current_setting('server_version'), "
                  "current_setting('server_encoding')");
  if (!rows) return rows.error();
  if ((*rows)[0][0].as<bool>()) {
    return Error{Fault::postgres, "this server is a read-only standby",
                 "point postgres.dsn at the primary, or list several hosts with "
                 "target_session_attrs=read-write"};
  }
  if ((*rows)[0][1].as<int>() < 130000) {
    return refused(std::string("PostgreSQL ") + (*rows)[0][2].c_str() + " is too old",
                   "use PostgreSQL 13 or newer");
  }
  // From others, a text may have no UTF-8 form, and the page in which it stands could not be read.
  const std::string encoding = (*rows)[0][3].c_str();
  if (encoding != "UTF8" && encoding != "LATIN1") {
    return refused("the database has the encoding " + encoding +
                       ", in which a message can have a text without a UTF-8 form",
                   "move the outbox to a database with the encoding UTF8");
  }
  return {};
}

Result<void> check_schema(PqxxSession& control) {
  auto installed = installed_schema(control, Schema::outbox);
  if (!installed) return installed.error();
  if (!*installed) {
    return refused("this database has no outbox schema",
                   "run `outbox-relay init` with this configuration as the owner of the database");
  }
  // One version to either side, so that schema and relays can be upgraded one after the other.
  const int ours = schema_version(Schema::outbox);
  const int oldest = std::max(1, ours - 1);
  if (**installed < oldest) {
    return refused("the outbox schema has version " + std::to_string(**installed) +
                       ", this program needs " + std::to_string(oldest) + " or newer",
                   "run `outbox-relay init` to upgrade it");
  }
  if (**installed > ours + 1) {
    return refused("the outbox schema has version " + std::to_string(**installed) +
                       ", this program knows only " + std::to_string(ours),
                   "run a newer outbox-relay");
  }
  return {};
}

Result<void> check_rights(PqxxSession& control) {
  auto rows = control.run("looking at the rights", sql::check_rights);
  if (!rows) return rows.error();
  for (const auto& row : *rows) {
    if (!row[0].is_null()) {
      return refused(
          std::string("the relay's user lacks rights: ") + row[0].c_str(),
          "grant the role outbox_relay to it, or run `outbox-relay init` to renew the grants");
    }
  }
  rows = control.run("looking for row-level security",
                     "select string_agg(c.oid::regclass::text, ', ') from pg_class c where "
                     "c.relnamespace = 'outbox'::regnamespace "
                     "and c.relrowsecurity");
  if (!rows) return rows.error();
  if (!(*rows)[0][0].is_null()) {
    return refused(std::string("row-level security is enabled on ") + (*rows)[0][0].c_str() +
                       ": a policy could hide messages",
                   "alter table … disable row level security");
  }
  return {};
}

Result<void> check_sequence(PqxxSession& control) {
  auto rows = control.run(
      "looking at the sequence",
      "select s.seqcache = 1 and s.seqincrement = 1 and not s.seqcycle from pg_sequence s "
      "where s.seqrelid = 'outbox.message_seq_seq'::regclass");
  if (!rows) return rows.error();
  if (rows->empty() || !(*rows)[0][0].as<bool>()) {
    return refused(
        "outbox.message_seq_seq must have CACHE 1, INCREMENT 1 and NO CYCLE, or messages of a key "
        "change their order",
        "alter sequence outbox.message_seq_seq cache 1 increment by 1 no cycle");
  }
  rows = control.run("looking at the sequence",
                     "select coalesce((select max(m.seq) from outbox.message m), 0) <= "
                     "(select case when q.is_called then q.last_value else q.last_value - 1 end "
                     "from outbox.message_seq_seq q)");
  if (!rows) return rows.error();
  if (!(*rows)[0][0].as<bool>()) {
    return refused("outbox.message_seq_seq is behind the newest message",
                   "it was restored or reset: run `outbox-relay adopt`");
  }
  return {};
}

// Whether the relay may go on with this answer: also without one, where a managed server does not
// support the function behind a check and the user accepted that. Servers differ in the error that
// they raise for it (42501, 0A000, 55000 …).
Result<void> excused(const Result<pqxx::result>& answer, const Options& options) {
  if (answer || (!answer.error().connection_lost && options.allow_unverified_server)) return {};
  Error e = answer.error();
  if (e.connection_lost) return e;
  if (e.fault != Fault::refused) e.may_pass = true;
  e.fault = Fault::refused;
  e.hint =
      "if this managed server forbids it, set postgres.allow_unverified_server = true; the relay "
      "then does not detect another cluster or a former primary";
  return e;
}

// Transaction ids belong to one cluster; ids or snapshots from its future come from another one, or
// from a restore.
Result<Identity> check_lineage(PqxxSession& control, const Options& options) {
  auto found = identify(control, options);
  if (!found) return found;
  const Identity identity = *found;
  auto rows = control.run("comparing the position with the server", sql::check_position);
  if (!rows) return rows.error();
  if (rows->empty())
    return refused("outbox.lease has no row", "run `outbox-relay init` in this database");
  const auto row = (*rows)[0];
  if (!row[0].is_null() && options.relay != row[0].c_str()) {
    return refused(std::string("this outbox belongs to the relay named \"") + row[0].c_str() +
                       "\", not \"" + options.relay + "\"",
                   "one outbox serves one relay name: set relay.name to it");
  }
  if (identity.cluster != 0 && !row[1].is_null() && row[1].as<std::int64_t>() != identity.cluster) {
    return refused(
        "this database was copied from another cluster: its transaction ids mean nothing here",
        "run `outbox-relay adopt` with the relay stopped");
  }
  if (row[2].as<bool>() || row[3].as<bool>()) {
    return refused(
        "outbox.message or outbox.batch holds transaction ids from the future of this server",
        "the data was restored from elsewhere: run `outbox-relay adopt` with the relay stopped");
  }
  return identity;
}

}  // namespace

Result<void> check_pooler(PqxxSession& control, StreamSession& session, const Options& options) {
  if (options.pooler != Pooler::none) {
    auto again = session.query("select 1", Deadline(Millis{10'000}));
    return again ? Result<void>() : again.error();
  }
  auto rows = control.run("looking for a pooler",
                          "select coalesce(current_setting('outbox_relay.session', true), '')");
  if (!rows) return rows.error();
  if (session.backend_tag() != (*rows)[0][0].c_str()) return {};
  return refused(
      "two sessions of the relay have one server process: there is a pooler in transaction mode "
      "between them and the server",
      "set postgres.pooler = \"transaction\", or connect to the server itself");
}

Result<std::optional<int>> installed_schema(PqxxSession& control, Schema schema) {
  const std::string table = std::string(name_of(schema)) + ".schema_version";
  auto exists =
      control.run("looking for the schema", "select to_regclass('" + table + "') is not null");
  if (!exists) return exists.error();
  if (!(*exists)[0][0].as<bool>()) return std::optional<int>{};
  auto rows = control.run("looking for the schema",
                          "select coalesce(max(v.number), 0) from " + table + " v");
  if (!rows) return rows.error();
  return std::optional<int>((*rows)[0][0].as<int>());
}

Result<Identity> identify(PqxxSession& control, const Options& options) {
  Identity identity;
  auto cluster = control.run("identifying the cluster",
                             "select c.system_identifier from pg_control_system() c");
  if (auto r = excused(cluster, options); !r) return r.error();
  if (cluster) identity.cluster = (*cluster)[0][0].as<std::int64_t>();
  auto database =
      control.run("identifying the database",
                  "select d.oid::bigint from pg_database d where d.datname = current_database()");
  if (!database) return database.error();
  identity.database = static_cast<std::uint32_t>((*database)[0][0].as<std::int64_t>());
  auto timeline = control.run("identifying the timeline",
                              "select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)");
  if (auto r = excused(timeline, options); !r) return r.error();
  if (timeline)
    identity.timeline =
        static_cast<std::uint32_t>(std::stoul((*timeline)[0][0].c_str(), nullptr, 16));
  return identity;
}

Result<Identity> check_database(PqxxSession& control, const Options& options) {
  if (auto r = check_server(control); !r) return r.error();
  if (auto r = check_schema(control); !r) return r.error();
  if (auto r = check_rights(control); !r) return r.error();
  if (auto r = check_sequence(control); !r) return r.error();
  return check_lineage(control, options);
}

}  // namespace relay::postgres
