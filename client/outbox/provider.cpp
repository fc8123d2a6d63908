// SPDX-License-Identifier: Apache-2.0
#include "outbox/provider.h"

namespace outbox {
inline namespace v1 {

Outcome Provider::lookup(const Request&, Deadline) {
  Outcome outcome;
  outcome.error = "this provider cannot be asked. HINT: look at supports_lookup() before";
  return outcome;
}

}  // namespace v1
}  // namespace outbox
