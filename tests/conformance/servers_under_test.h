// SPDX-License-Identifier: Apache-2.0
// Servers with an outbox, an application, an operator, and the ports of relay processes: modelled,
// or real. The conformance suite sees nothing else.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "relay/core/ports.h"
#include "tests/sim/database.h"

namespace relay::conformance {

using sim::Trait;

constexpr std::size_t page_rows = 4;
constexpr std::size_t release_rows = 2'000;
constexpr Millis lease_ttl{1'000};

class ServersUnderTest {
 public:
  // What one relay process works with.
  struct Relay {
    Database& database;
    Reader& reader;
    Journal& journal;
    Lease& lease;
    Producer& producer;
  };

  virtual ~ServersUnderTest() = default;

  // A process; the same one for the same name.
  virtual Relay relay(const std::string& name) = 0;

  // Application: a transaction, named by the caller, and messages by number. Keys are 0 to 3, or
  // no_key. Trait::refused wants no_key.
  virtual void begin(const std::string& transaction) = 0;
  virtual void insert(const std::string& transaction, int message, int key,
                      Trait trait = Trait::good) = 0;
  virtual void commit(const std::string& transaction) = 0;
  virtual void prepare(
      const std::string& transaction) = 0;  // then commit() or abort(), also after a crash
  virtual void abort(const std::string& transaction) = 0;
  virtual void delete_messages() = 0;

  virtual void decide(int message, bool discard) = 0;  // an operator, about a parked message
  virtual void crash_database() = 0;                   // and start it again
  virtual void let_lease_run_out() = 0;

  virtual int number_of(const Message& m) const = 0;
  // What a read_committed consumer sees, ascending.
  virtual std::vector<int> arrived() = 0;
};

std::unique_ptr<ServersUnderTest> simulated_servers();
// Throws if the servers do not start.
std::unique_ptr<ServersUnderTest> real_servers();

}  // namespace relay::conformance
