// SPDX-License-Identifier: Apache-2.0
// Files of the repository that are generated from the program.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

namespace relay::test {

// Fails if `file`, a path within the repository, is stale. With OUTBOX_REGENERATE in the
// environment, writes it instead.
inline void expect_current(const std::string& file, const std::string& wanted) {
  const std::string path = std::string(OUTBOX_SOURCE_DIR) + "/" + file;
  if (std::getenv("OUTBOX_REGENERATE") != nullptr) std::ofstream(path, std::ios::binary) << wanted;
  std::ostringstream found;
  found << std::ifstream(path, std::ios::binary).rdbuf();
  EXPECT_TRUE(found.str() == wanted)
      << file << " is stale: run this test with OUTBOX_REGENERATE=1 and check the difference";
}

}  // namespace relay::test
