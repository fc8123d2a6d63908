// SPDX-License-Identifier: Apache-2.0
#include "relay/base/error.h"

namespace relay {

const char* to_string(Fault fault) {
  switch (fault) {
    case Fault::message: return "message";
    case Fault::topic: return "topic";
    case Fault::kafka: return "kafka";
    case Fault::postgres: return "postgres";
    case Fault::usage: return "usage";
    case Fault::refused: return "refused";
    case Fault::fenced: return "fenced";
    case Fault::absent: return "absent";
  }
  return "unknown";
}

int exit_code(Fault fault) {
  switch (fault) {
    case Fault::message:
    case Fault::topic:
    case Fault::absent: return 1;
    case Fault::usage: return 2;
    case Fault::postgres: return 3;
    case Fault::kafka: return 4;
    case Fault::refused: return 5;
    case Fault::fenced: return 6;
  }
  return 1;
}

std::string Error::text() const { return hint.empty() ? what : what + "\nHINT: " + hint; }

}  // namespace relay
