// SPDX-License-Identifier: Apache-2.0
// Why connections to brokers fail. librdkafka's error codes are the same for a wrong port, name,
// certificate and password; the reason stands in its log alone. There is one cluster for each
// process, and one last reason. Thread-safe.
#pragma once

#include <string>

namespace relay::kafka {

// A line of librdkafka's log, of the facility FAIL.
void note_connection_failure(const std::string& line);

// The address and the reason of the last failure, without what changes from one to the next; empty:
// there was none of late.
std::string connection_failure();

}  // namespace relay::kafka
