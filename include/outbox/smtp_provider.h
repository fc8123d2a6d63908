// SPDX-License-Identifier: Apache-2.0
// Adapter for e-mail by SMTP.
//
//   outbox::SmtpProvider mail({.url = "smtp://mail.example.com:587",
//                              .username = "shop",
//                              .password = password,
//                              .from = "shop@example.com"});
//
// SMTP has no idempotency keys. A server accepts a message with its reply to the final dot; nothing
// before the dot has an effect. An attempt that fails before the dot is Phase::nothing and safe to
// repeat. An attempt that fails between the dot and its reply is Phase::sent, in doubt, and cannot
// be looked up (supports_lookup() is false). The Message-ID is derived from Request::provider_key
// only, so that a repeat carries the same one; recipients may use it to merge duplicates.
//
// Target of a Request:
//   to     addresses, separated by commas. Required. All are refused if the server refuses one.
//   from   sender address. Defaults to SmtpOptions::from.
// These addresses form the envelope. The body is an RFC 5322 message (header fields, an empty line,
// text) with its own From and To, and without a Message-ID, which is added. Lines may end with LF
// or CRLF and are sent with CRLF; leading dots are preserved.
//
// Meaning of the reply, to any command:
//   250 to the dot       done; Outcome::object is the Message-ID, request_id the server's queue id
//   4yz, 421 included    not_now
//   530, 534, 535, 538   unauthorized
//   other 5yz            refused; before MAIL unauthorized, because it concerns the client
#pragma once

#include <chrono>
#include <string>

#include "outbox/provider.h"

namespace outbox {
inline namespace v1 {

struct SmtpOptions {
  // smtp://host:port, or smtps://host:port for implicit TLS. Required.
  std::string url;

  // Credentials for AUTH. Never printed. Defaults to none: no authentication.
  std::string username{};
  std::string password{};

  // Whether smtp:// requires STARTTLS. If false, TLS is used where offered, and a password is
  // rejected: an attacker could suppress the offer and read it. Defaults to true.
  bool require_tls = true;

  // Sender of messages whose target has none. Defaults to none: the target must have one.
  std::string from{};

  // Host name sent with EHLO. Defaults to the name of the machine.
  std::string helo_name{};

  // Domain of the Message-ID. Must not change while an effect may be repeated. Defaults to the
  // domain of the sender.
  std::string message_id_domain{};

  // PEM file of trusted certificates. Defaults to the system's. Certificates are always verified.
  std::string ca_file{};

  // Time limit for name resolution, connection, TLS and authentication together, within the
  // deadline. Defaults to 10 s.
  std::chrono::milliseconds connect_timeout{10'000};
};

// Threads: stateless apart from its options; concurrent calls are allowed.
class SmtpProvider final : public Provider {
 public:
  // Throws std::invalid_argument with the fault and its remedy if an option is invalid. Does not
  // connect.
  explicit SmtpProvider(SmtpOptions options);
  ~SmtpProvider() override;

  // A message that cannot be sent, for example with a Message-ID, is `refused` at Phase::nothing.
  Outcome call(const Request& request, Deadline deadline) override;

 private:
  const SmtpOptions options_;
};

}  // namespace v1
}  // namespace outbox
