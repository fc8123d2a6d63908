// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "outbox/provider.h"
#include "tests/support/process.h"

namespace relay::test {

// Providers to carry effects out at: payments, an object store and a mail server on ports of their
// own, in one process that dies with the test. What they can do, and which faults they know, stands
// at the top of tests/support/providers.py.
//
// They keep a log of each request before they answer it, and that log decides.
class FakeProviders {
 public:
  using Json = nlohmann::json;

  FakeProviders();
  ~FakeProviders();
  FakeProviders(const FakeProviders&) = delete;
  FakeProviders& operator=(const FakeProviders&) = delete;

  std::string payments() const { return "http://127.0.0.1:" + port("PAYMENTS"); }
  std::string payments_tls() const { return "https://127.0.0.1:" + port("PAYMENTS_TLS"); }
  std::string store() const { return "http://127.0.0.1:" + port("STORE"); }
  std::string mail() const { return "smtp://127.0.0.1:" + port("MAIL"); }
  // With STARTTLS, and AUTH as "shop" with the password "secret".
  std::string mail_tls() const { return "smtp://127.0.0.1:" + port("MAIL_TLS"); }
  // HOST:PORT that answers no connection.
  std::string black_hole() const { return "127.0.0.1:" + port("BLACK_HOLE"); }
  // The certificate of all that speaks TLS, signed by itself.
  std::string ca_file() const { return folder_ + "/certificate.pem"; }

  // {"at": "payments", "match": TEXT, "times": N, "fault": NAME, …}
  void fault(const Json& fault) const;

  // Lines of the log: of this server and event, and with this key if one is given.
  std::vector<Json> log(const std::string& at, const std::string& event,
                        const std::optional<std::string>& key = {}) const;
  std::size_t requests(const std::string& at, const std::string& key) const {
    return log(at, "request", key).size();
  }
  std::size_t effects(const std::string& at, const std::string& key) const {
    return log(at, "effect", key).size();
  }
  // Ends them, as if their machines had died.
  void kill() { process_->signal(9); }

 private:
  std::string port(const std::string& name) const;

  std::string folder_;
  std::optional<Process> process_;
  std::string ports_;
};

// An outcome as PHASE ANSWER STATUS, "answered done 201": what a ledger decides by.
std::string said(const outbox::Outcome& outcome);

// HOST:PORT where nothing listens.
std::string dead_address();

}  // namespace relay::test
