// SPDX-License-Identifier: Apache-2.0
#include "relay/config/reference.h"

#include <spdlog/fmt/fmt.h>

#include <sstream>

#include "relay/base/secret_format.h"
#include "relay/config/kafka_properties.h"
#include "relay/config/options.h"
#include "relay/config/parse.h"

namespace relay::config {
namespace {

constexpr std::size_t page_width = 100;

// Breaks `text` between words, so that no line with its prefix is wider than page_width where that
// is possible.
std::string wrap(std::string_view text, std::string_view prefix) {
  std::istringstream words{std::string(text)};
  std::string out;
  std::string line(prefix);
  for (std::string word; words >> word;) {
    if (line.size() > prefix.size() && line.size() + 1 + word.size() > page_width) {
      out += line + "\n";
      line = prefix;
    }
    if (line.size() > prefix.size()) line += ' ';
    line += word;
  }
  return out + line + "\n";
}

// Prose for Markdown: `<name>` must not become HTML, nor `*` emphasis.
std::string markdown(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '<' || c == '*') out += '\\';
    out += c;
  }
  return wrap(out, "");
}

// The default as written in a file; for an option without a default, the example.
std::string value_in_file(const Option& option) {
  if (option.standard.empty()) return std::string(option.example);
  const bool plain = option.type == Type::integer || option.type == Type::boolean;
  return plain ? std::string(option.standard) : fmt::format("\"{}\"", option.standard);
}

std::string type_and_range(const Option& option) {
  const std::string range = range_text(option);
  return range.empty() ? type_name(option) : fmt::format("{}, {}", type_name(option), range);
}

template <class Each>
void for_options_of(const Section& section, Each each) {
  for (const Option& option : options()) {
    if (option.section == section.name) each(option);
  }
}

std::string default_cell(const Option& option) {
  if (option.required) return "**required**";
  if (!option.standard.empty()) return fmt::format("`{}`", value_in_file(option));
  return option.derived.empty() ? "none" : fmt::format("`{}`", option.derived);
}

constexpr std::string_view markdown_head =
    R"(<!-- Generated from relay/config/options.cpp by the unit tests; do not edit. -->
# Configuration

The relay reads the file that `--config FILE` names. Without `--config` it reads
`/etc/outbox-relay/relay.toml` or, if that does not exist, `./relay.toml`. The file is TOML. Every
option can also be set in the environment, as `OUTBOX_RELAY_<SECTION>_<KEY>`, which takes
precedence over the file. No file is needed if the environment sets all required options. All
errors of both are reported at once, each with its position and a hint.

* **Durations** are integers with a unit: `ms`, `s`, `m`, `h`, `d`. **Sizes** are integers with a
  unit: `B`, `KiB`, `MiB`, `GiB`, or decimal `kB`, `MB`, `GB`. There is no space before the unit,
  and there is no default unit.
* **Lists** are TOML arrays of strings, or one string with commas. In the environment they are one
  string with commas: `OUTBOX_RELAY_TOPICS_ALLOW="orders,shop.*"`. There, `\,` is a comma that
  belongs to a value, and `\\` a backslash.
* **A variable that is set but empty** counts as not set. A variable that resembles an option but
  is none is an error.
* **Secrets** are not accepted in the file. Put them into a file of their own (`password_file`) or
  into the environment. One newline at the end of a password file is not part of the secret. A
  password file that every user of the machine can read is refused; secrets mounted by Kubernetes
  need `defaultMode: 0440` and an `fsGroup`.
* **A password file belongs to the `dsn` beside it.** Where the environment sets a `dsn`, the
  `password_file` of the file is not used: an administrator can run `init` as
  `OUTBOX_RELAY_POSTGRES_DSN="host=… user=postgres" outbox-relay init`, with a password from
  `PGPASSWORD`, `~/.pgpass`, `OUTBOX_RELAY_POSTGRES_PASSWORD_FILE` or the `dsn` itself. In the same
  way, `sasl.password` in the environment replaces `kafka.password_file` of the file.
* **Reloadable** options take effect in a running relay, without a restart, when it receives SIGHUP.

)";

constexpr std::string_view toml_head = R"(# Configuration of the outbox relay.
#
# Each option is commented out at its default. Options marked REQUIRED have no default and must be
# set. Each option can also be set in the environment, under the name given, which takes precedence
# over this file. Passwords are not accepted here: see password_file. `outbox-relay config --check
# FILE` reports all errors at once.
#
# Generated from relay/config/options.cpp.
)";

constexpr std::string_view help_head =
    "Configuration: --config FILE, else /etc/outbox-relay/relay.toml, else ./relay.toml. Every "
    "option\ncan be set in the environment as OUTBOX_RELAY_<SECTION>_<KEY>, which takes precedence "
    "over the file.\n";

// As a basic string of TOML.
std::string toml_text(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') out += fmt::format("\\{}", c);
    else if (byte < 0x20 || byte == 0x7F) out += fmt::format("\\u{:04x}", byte);
    else out += c;
  }
  return out + "\"";
}

// The effective value; empty: not set.
std::string value_of(const Option& option, Config& config) {
  return std::visit(
      [&](const auto& member) -> std::string {
        using M = std::decay_t<decltype(member)>;
        if constexpr (std::is_same_v<M, std::monostate>) {
          return "";
        } else if constexpr (std::is_same_v<M, ChoiceMember>) {
          return toml_text(std::string(option.choices[member.get(config)]));
        } else {
          const auto& value = member(config);
          using V = std::decay_t<decltype(value)>;
          if constexpr (std::is_same_v<V, Secret>) {
            return value.empty() ? "" : "\"***\"";
          } else if constexpr (std::is_same_v<V, std::string>) {
            return value.empty() ? "" : toml_text(value);
          } else if constexpr (std::is_same_v<V, Millis>) {
            return toml_text(format_duration(value));
          } else if constexpr (std::is_same_v<V, std::vector<std::string>>) {
            std::vector<std::string> entries;
            for (const std::string& entry : value) entries.push_back(toml_text(entry));
            return entries.empty() ? "" : fmt::format("[{}]", fmt::join(entries, ", "));
          } else if constexpr (std::is_same_v<V, std::int64_t>) {
            return option.type == Type::size ? toml_text(format_size(value))
                                             : fmt::format("{}", value);
          } else {
            return fmt::format("{}", value);
          }
        }
      },
      option.member);
}

}  // namespace

std::string annotated_toml() {
  std::string out(toml_head);
  for (const Section& section : sections()) {
    out += "\n" + wrap(section.help, "# ") + fmt::format("[{}]\n", section.name);
    for_options_of(section, [&](const Option& option) {
      out += "\n" + wrap((option.required ? "REQUIRED. " : "") + help_of(option), "# ");
      out += wrap(fmt::format("{}; {}", type_and_range(option), environment_name(option)), "# - ");
      if (option.type == Type::properties)
        out += fmt::format("#[{}]\n#{}\n", full_name(option), option.example);
      else out += fmt::format("#{} = {}\n", option.key, value_in_file(option));
    });
  }
  return out;
}

std::string reference_markdown() {
  std::string out(markdown_head);
  for (const Section& section : sections()) {
    out += fmt::format("## [{}]\n\n{}\n", section.name, section.help);
    for_options_of(section, [&](const Option& option) {
      out += fmt::format("\n### {}\n\n{}\n", full_name(option), markdown(help_of(option)));
      out += "| environment | value | default | reloadable |\n| --- | --- | --- | --- |\n";
      out +=
          fmt::format("| `{}` | {} | {} | {} |\n", environment_name(option), type_and_range(option),
                      default_cell(option), option.reloadable ? "yes" : "no");
      if (option.standard.empty() && option.type != Type::properties) {
        out += fmt::format("\nExample: `{} = {}`\n", option.key, option.example);
      }
    });
    out += "\n";
  }
  out += "## Properties of librdkafka that the relay sets\n\n";
  out +=
      "They are refused in `kafka.properties`. Secrets, such as `sasl.password` or "
      "`ssl.key.password`, are\nrefused there too when they are in the file.\n\n";
  return out + "| property | reason |\n| --- | --- |\n" + owned_properties_markdown();
}

std::string help_text() {
  std::string out(help_head);
  for (const Section& section : sections()) {
    out += fmt::format("\n[{}]\n", section.name);
    for_options_of(section, [&](const Option& option) {
      out += fmt::format("  {} ({}){}\n", option.key, type_and_range(option),
                         option.required ? ", required" : "");
      out += wrap(help_of(option), "      ");
    });
  }
  return out;
}

std::string effective_toml(const Config& config) {
  Config copy = config;  // the table's accessors are for writing as well
  std::string out;
  for (const Section& section : sections()) {
    out += fmt::format("{}[{}]\n", out.empty() ? "" : "\n", section.name);
    for_options_of(section, [&](const Option& option) {
      if (const std::string value = value_of(option, copy); !value.empty())
        out += fmt::format("{} = {}\n", option.key, value);
    });
    if (section.name != "kafka") continue;
    if (!config.kafka.properties.empty() || !config.kafka.secret_properties.empty())
      out += "\n[kafka.properties]\n";
    for (const auto& [name, value] : config.kafka.properties)
      out += fmt::format("{} = {}\n", toml_text(name), toml_text(value));
    for (const auto& [name, value] : config.kafka.secret_properties)
      out += fmt::format("{} = \"{}\"\n", toml_text(name), value);
  }
  return out;
}

}  // namespace relay::config
