// SPDX-License-Identifier: Apache-2.0
// Default implementation of Provider::lookup().
#include "outbox/provider.h"

namespace outbox {
inline namespace v1 {

Outcome Provider::lookup(const Request&, Deadline) {
  Outcome outcome;
  outcome.error = "the adapter does not support lookups. HINT: check supports_lookup() first";
  return outcome;
}

}  // namespace v1
}  // namespace outbox
