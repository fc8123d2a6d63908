// SPDX-License-Identifier: Apache-2.0
// The statements of the effect ledger, for any kind of transaction.
//
// A worker runs them in a pqxx::nontransaction: each is one round trip that commits on the server,
// so that an interrupted worker holds no lock. outbox/effect.h wraps them for other callers.
//
// Failure. EffectRefused if the ledger rejects the call; other exceptions of libpqxx are passed on.
// Uses the thread of the transaction; keeps no state.
#pragma once

#include <pqxx/pqxx>
#include <string>
#include <vector>

#include "outbox/effect.h"

namespace outbox::ledger {

void register_provider(pqxx::transaction_base& tx, const std::string& name,
                       const ProviderSettings& settings);
std::vector<Claim> claim(pqxx::transaction_base& tx, const std::string& provider,
                         const std::string& worker, int claims_max);
// tried: false returns the claim; no call was made.
EffectState settle(pqxx::transaction_base& tx, const Claim& claim, const Outcome& outcome,
                   bool tried = true);

}  // namespace outbox::ledger
