// SPDX-License-Identifier: Apache-2.0
#include "tests/support/bench_main.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <type_traits>

namespace relay::test {
namespace {

void add(CLI::App& app, const BenchOption& o) {
  std::visit(
      [&](auto* value) {
        if constexpr (std::is_same_v<decltype(value), bool*>) {
          app.add_flag(o.name, *value, o.text);
        } else {
          CLI::Option* option = app.add_option(o.name, *value, o.text)->capture_default_str();
          if (!o.one_of.empty()) option->check(CLI::IsMember(o.one_of));
        }
      },
      o.value);
}

}  // namespace

int bench_main(int argc, char** argv, const char* name, const char* description,
               const std::vector<BenchOption>& options, const std::function<void()>& run) {
  CLI::App app(description, name);
  for (const BenchOption& o : options) add(app, o);
  CLI11_PARSE(app, argc, argv);
  try {
    run();
  } catch (const std::exception& e) {
    std::cerr << name << ": " << e.what() << '\n';
    return 1;
  }
  return 0;
}

}  // namespace relay::test
