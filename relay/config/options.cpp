// SPDX-License-Identifier: Apache-2.0
#include "relay/config/options.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>

#include "relay/base/check.h"
#include "relay/config/dsn.h"
#include "relay/config/secret_file.h"
#include "relay/config/value.h"

namespace outbox::config {
namespace {

// The member `key` of the section `part`: at<&Config::poll, &Config::Poll::idle>.
template <auto part, auto key>
auto& at(Config& config) {
  return (config.*part).*key;
}

// The same for an enum, whose values are in the order of the option's choices.
template <auto part, auto key>
constexpr ChoiceMember choice() {
  return ChoiceMember{
      [](Config& c, std::size_t i) { (c.*part).*key = static_cast<std::decay_t<decltype((c.*part).*key)>>(i); },
      [](const Config& c) { return static_cast<std::size_t>((c.*part).*key); }};
}

constexpr std::int64_t kKiB = 1 << 10;
constexpr std::int64_t kMiB = 1 << 20;
constexpr std::int64_t kSecond = 1'000;
constexpr std::int64_t kMinute = 60 * kSecond;
constexpr std::int64_t kHour = 60 * kMinute;
constexpr std::int64_t kDay = 24 * kHour;

constexpr std::string_view kModes[] = {to_string(Mode::exactly_once), to_string(Mode::at_least_once)};
constexpr std::string_view kOrders[] = {to_string(KeyOrder::key), to_string(KeyOrder::message)};
constexpr std::string_view kLostProgress[] = {to_string(OnLostProgress::resend), to_string(OnLostProgress::stop)};
constexpr std::string_view kPoolers[] = {"none", "transaction"};
constexpr std::string_view kFormats[] = {"text", "json"};
constexpr std::string_view kLevels[] = {"debug", "info", "warn", "error"};

constexpr Section kSections[] = {
    {"relay", "Who this relay is, and what it promises."},
    {"postgres", "The database that holds the outbox."},
    {"consumer", "The database that holds the inbox and the effect ledger."},
    {"kafka", "The cluster that gets the messages."},
    {"topics", "Where messages may go."},
    {"delivery", "Order, and the bounds of a batch. They bound the relay's memory as well."},
    {"poll", "How the relay looks for new messages. While there is work, it looks again at once."},
    {"lease", "Which of several instances of one relay is the active one."},
    {"retention", "How long delivered messages stay in the outbox. What is not delivered is never deleted."},
    {"log", "Events, one per line, on standard error."},
};

// clang-format off
const Option kOptions[] = {
    {.section = "relay", .key = "name", .member = at<&Config::relay, &Config::Relay::name>, .standard = "main",
     .check = check_relay_name,
     .help = "The relay's name. It becomes part of transactional.id (outbox-relay.<name>) and of the progress topic,"
             " so two outboxes that share a Kafka cluster need two names, and all instances of one relay the same. 1"
             " to 64 of a-z, 0-9, '.', '_', '-'."},
    {.section = "relay", .key = "mode", .type = Type::choice,
     .member = choice<&Config::relay, &Config::Relay::mode>(), .standard = kModes[0], .choices = kModes,
     .help = "exactly-once: each batch is one Kafka transaction, and a consumer with isolation.level=read_committed "
             "sees each message once. at-least-once: no transactions and less delay, but messages of the batch in "
             "doubt can repeat after a failure, with the same deduplication key."},

    {.section = "postgres", .key = "dsn", .member = at<&Config::postgres, &Config::Postgres::dsn>,
     .example = R"("host=/var/run/postgresql dbname=shop user=relay")", .check = check_dsn, .required = true,
     .secret = true,
     .help = "How to reach the database: a connection string or URI as libpq takes it. A password belongs in "
             "password_file; in the dsn it is taken only from the environment."},
    {.section = "postgres", .key = "password_file", .type = Type::secret_file,
     .member = at<&Config::postgres, &Config::Postgres::password>,
     .example = R"("/etc/outbox-relay/postgres.password")", .secret = true,
     .help = "A file that holds the database password and nothing else. It must not be readable by every user of the"
             " machine."},
    {.section = "postgres", .key = "pooler", .type = Type::choice,
     .member = at<&Config::postgres, &Config::Postgres::pooler>, .standard = "none", .choices = kPoolers,
     .help = "What stands between the relay and PostgreSQL. none: nothing, or a pooler in session mode. transaction: a "
             "pooler such as pgbouncer in transaction mode, which gives each transaction another server connection. "
             "The relay then sends its settings with each statement."},
    {.section = "postgres", .key = "allow_unguarded", .type = Type::boolean,
     .member = at<&Config::postgres, &Config::Postgres::allow_unguarded>, .standard = "false",
     .help = "Run although the server forbids the functions by which the relay recognises another cluster or an "
             "abandoned primary. `outbox-relay check` says which of these guards is off."},

    {.section = "consumer", .key = "dsn", .member = at<&Config::consumer, &Config::Consumer::dsn>,
     .derived = "postgres.dsn", .example = R"("host=/var/run/postgresql dbname=mailer user=operator")", .check = check_dsn,
     .secret = true,
     .help = "How to reach the database of the consumers, where the inbox and the effect ledger are. Only `effects` and "
             "`trace` look there; the relay does not."},
    {.section = "consumer", .key = "password_file", .type = Type::secret_file,
     .member = at<&Config::consumer, &Config::Consumer::password>,
     .example = R"("/etc/outbox-relay/consumer.password")", .secret = true,
     .help = "A file that holds the password for consumer.dsn and nothing else. It must not be readable by every user of "
             "the machine."},

    {.section = "kafka", .key = "brokers", .type = Type::list, .member = at<&Config::kafka, &Config::Kafka::brokers>,
     .example = R"(["kafka1:9092", "kafka2:9092"])", .check = check_broker, .required = true,
     .help = "Addresses of some brokers; the others are found through them."},
    {.section = "kafka", .key = "progress_topic", .member = at<&Config::kafka, &Config::Kafka::progress_topic>,
     .derived = "outbox-progress.<relay.name>", .example = R"("outbox-progress.main")", .check = check_topic_name,
     .help = "The topic in which the relay keeps its progress records. `outbox-relay init --kafka` creates it. One "
             "topic serves one relay."},
    {.section = "kafka", .key = "password_file", .type = Type::secret_file,
     .member = at<&Config::kafka, &Config::Kafka::password>, .example = R"("/etc/outbox-relay/kafka.password")",
     .secret = true,
     .help = "A file that holds the SASL password (librdkafka's sasl.password) and nothing else. It must not be "
             "readable by every user of the machine."},
    {.section = "kafka", .key = "properties", .type = Type::properties, .example = R"("compression.type" = "lz4")",
     .help = "Any properties of librdkafka, such as security.protocol or sasl.mechanism, except those that the "
             "protocol owns. Secrets are taken only from the environment. Properties of the file and of the "
             "environment are merged, and the environment wins."},

    {.section = "topics", .key = "allow", .type = Type::list, .member = at<&Config::topics, &Config::Topics::allow>,
     .example = R"(["orders", "shop.*"])", .check = check_topic_pattern, .required = true, .reloadable = true,
     .help = "The topics to which messages may go: names, prefixes that end in *, or [\"*\"] for all of them. "
             "Whoever may insert into the outbox writes to these topics with the relay's rights. A message to "
             "another topic is parked."},
    {.section = "topics", .key = "missing_after", .type = Type::duration,
     .member = at<&Config::topics, &Config::Topics::missing_after>, .standard = "5s", .min = 100, .max = kHour,
     .reloadable = true,
     .help = "A topic counts as missing, and its messages are parked, when the cluster has said so twice, this far "
             "apart."},

    {.section = "delivery", .key = "order", .type = Type::choice,
     .member = choice<&Config::delivery, &Config::Delivery::order>(), .standard = kOrders[0], .choices = kOrders,
     .help = "What a parked message holds back. key: the later messages of its key (topic and key), so that order is"
             " kept. message: nothing; the messages behind it overtake it. Messages without a key are never held "
             "back."},
    {.section = "delivery", .key = "on_lost_progress", .type = Type::choice,
     .member = choice<&Config::delivery, &Config::Delivery::on_lost_progress>(), .standard = kLostProgress[0],
     .choices = kLostProgress,
     .help = "What to do in exactly-once mode when Kafka has lost the progress record that would settle the batch in doubt. "
             "resend: report it and send the batch again, which may repeat it. stop: refuse to go on until a person decides."},
    {.section = "delivery", .key = "batch_messages_max", .type = Type::integer,
     .member = at<&Config::delivery, &Config::Delivery::batch_messages_max>, .standard = "20000", .min = 1,
     .max = 1'000'000, .reloadable = true,
     .help = "The most messages of one batch."},
    {.section = "delivery", .key = "batch_bytes_max", .type = Type::size,
     .member = at<&Config::delivery, &Config::Delivery::batch_bytes_max>, .standard = "8MiB", .min = 64 * kKiB,
     .max = 512 * kMiB, .reloadable = true,
     .help = "The most bytes of one batch. Not smaller than message_bytes_max."},
    {.section = "delivery", .key = "message_bytes_max", .type = Type::size,
     .member = at<&Config::delivery, &Config::Delivery::message_bytes_max>, .standard = "1MiB", .min = kKiB,
     .max = 128 * kMiB,
     .help = "A message with a larger payload is parked and never enters the relay. The topics' max.message.bytes "
             "should not be smaller."},

    {.section = "poll", .key = "idle", .type = Type::duration, .member = at<&Config::poll, &Config::Poll::idle>,
     .standard = "20ms", .min = 1, .max = 10 * kSecond, .reloadable = true,
     .help = "The longest wait between two looks at an outbox that has nothing new. It bounds what polling adds to "
             "the delay of a message."},

    {.section = "lease", .key = "ttl", .type = Type::duration, .member = at<&Config::lease, &Config::Lease::ttl>,
     .standard = "5s", .min = kSecond, .max = 5 * kMinute,
     .help = "How long after the last sign of life of the active instance another one takes over. It is renewed "
             "every third of it."},

    {.section = "retention", .key = "keep", .type = Type::duration,
     .member = at<&Config::retention, &Config::Retention::keep>, .standard = "24h", .min = kMinute,
     .max = 3650 * kDay, .reloadable = true,
     .help = "How long a delivered message is kept, for `trace` and `replay`."},
    {.section = "retention", .key = "prune_rows_per_second", .type = Type::integer,
     .member = at<&Config::retention, &Config::Retention::prune_rows_per_second>, .standard = "20000", .min = 1,
     .max = 10'000'000, .reloadable = true,
     .help = "The most rows that retention deletes in a second. It must exceed the rate of new messages, or the "
             "outbox grows."},

    {.section = "log", .key = "format", .type = Type::choice, .member = choice<&Config::log, &Config::Log::format>(),
     .standard = kFormats[0], .choices = kFormats,
     .help = "text: one line of name=value pairs. json: one JSON object per line."},
    {.section = "log", .key = "level", .type = Type::choice, .member = choice<&Config::log, &Config::Log::level>(),
     .standard = "info", .choices = kLevels, .reloadable = true,
     .help = "Events below this level are dropped."},
};
// clang-format on

Error wrong(std::string what, std::string hint) { return Error{Fault::usage, std::move(what), std::move(hint)}; }

// The alternative of `option.member` that its type calls for; a mismatch is a mistake of the table.
template <class T>
T& member(const Option& option, Config& config) {
  const auto access = std::get_if<T& (*)(Config&)>(&option.member);
  CHECK(access != nullptr);
  return (*access)(config);
}

Result<void> check_range(const Option& option, std::int64_t value) {
  if (value >= option.min && value <= option.max) return {};
  return wrong("is out of range", fmt::format("allowed is {}.", range_text(option)));
}

Result<void> assign_choice(const Option& option, const std::string& text, Config& config) {
  const auto found = std::find(option.choices.begin(), option.choices.end(), text);
  if (found == option.choices.end()) {
    const auto meant = nearest(text, {option.choices.begin(), option.choices.end()});
    const std::string choices = fmt::format("the choices are {}.", fmt::join(option.choices, ", "));
    return wrong("is not one of the choices",
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
  if (text.find('\0') != std::string::npos) return wrong("contains a zero byte", "remove it.");
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

std::span<const Option> options() { return kOptions; }
std::span<const Section> sections() { return kSections; }

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

}  // namespace outbox::config
