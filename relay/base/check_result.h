// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace relay {

// Something that `check` has to say, complete in itself like an Error.
enum class Severity {
  note,         // good to know; breaks no guarantee
  finding,      // would break a guarantee, or park messages
  unreachable,  // could not be looked at
  refused,      // `run` would refuse
};

struct CheckResult {
  Severity severity;
  std::string about;  // PostgreSQL, Kafka, or "topic NAME"
  std::string what;
  std::string hint;
};

}  // namespace relay
