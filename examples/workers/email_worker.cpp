// SPDX-License-Identifier: Apache-2.0
// Sends e-mail: one for each message of a topic.
//
//   email-worker email_worker.toml
//
// The consumer only writes down what is to be sent, in the transaction that accepts the message.
// Workers execute it. A mail server neither deduplicates nor supports a lookup: when it goes silent
// between the end of a mail and its answer, the ledger is in doubt, and `in_doubt_policy`
// says what happens. "hold": an operator decides, and no mail is sent twice; "resend": none is
// lost.
#include <ctime>
#include <nlohmann/json.hpp>

#include "outbox/smtp_provider.h"
#include "worker_program.h"

namespace {

constexpr const char* mail = "mail";

std::string date(std::chrono::system_clock::time_point at) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(at);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[64];
  std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S +0000", &parts);
  return text;
}

// The mail is written here, once, so that each attempt sends the same. What is thrown parks the
// message: it would be thrown again.
void plan_email(pqxx::dbtransaction& tx, const outbox::Record& record) {
  const auto order = nlohmann::json::parse(record.payload.value_or(""));
  const std::string number = order.at("order").dump();
  const std::string to = order.at("email").get<std::string>();
  if (to.find_first_of("\r\n,") != std::string::npos) throw outbox::Poison("the address is none");
  const std::string key(record.dedup_key);
  outbox::effect::plan(
      tx, {.provider = mail,
           .effect_key = key,
           .target = {{"to", to}},
           .body = "From: The shop <shop@example.com>\nTo: <" + to + ">\nSubject: Your order " +
                   number + "\nDate: " + date(record.sent_at) +
                   "\n\nThank you! We have received your order " + number + ".\n",
           .dedup_key = key,
           .summary = "e-mail about order " + number + " to " + to});
}

outbox::EffectWorkerOptions::Account account(const toml::table& config) {
  const std::string in_doubt_policy = required(config, "mail.in_doubt_policy");
  if (in_doubt_policy != "hold" && in_doubt_policy != "resend")
    throw std::runtime_error("mail.in_doubt_policy is neither \"hold\" nor \"resend\"");
  return {
      mail,
      outbox::ProviderSettings{
          .in_doubt_policy = in_doubt_policy == "hold" ? outbox::InDoubtPolicy::hold
                                                       : outbox::InDoubtPolicy::resend,
          .claim_ttl = std::chrono::seconds(config.at_path("mail.claim_ttl_seconds").value_or(30))},
      std::make_unique<outbox::SmtpProvider>(
          outbox::SmtpOptions{.url = required(config, "mail.url"),
                              .require_tls = config.at_path("mail.require_tls").value_or(true),
                              .from = required(config, "mail.from")})};
}

}  // namespace

int main(int argc, char** argv) {
  return run_worker(argc, argv, [](const toml::table& config) -> WorkerProgram {
    return {plan_email, [&config] { return account(config); }};
  });
}
