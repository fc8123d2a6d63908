// SPDX-License-Identifier: Apache-2.0
// E-mail, by SMTP.
//
//   outbox::SmtpProvider mail({.url = "smtp://mail.example.com:587", .username = "shop", .password = password,
//                              .from = "shop@example.com"});
//
// SMTP has no idempotency keys. What it has is one narrow window: a mail server takes a message over when it answers to the dot
// that ends it, and nothing before that dot has an effect. So an attempt that broke off earlier is Phase::nothing, free to repeat,
// even when the whole text was written; one that broke off between the dot and its answer is Phase::sent, in doubt, and nobody
// can be asked (supports_lookup() is false). The Message-ID is made of Request::provider_key alone, so that a repeat after doubt carries
// the same one: the recipient's software may show two such messages as one, but need not.
//
// Target of a Request:
//   to     addresses, separated by commas. Required. If the server refuses one of them, the message goes to none.
//   from   address of the sender. Defaults to SmtpOptions::from.
// The body is a message of RFC 5322, header fields, an empty line and text, without a Message-ID, which is added. Lines may end with
// LF or CRLF and are sent with CRLF; lines that begin with a dot arrive as they are. The addresses above are the envelope's: the
// fields From and To are the body's affair.
//
// What the server's reply means, whichever command it answers:
//   250 to the dot       done; Outcome::object is the Message-ID, request_id what the server calls the message in its queue
//   4yz, 421 included    not_now
//   530, 534, 535, 538   unauthorized
//   other 5yz            refused; before MAIL unauthorized, since it is us whom the server does not want, and not this message
#pragma once

#include <chrono>
#include <string>

#include "outbox/provider.h"

namespace outbox {
inline namespace v1 {

struct SmtpOptions {
  // smtp://host:port, or smtps:// where TLS begins with the connection. Required.
  std::string url;

  // For AUTH. Never printed. Defaults to none: no authentication.
  std::string username{};
  std::string password{};

  // With smtp://, whether to go on only after STARTTLS. Without it, TLS is used where it is offered, and a password is not allowed:
  // whoever sits between could take the offer away and read it. Defaults to true.
  bool require_tls = true;

  // Sender of messages whose target names none. Defaults to none: the target must name it.
  std::string from{};

  // What we call ourselves in EHLO. Defaults to the name of the machine.
  std::string helo_name{};

  // The right side of the Message-ID. It must stay the same for as long as an effect may be repeated. Defaults to the domain of the
  // sender.
  std::string message_id_domain{};

  // File of PEM certificates to trust. Defaults to the system's. The server's certificate is always verified.
  std::string ca_file{};

  // For name, connection, TLS and authentication together, within the deadline. Defaults to 10 s.
  std::chrono::milliseconds connect_timeout{10'000};
};

class SmtpProvider final : public Provider {
 public:
  // Throws std::invalid_argument, with what is wrong and the remedy, when the options cannot work. Connects to nothing.
  explicit SmtpProvider(SmtpOptions options);
  ~SmtpProvider() override;

  // A message that can never be sent, say one that has a Message-ID, is `refused` at Phase::nothing.
  Outcome call(const Request& request, Deadline deadline) override;

 private:
  const SmtpOptions options_;
};

}  // namespace v1
}  // namespace outbox
