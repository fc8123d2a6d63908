// SPDX-License-Identifier: Apache-2.0
// What the program says about its own configuration, made from the table of options; a test keeps the files in step.
#pragma once

#include <string>

#include "relay/config/config.h"

namespace outbox::config {

// config/relay.toml: every option with its meaning, commented out at its default.
std::string annotated_toml();

// docs/configuration.md
std::string reference_markdown();

// The options for --help, at most 100 columns wide.
std::string help_text();

// `config` as TOML, every option at the value in force; secrets as "***".
std::string effective_toml(const Config& config);

}  // namespace outbox::config
