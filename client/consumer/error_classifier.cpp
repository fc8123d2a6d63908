// SPDX-License-Identifier: Apache-2.0
#include "client/consumer/error_classifier.h"

#include <pqxx/pqxx>
#include <string_view>

namespace outbox::consumer {
namespace {

// By the class of the error, its first two characters (PostgreSQL, appendix A). Data, constraints and what is too large or too deep for
// the server are about this message; missing tables and rights are about all of them, and parking all of them would help nobody.
Fault fault_of(std::string_view sqlstate) {
  if (sqlstate == "40001" || sqlstate == "40P01") return Fault::conflict;
  for (const char* own : {"21", "22", "23", "27", "2F", "38", "39", "44", "54", "P0"}) {
    if (sqlstate.starts_with(own)) return Fault::message;
  }
  for (const char* gone : {"08", "57P", "25006"}) {  // the last: the server is a standby now
    if (sqlstate.starts_with(gone)) return Fault::connection;
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
    if (e.sqlstate() != "25P02") return {fault_of(e.sqlstate()), e.what()};
    return {Fault::message, std::string("the handler caught an error of the database, and went on: ") + e.what()};
  } catch (const pqxx::failure& e) {  // among others, how libpqxx says that it could not send
    return {Fault::connection, e.what()};
  } catch (const std::exception& e) {
    return {Fault::message, e.what()};
  } catch (...) {
    return {Fault::message, "the handler threw what is no std::exception"};
  }
}

}  // namespace outbox::consumer
