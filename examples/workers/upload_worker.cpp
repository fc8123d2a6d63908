// SPDX-License-Identifier: Apache-2.0
// Stores receipts: one object in an object store for each message of a topic.
//
//   upload-worker upload_worker.toml
//
// The consumer only writes down what is to be stored, in the transaction that accepts the message.
// Workers execute it. The store takes an object only where there is none, and returns its checksum,
// so that a repeat is recognized for as long as the object is there.
#include <nlohmann/json.hpp>

#include "outbox/upload_provider.h"
#include "worker_program.h"

namespace {

constexpr const char* store = "store";

// What is thrown here parks the message: it would be thrown again.
void plan_upload(pqxx::dbtransaction& tx, const outbox::Record& record, const std::string& url) {
  const std::string number = nlohmann::json::parse(record.payload.value_or("")).at("order").dump();
  const std::string key(record.dedup_key);
  outbox::effect::plan(tx, {.provider = store,
                            .effect_key = key,
                            .target = {{"url", url + "/receipts/" + key + ".json"},
                                       {"content-type", "application/json"}},
                            .body = std::string(*record.payload),
                            .dedup_key = key,
                            .summary = "receipt of order " + number});
}

outbox::EffectWorkerOptions::Account account(const toml::table& config) {
  return {store,
          outbox::ProviderSettings{.in_doubt_policy = outbox::InDoubtPolicy::hold,
                                   .idempotency_window = std::chrono::hours(24 * 365),
                                   .supports_lookup = true,
                                   .claim_ttl = std::chrono::seconds(
                                       config.at_path("store.claim_ttl_seconds").value_or(30))},
          std::make_unique<outbox::UploadProvider>(
              outbox::UploadOptions{.origins = {required(config, "store.url")}})};
}

}  // namespace

int main(int argc, char** argv) {
  return run_worker(argc, argv, [](const toml::table& config) -> WorkerProgram {
    return {[url = required(config, "store.url")](pqxx::dbtransaction& tx,
                                                  const outbox::Record& record) {
              plan_upload(tx, record, url);
            },
            [&config] { return account(config); }};
  });
}
