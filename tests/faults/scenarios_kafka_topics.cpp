// SPDX-License-Identifier: Apache-2.0
// Faults of topics: of those for messages, and of the progress topic.
#include <set>

#include "tests/faults/scenarios.h"
#include "tests/support/kafka_admin.h"

namespace relay::faults {
namespace {

constexpr Millis sent_within{60'000};
constexpr int usual_limit = 1'048'588;  // of a record batch, as brokers have it
constexpr int narrow_limit = 2'000;

// Messages of the scenario itself, numbered from 1, to a topic that only it uses. The checker does
// not know them.
class TopicMessages {
 public:
  explicit TopicMessages(Round& round)
      : round_(round),
        db_(round.session.db),
        topic_(db_.name() + ".messages-" + std::to_string(round.number)) {}

  const std::string& topic() const { return topic_; }
  void create(int partitions = 1) { db_.kafka().create_topic(topic_, partitions); }
  void write(int count, int bytes = 10) {
    db_.sql("insert into outbox.message (topic, key, payload) select '" + topic_ +
            "', convert_to('k' || n % 3, 'UTF8'), convert_to(n || ' ' || "
            "repeat('x', " +
            std::to_string(bytes) + "), 'UTF8') from generate_series(" +
            std::to_string(written_ + 1) + ", " + std::to_string(written_ + count) + ") n");
    written_ += count;
  }
  std::int64_t parked() {
    return std::stoll(db_.value(
        "select count(*) from outbox.parked p where p.released_in is null and p.topic = '" +
        topic_ + "'"));
  }
  // A delivered message that is not in the topic is counted as lost here, because the checker does
  // not know it.
  void until_parked(std::int64_t count) {
    relay_must(
        "messages that cannot be sent are parked",
        [&] { return parked() >= count || all_count_as_delivered(); }, sent_within);
    const auto found = parked();
    if (found < count)
      round_.broke(&Counts::lost, std::to_string(count) + " messages were refused, " +
                                      std::to_string(found) + " are parked");
  }
  // Acts as an operator does until no message is parked: one that still cannot be sent is parked
  // again.
  void release() {
    test::eventually(
        "messages are released",
        [&] {
          db_.command({"parked", "release", "--topic", topic_, "--why", "the topic is fixed"});
          return parked() == 0;
        },
        sent_within);
  }
  // Waits until all from `first` on have arrived, and looks at their order and number.
  void until_arrived(int first = 1) {
    test::KafkaLog log;
    test::eventually(
        "the messages arrive",
        [&] {
          log = test::read_log(db_.kafka().brokers(), {topic_}, test::Isolation::read_committed);
          std::set<int> found;
          for (const auto& r : log.records) found.insert(std::stoi(*r.payload));
          return std::distance(found.lower_bound(first), found.end()) == written_ - first + 1;
        },
        sent_within);
    std::map<std::pair<std::string, std::int32_t>, int> newest;
    std::set<int> seen;
    for (const auto& r : log.records) {
      const int number = std::stoi(*r.payload);
      if (!seen.insert(number).second) {
        if (round_.session.options.mode == Mode::exactly_once)
          round_.broke(&Counts::repeated, "message " + std::to_string(number) + " is repeated");
        continue;
      }
      auto& before = newest[{*r.key, r.partition}];
      if (number < before)
        round_.broke(&Counts::reordered,
                     "message " + std::to_string(number) + " is behind " + std::to_string(before));
      before = number;
    }
  }

 private:
  bool all_count_as_delivered() {
    return db_.value(
               "select not exists (select from outbox.message m left join outbox.batch b on "
               "b.number = outbox.batch_of(m.txid, m.seq) "
               "where m.topic = '" +
               topic_ + "' and b.delivered_at is null)") == "t";
  }

  Round& round_;
  test::TestOutbox& db_;
  const std::string topic_;
  int written_ = 0;
};

void missing(Round& round, TopicMessages& messages) {
  messages.write(20);
  messages.until_parked(20);
  messages.create();
  round.healed();
  messages.write(10);
  messages.until_arrived();
}

// The records of the topic are deleted with it.
void deleted(Round& round, TopicMessages& messages) {
  const auto& kafka = *round.session.servers.kafka;
  messages.create();
  messages.write(20);
  messages.until_arrived();
  kafka.delete_topic(messages.topic());
  test::eventually("the topic is deleted",
                   [&] { return !test::has_topic(kafka.brokers(), messages.topic()); });
  messages.write(20);
  if (chance(round.random, 0.5)) messages.until_parked(20);
  else round.let_run(0, 300);
  messages.create();
  round.healed();
  messages.write(10);
  messages.until_arrived(21);
}

void widened(Round& round, TopicMessages& messages) {
  messages.create(1);
  messages.write(20);
  round.let_run(0, 200);
  test::add_partitions(round.session.servers.kafka->brokers(), messages.topic(), 4);
  round.healed();
  messages.write(20);
  messages.until_arrived();
}

// A message that is too large is parked, and holds back the later messages of its key.
void narrowed(Round& round, TopicMessages& messages) {
  const auto& kafka = *round.session.servers.kafka;
  messages.create();
  messages.write(20);
  messages.until_arrived();
  kafka.alter_topic(messages.topic(), {"max.message.bytes=" + std::to_string(narrow_limit)});
  messages.write(1, 4 * narrow_limit);
  messages.write(9);
  messages.until_parked(4);
  kafka.alter_topic(messages.topic(), {"max.message.bytes=" + std::to_string(usual_limit)});
  round.healed();
  messages.release();
  messages.write(10);
  messages.until_arrived();
}

void denied(Round& round, TopicMessages& messages) {
  const std::string brokers = round.session.servers.kafka->brokers();
  messages.create();
  messages.write(10);
  messages.until_arrived();
  const bool describe = chance(round.random, 0.5);
  test::deny(brokers, messages.topic(), describe ? test::Denied::describe : test::Denied::write);
  messages.write(10);
  // A client that may still write need not notice that it may no longer describe the topic.
  if (describe) round.let_run(0, 1'000);
  else messages.until_parked(10);
  test::allow_again(brokers, messages.topic());
  round.healed();
  messages.release();
  messages.write(10);
  messages.until_arrived();
  round.note(describe ? "describe" : "write");
}

void topic_changes(Round& round) {
  struct Change {
    const char* name;
    void (*make)(Round&, TopicMessages&);
  };
  constexpr Change changes[] = {{"missing", missing},
                                {"deleted", deleted},
                                {"widened", widened},
                                {"narrowed", narrowed},
                                {"denied", denied}};
  const Change& change = changes[static_cast<std::size_t>(round.number) % std::size(changes)];
  TopicMessages messages(round);
  round.note(change.name);
  change.make(round, messages);
  round.recovered();
}

// The relay exits if it finds no such topic, and its supervisor starts it again.
void until_it_goes_on(ScenarioSession& session) {
  const auto before = session.delivered_batches();
  test::eventually(
      "the relay goes on",
      [&] {
        Relay& relay = session.relays.back();
        if (!relay.process.running()) {
          constexpr int refused = 5;
          if (relay.process.wait() == refused) relay.killed = true;
          session.start_relay();
        }
        return session.delivered_batches() > before;
      },
      sent_within);
}

void progress_is_lost(Round& round) {
  ScenarioSession& session = round.session;
  const auto& kafka = *session.servers.kafka;
  const std::string topic = "outbox-progress." + session.db.name();
  const bool killed = chance(round.random, 0.5);
  const bool recreated = chance(round.random, 0.5);
  const auto said = session.relays.back().process.output().size();
  const Millis after = round.let_run(0, 300);
  if (killed) session.kill(session.relays.back());
  if (recreated) {
    kafka.delete_topic(topic);
    test::eventually("the topic is deleted",
                     [&] { return !test::has_topic(kafka.brokers(), topic); });
    kafka.create_topic(topic, 1, {"cleanup.policy=compact"});
  } else {
    // Kafka refuses to delete records of a topic that is compacted only.
    kafka.alter_topic(topic, {"cleanup.policy=compact,delete"});
    test::delete_records(kafka.brokers(), topic, 0);
    kafka.alter_topic(topic, {"cleanup.policy=compact"});
  }
  session.checker.reset_progress();
  if (killed) session.start_relay();
  round.healed();
  until_it_goes_on(session);
  round.recovered();
  Relay& relay = session.relays.back();
  const std::string log = relay.process.output();
  const bool logged =
      log.find("error progress_lost", session.relays.size() == 1 ? said : 0) != std::string::npos;
  round.note(std::string(recreated ? "created again" : "truncated"), after,
             std::string(killed ? ", the relay killed" : "") + (logged ? ", logged" : ""));
  round.expected_errors = {"progress_lost"};
  if (logged)
    round.allowed.counts = {"repeated", "journal"};  // the journal knows where the second copy is
  else if (killed && session.options.mode == Mode::exactly_once)
    round.broke(&Counts::exits, "the relay does not report that its progress is lost");
}

}  // namespace

std::vector<Scenario> kafka_topic_scenarios() {
  const ServerOptions with_rights{
      .kafka = {"authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "allow.everyone.if.no.acl.found=true"}};
  return {
      {.id = "KA09",
       .inject = topic_changes,
       .session = {.relay = {{"OUTBOX_RELAY_TOPICS_MISSING_AFTER", "300ms"}}},
       .servers = with_rights},
      {"KA11", progress_is_lost},
  };
}

}  // namespace relay::faults
