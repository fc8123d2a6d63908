// SPDX-License-Identifier: Apache-2.0
#include "relay/config/loader.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "common/check.h"
#include "relay/config/dsn.h"
#include "relay/config/kafka_properties.h"
#include "relay/config/parse.h"

namespace relay::config {
namespace {

constexpr std::string_view environment_prefix = "OUTBOX_RELAY_";

// Kubernetes puts OUTBOX_RELAY_KAFKA_SERVICE_HOST and the like into every pod beside a service
// named outbox-relay-kafka.
bool is_service_link(std::string_view name) {
  return name.find("_SERVICE_HOST") != std::string_view::npos ||
         name.find("_SERVICE_PORT") != std::string_view::npos ||
         name.find("_PORT_") != std::string_view::npos || name.ends_with("_PORT");
}

// In place of the file that errors name.
Position without_file() {
  return Position{
      fmt::format("no configuration file ({}, {})", default_files[0], default_files[1])};
}

// "OUTBOX_RELAY_NAME" of relay.name.
std::string without_section(const Option& option) {
  std::string name = environment_name(option);
  return name.erase(environment_prefix.size(), option.section.size() + 1);
}

// The option that the unknown variable `name` probably means. nullopt: it is not an option of the
// relay; "": it looks like one, but no option is similar.
std::optional<std::string> meant_by(std::string_view name) {
  std::vector<std::string> known;
  bool ours = false;
  for (const Option& option : options()) {
    known.push_back(environment_name(option));
    const auto end = known.back().size() - option.key.size();
    ours = ours || name.starts_with(std::string_view(known.back()).substr(0, end));
    // A name without its section is too far from the whole name to be found by its letters.
    if (name == without_section(option)) return known.back();
  }
  auto near = nearest(name, known);
  if (!near && ours) return "";
  return near;
}

std::pair<std::string, std::string> split_property(const std::string& entry) {
  const auto equals = entry.find('=');
  if (equals == std::string::npos) return {entry, ""};
  const auto name_end = entry.find_last_not_of(" \t", equals == 0 ? 0 : equals - 1);
  const auto value_begin = entry.find_first_not_of(" \t", equals + 1);
  return {entry.substr(0, std::min(name_end + 1, equals)),
          value_begin == std::string::npos ? "" : entry.substr(value_begin)};
}

}  // namespace

void Loader::read_environment(const Environment& environment) {
  std::set<std::string> known;
  for (const Option& option : options()) {
    const std::string name = environment_name(option);
    known.insert(name);
    const auto found = environment.find(name);
    if (found == environment.end() || found->second.empty()) continue;
    const Position position{name};
    if (option.type == Type::list) {
      Entries entries;
      for (std::string& entry : split_list(found->second))
        entries.emplace_back(std::move(entry), position);
      store_list(option, entries, position);
    } else if (option.type == Type::properties) {
      read_property_list(option, found->second, position);
    } else {
      store(option, found->second, position);
    }
  }
  for (const auto& [name, value] : environment) {
    if (!name.starts_with(environment_prefix) || known.contains(name) || is_service_link(name))
      continue;
    const auto meant = meant_by(name);
    if (!meant) continue;
    errors_.add(Position{name}, "no option has this name",
                meant->empty() ? "see `outbox-relay config --defaults` for the names."
                               : fmt::format("did you mean {}?", *meant));
  }
}

// A comma that is not escaped splits a password. What follows a secret is therefore quoted only if
// it is a valid property.
void Loader::read_property_list(const Option& option, const std::string& list,
                                const Position& position) {
  bool after_secret = false;
  for (const std::string& entry : split_list(list)) {
    const auto [name, value] = split_property(entry);
    const bool complete = entry.find('=') != std::string::npos && !name.empty();
    if (after_secret && !(complete && check_property(name, value))) {
      reject(
          option, position, "the entry after a secret is not name=value of an accepted property",
          R"(write a comma inside a value as \, and put the secret last to identify the entry.)");
    } else if (!complete) {
      reject(option, position, "an entry is not name=value",
             R"(write "a=b,c=d", and a comma inside a value as \,.)");
    } else {
      store_property(option, name, value, position);
    }
    after_secret = after_secret || is_secret_property(name);
  }
}

void Loader::reject(const Option& option, const Position& position, const std::string& what,
                    const std::string& hint) {
  bad_.insert(&option);
  errors_.add(position, fmt::format("{}: {}", full_name(option), what), hint);
}

// A password belongs to the connection that its own source describes: that of the file is not for
// the login that the environment names, an administrator's for example.
void Loader::drop_password_file(std::string_view section) {
  const auto given = given_.find(find(section, "password_file"));
  if (given == given_.end() || !given->second.in_file()) return;
  secret_files_.erase(given->first);
  given_.erase(given);
}

// Only those that are still in force: the others need not be readable.
void Loader::read_secret_files() {
  for (const auto& [option, path] : secret_files_) {
    if (auto stored = assign(*option, path, config_); !stored) {
      reject(*option, given_.at(option), stored.error().what, stored.error().hint);
    }
  }
}

void Loader::store(const Option& option, const std::string& text, const Position& position) {
  given_[&option] = position;
  if (option.type == Type::secret_file) {
    secret_files_[&option] = text;
    return;
  }
  if (option.key == "dsn" && !position.in_file()) drop_password_file(option.section);
  if (auto stored = assign(option, text, config_); !stored) {
    const bool plain = option.type == Type::integer || option.type == Type::boolean;
    const std::string value = option.secret ? "the value" : plain ? text : in_quotes(text);
    reject(option, position, fmt::format("{} {}", value, stored.error().what), stored.error().hint);
    return;
  }
  if (option.key == "dsn" && position.in_file() && has_password(text)) {
    reject(option, position, "the value contains a password, which is not accepted in this file",
           fmt::format("put the password into a file of its own and set {}.password_file to the "
                       "path, or set {}.",
                       option.section, environment_name(option)));
  }
}

void Loader::store_list(const Option& option, const Entries& entries, const Position& position) {
  given_[&option] = position;
  std::vector<std::string> values;
  for (const auto& [entry, entry_position] : entries) {
    if (auto checked = check_entry(option, entry); !checked) {
      reject(option, entry_position, fmt::format("{} {}", in_quotes(entry), checked.error().what),
             checked.error().hint);
    }
    values.push_back(entry);
  }
  if (values.empty())
    return reject(option, position, "the list is empty",
                  fmt::format("write {} = {}", option.key, option.example));
  const auto* access = std::get_if<std::vector<std::string>& (*)(Config&)>(&option.member);
  CHECK(access != nullptr);
  (*access)(config_) = std::move(values);
}

void Loader::store_property(const Option& option, const std::string& name, const std::string& value,
                            const Position& position) {
  given_[&option] = position;
  auto checked = position.in_file() ? check_property_in_file(name) : Result<void>{};
  if (checked) checked = check_property(name, value);
  if (!checked)
    return reject(option, position, fmt::format("{} {}", in_quotes(name), checked.error().what),
                  checked.error().hint);
  if (name == "sasl.password" && !position.in_file()) drop_password_file("kafka");
  properties_[name] = Property{value, position};
}

bool Loader::good(std::string_view section, std::string_view key) const {
  return !bad_.contains(find(section, key));
}

Position Loader::position_of(std::string_view section, std::string_view key) const {
  const auto found = given_.find(find(section, key));
  if (found != given_.end()) return found->second;
  return file_.empty() ? without_file() : Position{file_};
}

void Loader::check_required(Required required) {
  if (!file_is_known_) return;
  for (const Option& option : options()) {
    if (!option.required || given_.contains(&option)) continue;
    if (required == Required::postgres && option.section != "postgres") continue;
    const auto section = sections_.find(option.section);
    Position position = file_.empty() ? without_file() : Position{file_, 1, 1};
    if (section != sections_.end()) position = section->second;
    errors_.add(position, fmt::format("{} is missing; it is required", full_name(option)),
                fmt::format("write {} = {} under [{}], or set {}.", option.key, option.example,
                            option.section, environment_name(option)));
  }
}

void Loader::check_passwords() {
  const auto check_twice = [this](const std::string& section, const Secret& dsn,
                                  const Secret& password) {
    if (password.empty() || !good(section, "dsn") || !has_password(dsn.reveal())) return;
    errors_.add(position_of(section, "password_file"),
                fmt::format("{0}.password_file: {0}.dsn contains a password as well", section),
                "set only one of them.");
  };
  check_twice("postgres", config_.postgres.dsn, config_.postgres.password);
  check_twice("consumer", config_.consumer.dsn, config_.consumer.password);
  if (!config_.kafka.password.empty() && properties_.contains("sasl.password")) {
    errors_.add(position_of("kafka", "password_file"),
                "kafka.password_file: kafka.properties sets sasl.password as well",
                "set only one of them.");
  }
}

void Loader::check_sizes() {
  const auto& delivery = config_.delivery;
  if (!good("delivery", "message_bytes_max") || !good("delivery", "batch_bytes_max")) return;
  if (delivery.message_bytes_max <= delivery.batch_bytes_max) return;
  const bool message_is_set = given_.contains(find("delivery", "message_bytes_max"));
  errors_.add(
      position_of("delivery", message_is_set ? "message_bytes_max" : "batch_bytes_max"),
      fmt::format("delivery.message_bytes_max ({}) is larger than delivery.batch_bytes_max ({})",
                  format_size(delivery.message_bytes_max), format_size(delivery.batch_bytes_max)),
      "the largest message must fit a batch: raise batch_bytes_max or lower message_bytes_max.");
}

// Without consumer.dsn, the consumers' database is the database of the outbox.
void Loader::resolve_consumer() {
  if (given_.contains(find("consumer", "dsn"))) return;
  if (given_.contains(find("consumer", "password_file"))) {
    errors_.add(position_of("consumer", "password_file"),
                "consumer.password_file is set, and consumer.dsn is not", "set consumer.dsn.");
  }
  config_.consumer = {config_.postgres.dsn, config_.postgres.password};
}

void Loader::resolve_topics() {
  std::string& progress = config_.kafka.progress_topic;
  if (!given_.contains(find("kafka", "progress_topic")))
    progress = "outbox-progress." + config_.relay.name;
  const auto& allow = config_.topics.allow;
  if (std::find(allow.begin(), allow.end(), progress) == allow.end()) return;
  errors_.add(
      position_of("topics", "allow"),
      fmt::format("topics.allow: {} is the relay's own progress topic", in_quotes(progress)),
      "remove it: the relay would read a message there as a progress record.");
}

void Loader::resolve_properties() {
  for (const auto& [name, property] : properties_) {
    if (is_secret_property(name))
      config_.kafka.secret_properties.emplace_back(name, Secret(property.value));
    else config_.kafka.properties.emplace_back(name, property.value);
  }
  for (auto& [name, property] : properties_) wipe(property.value);
}

Result<Config> Loader::finish(Required required) && {
  read_secret_files();
  check_required(required);
  check_passwords();
  check_sizes();
  resolve_consumer();
  resolve_topics();
  resolve_properties();
  if (!errors_.empty()) return std::move(errors_).error();
  config_.file = file_;
  return std::move(config_);
}

}  // namespace relay::config
