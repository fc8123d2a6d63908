// SPDX-License-Identifier: Apache-2.0
// How the help of the commands looks.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace outbox {

// Description, usage, arguments, options, commands, footer; no line wider than 100 columns. A line of the description or the
// footer that begins with a blank is kept as it is.
class HelpFormatter : public CLI::FormatterBase {
 public:
  std::string make_help(const CLI::App* app, std::string name, CLI::AppFormatMode mode) const override;
};

}  // namespace outbox
