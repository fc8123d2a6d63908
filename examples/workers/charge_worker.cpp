// SPDX-License-Identifier: Apache-2.0
// Charges customers: one charge at the bank for each message of a topic, once, whatever dies in
// between.
//
//   charge-worker charge_worker.toml
//
// The consumer only writes down what is to be charged, in the transaction that accepts the message.
// Workers execute it, and the ledger knows of each charge what was tried, what the bank said, and
// what resolves a doubt: `outbox-relay effects list`.
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "outbox/http_provider.h"
#include "worker_program.h"

namespace {

constexpr const char* bank = "bank";

// What is thrown here parks the message: it would be thrown again.
void plan_charge(pqxx::dbtransaction& tx, const outbox::Record& record) {
  const auto order = nlohmann::json::parse(record.payload.value_or(""));
  const auto cents = order.at("cents").get<long>();
  if (cents <= 0)
    throw outbox::Poison("an order of " + std::to_string(cents) + " cents cannot be charged");
  const std::string number = order.at("order").dump();
  const std::string key(record.dedup_key);
  outbox::effect::plan(
      tx,
      {.provider = bank,
       .effect_key = key,
       .target = {{"path", "/charges"}},
       .body =
           nlohmann::json{{"amount", cents}, {"currency", "eur"}, {"reference", "order " + number}}
               .dump(),
       .dedup_key = key,
       .summary = "charge " + std::to_string(cents) + " cents for order " + number});
}

// The bank keeps idempotency keys for a day and can be asked about them. What neither resolves
// waits for an operator.
outbox::EffectWorkerOptions::Account account(const toml::table& config,
                                             const std::string& api_key) {
  return {bank,
          outbox::ProviderSettings{.in_doubt_policy = outbox::InDoubtPolicy::hold,
                                   .idempotency_window = std::chrono::hours(24),
                                   .supports_lookup = true,
                                   .claim_ttl = std::chrono::seconds(
                                       config.at_path("bank.claim_ttl_seconds").value_or(30))},
          std::make_unique<outbox::HttpProvider>(
              outbox::HttpOptions{.base_url = required(config, "bank.url"),
                                  .headers = {{"Authorization", "Bearer " + api_key}},
                                  .lookup_path = "/charges?key={key}"})};
}

}  // namespace

int main(int argc, char** argv) {
  return run_worker(argc, argv, [](const toml::table& config) -> WorkerProgram {
    const char* const api_key = std::getenv("BANK_API_KEY");
    if (api_key == nullptr)
      throw std::runtime_error("the environment variable BANK_API_KEY is missing");
    return {plan_charge, [&config, key = std::string(api_key)] { return account(config, key); }};
  });
}
