// SPDX-License-Identifier: Apache-2.0
// The main() of a benchmark.
//
// CLI11 is included by bench_main.cpp alone: it takes a compiler seconds for each file that does.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <variant>
#include <vector>

namespace relay::test {

struct BenchOption {
  const char* name;  // with its dashes
  // Where the value goes, and its default. A bool is a flag.
  std::variant<bool*, int*, std::int64_t*, std::size_t*, std::string*, std::vector<std::string>*,
               std::map<std::string, std::string>*>
      value;
  const char* text = "";
  std::vector<std::string> one_of = {};  // the values that are taken; empty: any
};

// Parses the options, calls `run` and returns the program's exit code. What `run` throws is
// printed, and the code is 1.
int bench_main(int argc, char** argv, const char* name, const char* description,
               const std::vector<BenchOption>& options, const std::function<void()>& run);

}  // namespace relay::test
