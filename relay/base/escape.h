// SPDX-License-Identifier: Apache-2.0
// Text from outside, made safe for a log line, a message or a terminal.
#pragma once

#include <string>
#include <string_view>

namespace relay {

enum class Escape {
  line,    // the result is one line
  lines,   // line feeds and tabs are kept
  quoted,  // as `line`, with a backslash before " and \, so that double quotes can enclose the
           // result
};

// Replaces control characters (C0, DEL and C1, which terminals obey) and bytes that are not UTF-8:
// line feed, tab and carriage return by \n, \t and \r, any other byte by \xNN.
std::string escape(std::string_view text, Escape how = Escape::line);

}  // namespace relay
