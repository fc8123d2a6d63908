// SPDX-License-Identifier: Apache-2.0
#include "relay/config/options.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>

#include "common/check.h"
#include "relay/config/dsn.h"
#include "relay/config/errors.h"
#include "relay/config/parse.h"
#include "relay/config/secret_file.h"

namespace relay::config {
namespace {

// The member `key` of the section `part`: at<&Config::poll, &Config::Poll::idle>.
template <auto part, auto key>
auto& at(Config& config) {
  return (config.*part).*key;
}

// The same for an enum, whose values are in the order of the option's choices.
template <auto part, auto key>
constexpr ChoiceMember choice() {
  return ChoiceMember{[](Config& c, std::size_t i) {
                        (c.*part).*key = static_cast<std::decay_t<decltype((c.*part).*key)>>(i);
                      },
                      [](const Config& c) { return static_cast<std::size_t>((c.*part).*key); }};
}

constexpr std::int64_t kib = 1 << 10;
constexpr std::int64_t mib = 1 << 20;
constexpr std::int64_t second = 1'000;
constexpr std::int64_t minute = 60 * second;
constexpr std::int64_t hour = 60 * minute;
constexpr std::int64_t day = 24 * hour;

constexpr std::string_view modes[] = {to_string(Mode::exactly_once),
                                      to_string(Mode::at_least_once)};
constexpr std::string_view orders[] = {to_string(KeyOrder::key), to_string(KeyOrder::message)};
constexpr std::string_view on_lost_progress[] = {to_string(OnLostProgress::resend),
                                                 to_string(OnLostProgress::stop)};
constexpr std::string_view poolers[] = {"none", "transaction"};
constexpr std::string_view formats[] = {"text", "json"};
constexpr std::string_view levels[] = {"debug", "info", "warn", "error"};

constexpr Section all_sections[] = {
    {"relay", "Name and delivery mode of this relay."},
    {"postgres", "The database that holds the outbox."},
    {"consumer", "The database that holds the inbox and the effect ledger."},
    {"kafka", "The cluster that receives the messages."},
    {"topics", "The topics that the relay writes to."},
    {"delivery",
     "Order, and the limits of a batch. The limits also bound the memory of the relay."},
    {"poll",
     "How the relay polls the outbox. While messages are pending it polls without waiting."},
    {"lease", "Which of several instances of one relay is active."},
    {"retention",
     "How long delivered messages stay in the outbox. Messages that are not delivered are never "
     "deleted."},
    {"log", "Events, one per line, on standard error."},
};

// clang-format off
const Option all_options[] = {
    {.section = "relay", .key = "name", .member = at<&Config::relay, &Config::Relay::name>,
     .standard = "main", .check = check_relay_name,
     .help = "The name of the relay. It is part of transactional.id (outbox-relay.<name>) and of "
             "the default name of the progress topic. Two outboxes that share a Kafka cluster "
             "need two names; all instances of one relay have the same name. 1 to 64 of a-z, 0-9, "
             "'.', '_', '-'."},
    {.section = "relay", .key = "mode", .type = Type::choice,
     .member = choice<&Config::relay, &Config::Relay::mode>(), .standard = modes[0],
     .choices = modes,
     .help = "exactly-once: each batch is one Kafka transaction, and a consumer with "
             "isolation.level=read_committed reads each message once. at-least-once: no "
             "transactions and less latency; after a failure, messages of the batch in doubt can "
             "be delivered again, with the same deduplication keys."},

    {.section = "postgres", .key = "dsn", .member = at<&Config::postgres, &Config::Postgres::dsn>,
     .example = R"("host=/var/run/postgresql dbname=shop user=relay")", .check = check_dsn,
     .required = true, .secret = true,
     .help = "Connection string or URI of the database, as libpq accepts it. Put the password "
             "into password_file; a password in the dsn is accepted only from the environment."},
    {.section = "postgres", .key = "password_file", .type = Type::secret_file,
     .member = at<&Config::postgres, &Config::Postgres::password>,
     .example = R"("/etc/outbox-relay/postgres.password")", .secret = true,
     .help = "File that contains the database password and nothing else. It must not be readable "
             "by every user of the machine."},
    {.section = "postgres", .key = "pooler", .type = Type::choice,
     .member = at<&Config::postgres, &Config::Postgres::pooler>, .standard = "none",
     .choices = poolers,
     .help = "Connection pooler between the relay and PostgreSQL. none: no pooler, or a pooler in "
             "session mode. transaction: a pooler in transaction mode, such as pgbouncer, which "
             "can run each transaction on another server connection. The relay then sends its "
             "settings with each statement."},
    {.section = "postgres", .key = "allow_unverified_server", .type = Type::boolean,
     .member = at<&Config::postgres, &Config::Postgres::allow_unverified_server>,
     .standard = "false",
     .help = "Run although the server denies the functions by which the relay detects another "
             "cluster or a former primary. `outbox-relay check` reports which checks are off."},

    {.section = "consumer", .key = "dsn", .member = at<&Config::consumer, &Config::Consumer::dsn>,
     .derived = "postgres.dsn",
     .example = R"("host=/var/run/postgresql dbname=mailer user=operator")", .check = check_dsn,
     .secret = true,
     .help = "Connection string or URI of the consumers' database, which holds the inbox and the "
             "effect ledger. Only the commands `effects` and `trace` use it; the relay does not."},
    {.section = "consumer", .key = "password_file", .type = Type::secret_file,
     .member = at<&Config::consumer, &Config::Consumer::password>,
     .example = R"("/etc/outbox-relay/consumer.password")", .secret = true,
     .help = "File that contains the password for consumer.dsn and nothing else. It must not be "
             "readable by every user of the machine."},

    {.section = "kafka", .key = "brokers", .type = Type::list,
     .member = at<&Config::kafka, &Config::Kafka::brokers>,
     .example = R"(["kafka1:9092", "kafka2:9092"])", .check = check_broker, .required = true,
     .help = "Addresses of some brokers. The relay learns the other brokers from them."},
    {.section = "kafka", .key = "progress_topic",
     .member = at<&Config::kafka, &Config::Kafka::progress_topic>,
     .derived = "outbox-progress.<relay.name>", .example = R"("outbox-progress.main")",
     .check = check_progress_topic_name,
     .help = "Topic that stores the progress records of the relay. `outbox-relay init --kafka` "
             "creates it. Each relay needs a topic of its own. Begins with outbox-progress., so "
             "that no relay sends messages to it."},
    {.section = "kafka", .key = "password_file", .type = Type::secret_file,
     .member = at<&Config::kafka, &Config::Kafka::password>,
     .example = R"("/etc/outbox-relay/kafka.password")", .secret = true,
     .help = "File that contains the SASL password (sasl.password of librdkafka) and nothing "
             "else. It must not be readable by every user of the machine."},
    {.section = "kafka", .key = "properties", .type = Type::properties,
     .example = R"("compression.type" = "lz4")",
     .help = "Properties of librdkafka, such as security.protocol or sasl.mechanism, except those "
             "that the relay sets itself. Secrets are accepted only from the environment. "
             "Properties of the file and of the environment are merged; the environment takes "
             "precedence."},

    {.section = "topics", .key = "allow", .type = Type::list,
     .member = at<&Config::topics, &Config::Topics::allow>, .example = R"(["orders", "shop.*"])",
     .check = check_topic_pattern, .required = true, .reloadable = true,
     .help = "Topics that messages may be sent to: names, prefixes that end in *, or [\"*\"] for "
             "all topics. Every role that can insert into the outbox writes to these topics with "
             "the rights of the relay. A message to another topic is parked."},
    {.section = "topics", .key = "missing_after", .type = Type::duration,
     .member = at<&Config::topics, &Config::Topics::missing_after>, .standard = "5s", .min = 100,
     .max = hour, .reloadable = true,
     .help = "How long a topic that has existed may be missing before its messages are parked: it "
             "is reported missing twice, this long apart, and other messages wait meanwhile. The "
             "messages of a topic that has not existed yet are parked at once, and nobody waits. "
             "Either way they are released within a second of the topic's creation."},

    {.section = "delivery", .key = "order", .type = Type::choice,
     .member = choice<&Config::delivery, &Config::Delivery::order>(), .standard = orders[0],
     .choices = orders,
     .help = "What a parked message blocks. key: the later messages of the same topic and key, so "
             "that their order is kept. message: nothing; later messages overtake it. Messages "
             "without a key are never blocked."},
    {.section = "delivery", .key = "on_lost_progress", .type = Type::choice,
     .member = choice<&Config::delivery, &Config::Delivery::on_lost_progress>(),
     .standard = on_lost_progress[0], .choices = on_lost_progress,
     .help = "What to do in exactly-once mode when a batch is in doubt and Kafka has lost the "
             "progress record that decides it. resend: log an error and send the batch again, "
             "which can duplicate it. stop: refuse to continue until an operator decides."},
    {.section = "delivery", .key = "batch_messages_max", .type = Type::integer,
     .member = at<&Config::delivery, &Config::Delivery::batch_messages_max>, .standard = "20000",
     .min = 1, .max = 1'000'000, .reloadable = true,
     .help = "Maximum number of messages of a batch."},
    {.section = "delivery", .key = "batch_bytes_max", .type = Type::size,
     .member = at<&Config::delivery, &Config::Delivery::batch_bytes_max>, .standard = "8MiB",
     .min = 64 * kib, .max = 512 * mib, .reloadable = true,
     .help = "Maximum size of a batch. At least message_bytes_max."},
    {.section = "delivery", .key = "message_bytes_max", .type = Type::size,
     .member = at<&Config::delivery, &Config::Delivery::message_bytes_max>, .standard = "1MiB",
     .min = kib, .max = 128 * mib,
     .help = "A message with a larger payload is parked without being loaded. max.message.bytes "
             "of the topics should be at least this."},

    {.section = "poll", .key = "idle", .type = Type::duration,
     .member = at<&Config::poll, &Config::Poll::idle>, .standard = "20ms", .min = 1,
     .max = 10 * second, .reloadable = true,
     .help = "Longest interval between two polls of an outbox without new messages. It bounds the "
             "latency that polling adds."},

    {.section = "lease", .key = "ttl", .type = Type::duration,
     .member = at<&Config::lease, &Config::Lease::ttl>, .standard = "5s", .min = second,
     .max = 5 * minute,
     .help = "How long after its last renewal the lease of the active instance expires, so that "
             "another instance takes over. The active instance renews it every "
             "third of this time."},

    {.section = "retention", .key = "keep", .type = Type::duration,
     .member = at<&Config::retention, &Config::Retention::keep>, .standard = "24h", .min = minute,
     .max = 3650 * day, .reloadable = true,
     .help = "How long delivered messages are kept, for `trace` and `replay`."},
    {.section = "retention", .key = "prune_rows_per_second", .type = Type::integer,
     .member = at<&Config::retention, &Config::Retention::prune_rows_per_second>,
     .standard = "20000", .min = 1, .max = 10'000'000, .reloadable = true,
     .help = "Maximum number of rows that retention deletes per second. It must exceed the rate "
             "of new messages, or the outbox grows."},

    {.section = "log", .key = "format", .type = Type::choice,
     .member = choice<&Config::log, &Config::Log::format>(), .standard = formats[0],
     .choices = formats,
     .help = "text: one line of name=value pairs. json: one JSON object per line."},
    {.section = "log", .key = "level", .type = Type::choice,
     .member = choice<&Config::log, &Config::Log::level>(), .standard = "info", .choices = levels,
     .reloadable = true,
     .help = "Events below this level are dropped."},
};
// clang-format on

// The alternative of `option.member` that its type requires; a mismatch is an error in the table.
template <class T>
T& member(const Option& option, Config& config) {
  const auto access = std::get_if<T& (*)(Config&)>(&option.member);
  CHECK(access != nullptr);
  return (*access)(config);
}

Result<void> check_range(const Option& option, std::int64_t value) {
  if (value >= option.min && value <= option.max) return {};
  return usage_error("is out of range", fmt::format("the range is {}.", range_text(option)));
}

Result<void> assign_choice(const Option& option, const std::string& text, Config& config) {
  const auto found = std::find(option.choices.begin(), option.choices.end(), text);
  if (found == option.choices.end()) {
    const auto meant = nearest(text, {option.choices.begin(), option.choices.end()});
    const std::string choices = fmt::format("the choices are {}.", fmt::join(option.choices, ", "));
    return usage_error("is not one of the choices",
                       meant ? fmt::format("did you mean \"{}\"? {}", *meant, choices) : choices);
  }
  if (const auto* by_index = std::get_if<ChoiceMember>(&option.member)) {
    by_index->set(config, static_cast<std::size_t>(found - option.choices.begin()));
  } else {
    member<std::string>(option, config) = text;
  }
  return {};
}

Result<void> assign_text(const Option& option, const std::string& text, Config& config) {
  if (text.find('\0') != std::string::npos)
    return usage_error("contains a zero byte", "remove it.");
  if (option.check != nullptr) {
    if (auto good = option.check(text); !good) return good;
  }
  if (option.secret) member<Secret>(option, config) = Secret(text);
  else member<std::string>(option, config) = text;
  return {};
}

// Parses with `parse`, checks the range, stores.
template <class T, class Number>
Result<void> assign_number(const Option& option, Result<Number> parsed, Config& config) {
  if (!parsed) return parsed.error();
  std::int64_t plain = 0;
  if constexpr (std::is_same_v<Number, Millis>) plain = (*parsed).count();
  else plain = *parsed;
  if (auto good = check_range(option, plain); !good) return good;
  member<T>(option, config) = *parsed;
  return {};
}

}  // namespace

std::span<const Option> options() { return all_options; }
std::span<const Section> sections() { return all_sections; }

Result<void> assign(const Option& option, const std::string& text, Config& config) {
  switch (option.type) {
    case Type::text: return assign_text(option, text, config);
    case Type::choice: return assign_choice(option, text, config);
    case Type::integer: return assign_number<std::int64_t>(option, parse_integer(text), config);
    case Type::duration: return assign_number<Millis>(option, parse_duration(text), config);
    case Type::size: return assign_number<std::int64_t>(option, parse_size(text), config);
    case Type::boolean: {
      const auto parsed = parse_boolean(text);
      if (!parsed) return parsed.error();
      member<bool>(option, config) = *parsed;
      return {};
    }
    case Type::secret_file: {
      auto secret = read_secret_file(text);
      if (!secret) return secret.error();
      member<Secret>(option, config) = *std::move(secret);
      return {};
    }
    case Type::list:
    case Type::properties: break;
  }
  CHECK(false);  // the caller broke REQUIRES
  return {};
}

Result<void> check_entry(const Option& option, const std::string& entry) {
  CHECK(option.type == Type::list && option.check != nullptr);
  return option.check(entry);
}

}  // namespace relay::config
