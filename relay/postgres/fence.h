// SPDX-License-Identifier: Apache-2.0
// The first part of every write of the relay: sql/relay/fence.sql, a row with the epoch if the
// lease is ours, else none, and then the statement writes nothing.
#pragma once

#include <string>

namespace relay::postgres {

// The statement `sql`, which includes the fence. The row lock makes a take-over wait for a write
// under way, and then see it; a mutant compares the epoch without it.
std::string fenced(std::string sql);

// The fence of a write that renews the lease as well, and so locks the row by writing it; `ttl` is
// a parameter.
std::string renewing_fence(const char* ttl);

}  // namespace relay::postgres
