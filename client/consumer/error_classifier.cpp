// SPDX-License-Identifier: Apache-2.0
#include "client/consumer/error_classifier.h"

#include <pqxx/pqxx>
#include <string_view>

namespace outbox::consumer {
namespace {

// By the class of the SQLSTATE, its first two characters (PostgreSQL, appendix A). Data, constraint
// and program-limit errors concern the message. Missing tables and privileges concern every
// message: parking them all would not help.
Fault classify_sqlstate(std::string_view sqlstate) {
  if (sqlstate == "40001" || sqlstate == "40P01") return Fault::conflict;
  // statement_timeout, lock_timeout, idle_in_transaction_session_timeout, transaction_timeout.
  for (const char* limit : {"57014", "55P03", "25P03", "25P04"}) {
    if (sqlstate == limit) return Fault::timeout;
  }
  for (const char* prefix : {"21", "22", "23", "27", "2F", "38", "39", "44", "54", "P0"}) {
    if (sqlstate.starts_with(prefix)) return Fault::message;
  }
  for (const char* prefix : {"08", "57P", "25006"}) {  // 25006: the server is a standby
    if (sqlstate.starts_with(prefix)) return Fault::connection;
  }
  return Fault::database;
}

}  // namespace

Failure classify(std::exception_ptr thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const pqxx::broken_connection& e) {
    return {Fault::connection, e.what()};
  } catch (const pqxx::in_doubt_error& e) {
    return {Fault::connection, e.what()};
  } catch (const pqxx::statement_completion_unknown& e) {
    return {Fault::connection, e.what()};
  } catch (const pqxx::transaction_rollback& e) {  // libpqxx 6: no sql_error
    return {Fault::conflict, e.what()};
  } catch (const pqxx::sql_error& e) {
    if (e.sqlstate() != "25P02") return {classify_sqlstate(e.sqlstate()), e.what()};
    return {Fault::message,
            std::string("the handler caught a database error and continued: ") + e.what()};
  } catch (const pqxx::failure& e) {  // also thrown if libpqxx could not send
    return {Fault::connection, e.what()};
  } catch (const std::exception& e) {
    return {Fault::message, e.what()};
  } catch (...) {
    return {Fault::message, "the handler threw an exception that is not a std::exception"};
  }
}

}  // namespace outbox::consumer
