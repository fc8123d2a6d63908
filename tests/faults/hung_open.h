// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pqxx/pqxx>
#include <string>

#include "tests/support/test_outbox.h"

namespace relay::faults {

// Each INSERT of a batch waits before its COMMIT for as long as this lives, as on a disk that
// hangs.
class HungOpen {
 public:
  explicit HungOpen(test::TestOutbox& db) : db_(db), connection_(db.dsn()), lock_(connection_) {
    db.sql(
        "create function public.hang() returns trigger language plpgsql as "
        "$$ begin perform pg_advisory_xact_lock(77); return new; end $$");
    lock_.exec("select pg_advisory_lock(77)");
    db.sql(
        "create trigger hang after insert on outbox.batch for each row execute function "
        "public.hang()");
  }
  ~HungOpen() {
    try {
      lock_.exec("select pg_advisory_unlock(77)");
      db_.sql("drop function public.hang() cascade");
    } catch (const pqxx::failure&) {  // the lock goes with its connection, and the round cannot be
                                      // evaluated
    }
  }
  HungOpen(const HungOpen&) = delete;
  HungOpen& operator=(const HungOpen&) = delete;

  bool waits(int backends = 1) const {
    return db_.value(
               "select count(*) >= " + std::to_string(backends) +
               " from pg_stat_activity a where a.wait_event_type = 'Lock' and "
               "a.application_name like 'outbox-relay%' and a.datname = current_database()") == "t";
  }

 private:
  test::TestOutbox& db_;
  pqxx::connection connection_;
  pqxx::nontransaction lock_;
};

}  // namespace relay::faults
