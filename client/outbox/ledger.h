// SPDX-License-Identifier: Apache-2.0
// claim() and settle() as single statements, for workers: without a transaction around them they are one round trip that commits
// on the server, so that a worker which is stopped in between holds no lock.
#pragma once

#include <pqxx/pqxx>
#include <string>
#include <vector>

#include "outbox/effect.h"

namespace outbox::ledger {

void register_provider(pqxx::transaction_base& tx, const std::string& name, const ProviderSettings& settings);
std::vector<Claim> claim(pqxx::transaction_base& tx, const std::string& provider, const std::string& worker, int claims_max);
// tried: false gives the claim back.
EffectState settle(pqxx::transaction_base& tx, const Claim& claim, const Outcome& outcome, bool tried = true);

}  // namespace outbox::ledger
