// SPDX-License-Identifier: Apache-2.0
#include "tests/support/dying_consumers.h"

#include <signal.h>

namespace relay::test {
namespace {

constexpr int first_records = 250;  // more than a consumer alone lives to see
constexpr int more_records = 50;
constexpr int sent_twice = 20;
constexpr Millis between_records{50};
constexpr const char* short_session_ms = "2000";

}  // namespace

DyingConsumers::DyingConsumers(ScratchPostgres& postgres, ScratchKafka& kafka, Company company)
    : db_(postgres),
      kafka_(kafka),
      company_(company),
      dsn_(db_.login("inbox_consumer")),
      topic_("dying-" + db_.name()) {
  create_effect_table(db_);
  kafka_.create_topic(topic_, company == Company::none ? 2 : 4);
  if (company == Company::steady) steady_.emplace(options(), &write_effect);
}

outbox::ConsumerOptions DyingConsumers::options() const {
  outbox::ConsumerOptions o{
      .brokers = kafka_.brokers(), .group = "dies-" + topic_, .topics = {topic_}, .dsn = dsn_};
  if (company_ == Company::none) {
    o.properties = {{"group.instance.id", "one"}, {"session.timeout.ms", "6000"}};
  } else {
    o.properties = {{"session.timeout.ms", short_session_ms}, {"heartbeat.interval.ms", "300"}};
  }
  return o;
}

void DyingConsumers::produce(int count) {
  produce_numbers(kafka_.brokers(), topic_, produced_, count);
  produced_ += count;
}

void DyingConsumers::one_dies(std::uint64_t lot, const Process::Environment& environment) {
  Process::Environment all = environment;
  if (company_ == Company::steady) all["OUTBOX_SESSION_MS"] = short_session_ms;
  produce(first_records);
  produce_numbers(kafka_.brokers(), topic_, produced_ - sent_twice, sent_twice);
  Process doomed({program_path("consumer-that-dies"), kafka_.brokers(), topic_, dsn_,
                  std::to_string(lot % 1'000'000'000 + 1)},
                 all);
  Deadline next(between_records);
  eventually(
      "a consumer dies",
      [&] {
        if (company_ == Company::steady && next.passed()) {
          produce(more_records);  // the steady one has taken what was there
          next = Deadline(between_records);
        }
        return !doomed.running();
      },
      Millis{60'000});
  if (const int code = doomed.wait(); code != -SIGKILL) {
    found_.wrong(&EffectReport::exits,
                 "a consumer ended with " + std::to_string(code) + ": " + doomed.output());
  }
}

EffectReport DyingConsumers::check_delivery(Millis within) {
  std::optional<RunningConsumer> last;
  if (!steady_) last.emplace(options(), &write_effect);
  try {
    eventually(
        "each has its effect",
        [&] { return count("count(distinct dedup_key) from effect") >= produced_; }, within);
  } catch (const std::runtime_error& e) {
    found_.wrong(&EffectReport::stuck,
                 std::string(e.what()) + ": " + (steady_ ? *steady_ : *last).events());
  }
  if (last) last->stop();
  EffectReport f = std::exchange(found_, {});
  const auto once = count("count(distinct dedup_key) from effect");
  f.asked = produced_ - std::exchange(asked_before_, produced_);
  f.executed = once - std::exchange(executed_before_, once);
  f.wrong(&EffectReport::lost, "records without an effect", produced_ - once);
  f.wrong(&EffectReport::repeated, "records with several effects",
          count("count(*) - count(distinct dedup_key) from effect"));
  f.wrong(&EffectReport::reordered, "effects of a key out of order",
          count("count(*) from (select payload::bigint < lag(payload::bigint) over (partition by "
                "key order by id) as wrong from effect) e "
                "where wrong"));
  f.wrong(&EffectReport::journal,
          "records that the inbox knows and that have no effect, or the other way round",
          count("count(*) from inbox.accepted a full join (select distinct dedup_key from effect) "
                "e on e.dedup_key = a.dedup_key "
                "where a.dedup_key is null or e.dedup_key is null"));
  f.wrong(&EffectReport::stuck, "records are parked", count("count(*) from inbox.parked"));
  return f;
}

}  // namespace relay::test
