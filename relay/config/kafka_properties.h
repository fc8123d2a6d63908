// SPDX-License-Identifier: Apache-2.0
// Which properties of librdkafka a user may set.
#pragma once

#include <string>
#include <string_view>

#include "relay/base/error.h"

namespace relay::config {

// The errors below are what follows the name of the property in a sentence.

// Whether the property holds a secret, by its name.
bool is_secret_property(std::string_view name);

// An error if the relay sets the property itself (with the reason), or if librdkafka does not
// accept the name or the value. The text never quotes the value of a secret property.
Result<void> check_property(const std::string& name, const std::string& value);

// An error if the property is a secret, which a configuration file must not contain.
Result<void> check_property_in_file(std::string_view name);

// The list of refused properties with their reasons, as the rows of a Markdown table.
std::string owned_properties_markdown();

}  // namespace relay::config
