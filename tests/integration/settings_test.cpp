// SPDX-License-Identifier: Apache-2.0
// What a role or a database hands down to sessions neither ends nor changes the relay's statements.
#include <gtest/gtest.h>
#include <signal.h>

#include <regex>
#include <set>

#include "relay/postgres/pooler.h"
#include "tests/support/checker.h"

namespace relay {
namespace {

// Reviewed: these change neither the result of a statement of ours, nor the index that it walks,
// nor when it ends. Costs and limits of memory make it slower at worst.
const std::set<std::string> harmless = {"application_name",
                                        "backend_flush_after",
                                        "backslash_quote",
                                        "check_function_bodies",
                                        "client_connection_check_interval",
                                        "commit_siblings",
                                        "constraint_exclusion",
                                        "cpu_index_tuple_cost",
                                        "cpu_operator_cost",
                                        "cpu_tuple_cost",
                                        "createrole_self_grant",
                                        "cursor_tuple_fraction",
                                        "debug_logical_replication_streaming",
                                        "debug_parallel_query",
                                        "debug_pretty_print",
                                        "debug_print_parse",
                                        "debug_print_plan",
                                        "debug_print_raw_parse",
                                        "debug_print_rewritten",
                                        "default_statistics_target",
                                        "default_tablespace",
                                        "default_text_search_config",
                                        "default_toast_compression",
                                        "default_transaction_deferrable",
                                        "effective_cache_size",
                                        "effective_io_concurrency",
                                        "enable_async_append",
                                        "enable_distinct_reordering",
                                        "enable_gathermerge",
                                        "enable_group_by_reordering",
                                        "enable_hashagg",
                                        "enable_hashjoin",
                                        "enable_incremental_sort",
                                        "enable_material",
                                        "enable_memoize",
                                        "enable_mergejoin",
                                        "enable_parallel_append",
                                        "enable_parallel_hash",
                                        "enable_partition_pruning",
                                        "enable_partitionwise_aggregate",
                                        "enable_partitionwise_join",
                                        "enable_presorted_aggregate",
                                        "enable_self_join_elimination",
                                        "enable_tidscan",
                                        "escape_string_warning",
                                        "file_copy_method",
                                        "force_parallel_mode",
                                        "from_collapse_limit",
                                        "geqo",
                                        "geqo_effort",
                                        "geqo_generations",
                                        "geqo_pool_size",
                                        "geqo_seed",
                                        "geqo_selection_bias",
                                        "geqo_threshold",
                                        "gin_fuzzy_search_limit",
                                        "gin_pending_list_limit",
                                        "hash_mem_multiplier",
                                        "icu_validation_level",
                                        "io_combine_limit",
                                        "jit_above_cost",
                                        "jit_expressions",
                                        "jit_inline_above_cost",
                                        "jit_optimize_above_cost",
                                        "jit_tuple_deforming",
                                        "join_collapse_limit",
                                        "lc_monetary",
                                        "lc_numeric",
                                        "lc_time",
                                        "local_preload_libraries",
                                        "log_parameter_max_length_on_error",
                                        "logical_decoding_work_mem",
                                        "maintenance_io_concurrency",
                                        "maintenance_work_mem",
                                        "max_parallel_maintenance_workers",
                                        "max_parallel_workers",
                                        "md5_password_warnings",
                                        "min_parallel_index_scan_size",
                                        "min_parallel_table_scan_size",
                                        "operator_precedence_warning",
                                        "parallel_leader_participation",
                                        "parallel_setup_cost",
                                        "parallel_tuple_cost",
                                        "password_encryption",
                                        "quote_all_identifiers",
                                        "random_page_cost",
                                        "recursive_worktable_factor",
                                        "scram_iterations",
                                        "seq_page_cost",
                                        "stats_fetch_consistency",
                                        "synchronize_seqscans",
                                        "tcp_keepalives_count",
                                        "tcp_keepalives_idle",
                                        "tcp_keepalives_interval",
                                        "tcp_user_timeout",
                                        "temp_buffers",
                                        "temp_tablespaces",
                                        "timezone_abbreviations",
                                        "trace_notify",
                                        "trace_sort",
                                        "transaction_deferrable",
                                        "vacuum_buffer_usage_limit",
                                        "vacuum_cleanup_index_scale_factor",
                                        "vacuum_cost_delay",
                                        "vacuum_cost_limit",
                                        "vacuum_cost_page_dirty",
                                        "vacuum_cost_page_hit",
                                        "vacuum_cost_page_miss",
                                        "vacuum_failsafe_age",
                                        "vacuum_freeze_min_age",
                                        "vacuum_freeze_table_age",
                                        "vacuum_max_eager_freeze_failure_rate",
                                        "vacuum_multixact_failsafe_age",
                                        "vacuum_multixact_freeze_min_age",
                                        "vacuum_multixact_freeze_table_age",
                                        "vacuum_truncate",
                                        "wal_sender_timeout",
                                        "wal_skip_threshold",
                                        "work_mem",
                                        "xmlbinary",
                                        "xmloption"};

// Those that session_settings() sets, by name.
std::set<std::string> ours() {
  std::set<std::string> names = {"transaction_isolation", "transaction_read_only"};  // by default_…
  const std::string sql = postgres::session_settings();
  static const std::regex set("(?:set_config\\('|set )(\\w+)");
  for (std::sregex_iterator it(sql.begin(), sql.end(), set), end; it != end; ++it)
    names.insert((*it)[1]);
  return names;
}

TEST(SettingsTest, EachThatASessionInheritsIsSetOrReviewed) {
  test::TestOutbox db(test::shared_postgres(), nullptr);
  const auto set = ours();
  for (const auto& row :
       db.sql("select s.name from pg_settings s where s.context = 'user' and s.name !~ '[.]'")) {
    const std::string name = row[0].c_str();
    EXPECT_NE(set.contains(name), harmless.contains(name)) << name;
  }
}

TEST(SettingsTest, ARelayStreamsWhateverItsRoleHandsDown) {
  test::TestOutbox db;
  const std::string topic = db.topic("t");
  test::create_counters(db);
  const std::string login = db.login("outbox_relay");
  const auto begin = login.find("user=") + 5;
  const std::string role = login.substr(begin, login.find(' ', begin) - begin);
  for (const char* hostile : {"statement_timeout = '1s'",
                              "lock_timeout = '1s'",
                              "idle_in_transaction_session_timeout = '1s'",
                              "idle_session_timeout = '1s'",
                              "transaction_timeout = '1s'",
                              "exit_on_error = on",
                              "array_nulls = off",
                              "transform_null_equals = on",
                              "restrict_nonsystem_relation_kind = 'view'",
                              "default_transaction_isolation = 'serializable'",
                              "default_transaction_read_only = on",
                              "search_path = pg_temp",
                              "bytea_output = 'escape'",
                              "datestyle = 'SQL, DMY'",
                              "intervalstyle = 'iso_8601'",
                              "timezone = 'Asia/Kolkata'",
                              "standard_conforming_strings = off",
                              "extra_float_digits = -15",
                              "client_encoding = 'LATIN1'",
                              "plan_cache_mode = 'force_generic_plan'",
                              "enable_indexscan = off",
                              "enable_indexonlyscan = off",
                              "enable_nestloop = off",
                              "enable_sort = off",
                              "synchronous_commit = off",
                              "row_security = on",
                              "jit_above_cost = 0"}) {
    const std::string text = hostile;
    const std::string name = text.substr(0, text.find(' '));
    if (db.value("select count(*) from pg_settings s where lower(s.name) = '" + name + "'") == "0")
      continue;  // of a newer server
    db.sql("alter role \"" + role + "\" set " + text);
  }
  db.environment["OUTBOX_RELAY_POSTGRES_DSN"] = login;
  auto relay = db.relay();
  relay.says("to=streaming");
  for (int round = 0; round < 3; ++round) {
    test::write(db, topic, 50);
    db.wait_until_idle();
  }
  EXPECT_EQ(relay.output().find("stalled"), std::string::npos) << relay.output();
  EXPECT_EQ(relay.output().find("failed"), std::string::npos) << relay.output();
  relay.signal(SIGTERM);
  EXPECT_EQ(relay.wait(), 0) << relay.output();
  const auto verdict = test::check_delivery(db, {topic});
  EXPECT_TRUE(verdict.exactly_once()) << verdict;
}

}  // namespace
}  // namespace relay
