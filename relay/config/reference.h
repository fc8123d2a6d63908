// SPDX-License-Identifier: Apache-2.0
// The documentation of the configuration, generated from the table of options. A unit test fails
// when a generated file is stale; with OUTBOX_REGENERATE=1 in the environment it writes the file.
#pragma once

#include <string>

#include "relay/config/config.h"

namespace relay::config {

// config/relay.toml: every option with its meaning, commented out at its default.
std::string annotated_toml();

// docs/configuration.md
std::string reference_markdown();

// The options for --help, at most 100 columns wide.
std::string help_text();

// `config` as TOML, every option at its effective value; secrets as "***".
std::string effective_toml(const Config& config);

}  // namespace relay::config
