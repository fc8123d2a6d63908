// SPDX-License-Identifier: Apache-2.0
// adopt: adopts a database that was copied, restored or upgraded. It first changes the database, in
// one transaction, then writes the progress record, which also fences every older producer of this
// name. After a crash in between, the relay refuses the database until this command is run again.
#include "relay/postgres/adopt.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdio>
#include <memory>

#include "common/check.h"
#include "relay/commands/commands.h"
#include "relay/commands/context.h"
#include "relay/commands/output.h"
#include "relay/core/recovery.h"
#include "relay/kafka/producer.h"

namespace relay {
namespace {

using postgres::Copy;
using postgres::CopyKind;
using postgres::OperatorDecision;

constexpr Millis kafka_patience{30'000};
constexpr Millis record_is_readable_within{10'000};

struct AdoptOptions {
  bool yes = false;        // without it, only prints what would be done
  bool resend = false;     // send the batch in doubt again
  bool delivered = false;  // treat the batch in doubt as delivered
};

long long number(std::int64_t n) { return static_cast<long long>(n); }

std::optional<OperatorDecision> decision_of(const AdoptOptions& o) {
  if (o.resend) return OperatorDecision::resend;
  if (o.delivered) return OperatorDecision::delivered;
  return std::nullopt;
}

// Signaled by the Kafka client. Unlike the poller of `run` it blocks no signals: this command can
// be stopped at any time.
class KafkaEvent {
 public:
  KafkaEvent() : fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) { CHECK(fd_ >= 0); }
  ~KafkaEvent() { close(fd_); }
  KafkaEvent(const KafkaEvent&) = delete;
  KafkaEvent& operator=(const KafkaEvent&) = delete;
  int fd() const { return fd_; }
  void wait() const {
    pollfd signaled{fd_, POLLIN, 0};
    eventfd_t count = 0;
    if (poll(&signaled, 1, 100) > 0) static_cast<void>(eventfd_read(fd_, &count));
  }

 private:
  const int fd_;
};

// What the progress record in Kafka implies for the batch in doubt. The original may have continued
// after the copy was made.
const char* evidence(const Copy& copy, const std::optional<Progress>& progress) {
  if (progress && progress->token == copy.newest->token) return "Kafka has it";
  if (progress && progress->previous == copy.newest->token)
    return "Kafka has it, and the batch after it";
  if (progress && progress->token == copy.token_before) {
    return copy.newest->mode == Mode::exactly_once ? "Kafka does not have it"
                                                   : "Kafka may have a part of it, or all of it";
  }
  return "the progress record does not show whether Kafka has it";
}

void describe(const Config& config, const Copy& copy, const std::optional<Progress>& progress) {
  const std::string was =
      copy.relay && *copy.relay != config.relay.name ? ", was " + *copy.relay : "";
  std::printf("relay         %s%s\n", config.relay.name.c_str(), was.c_str());
  std::printf("cluster       %lld%s\n", number(copy.here.cluster),
              copy.cluster && *copy.cluster != copy.here.cluster
                  ? (", was " + std::to_string(*copy.cluster)).c_str()
                  : "");
  if (copy.kind == CopyKind::physical) {
    std::printf("transactions  have their original ids: the position is valid\n");
    std::printf("delivered     %lld messages\n", number(copy.delivered));
    std::printf("pending       %lld messages\n", number(copy.pending));
  } else {
    std::printf(
        "transactions  have ids of another server: pending messages are inserted again, the others "
        "are deleted\n");
    std::printf("delivered     %lld messages, to be deleted\n",
                number(copy.delivered - copy.in_doubt_messages));
    std::printf("pending       %lld messages, %lld of them written here since the copy\n",
                number(copy.pending), number(copy.since_copy));
  }
  if (copy.sequence_behind)
    std::printf("sequence      behind the newest message: it is set above it\n");
  if (copy.in_doubt() != nullptr) {
    std::printf("in doubt      batch %lld, %lld messages: %s\n", number(copy.newest->number),
                number(copy.in_doubt_messages), evidence(copy, progress));
  }
  if (progress && copy.newest && progress->number > copy.newest->number) {
    std::printf(
        "Kafka         has %lld batches of the original that this copy lacks; they may contain "
        "messages that are pending here\n",
        number(progress->number - copy.newest->number));
  }
}

// What recovery must find in Kafka: the newest batch or, if that is sent again, the batch before
// it.
Progress progress_of(const Copy& copy, std::int64_t at_least) {
  CHECK(copy.newest);
  if (copy.in_doubt() == nullptr)
    return {copy.here, copy.epoch, copy.newest->number, copy.newest->token, copy.token_before};
  return {copy.here, copy.epoch, std::max(copy.newest->number - 1, at_least),
          copy.token_before.value_or(Uuid::random()), std::nullopt};
}

// Compares not only the token: the original has written the token of the batch before the one in
// doubt as well.
bool is_same(const Progress& a, const Progress& b) {
  return a.identity.cluster == b.identity.cluster && a.identity.timeline == b.identity.timeline &&
         a.identity.database == b.identity.database && a.epoch == b.epoch && a.token == b.token;
}

// At-least-once, no commit waits for the progress record, without which the relay would refuse to
// start.
Result<void> await_progress(kafka::KafkaProducer& producer, const KafkaEvent& event,
                            const Progress& progress) {
  const Deadline deadline(record_is_readable_within);
  while (true) {
    auto newest = producer.newest_progress(true, nothing_meanwhile);
    if (newest && *newest && is_same(**newest, progress)) return {};
    if (deadline.passed())
      return newest ? Error{Fault::kafka, "Kafka did not confirm the progress record in time"}
                    : newest.error();
    event.wait();
  }
}

Result<void> write_progress(kafka::KafkaProducer& producer, const KafkaEvent& event, Mode mode,
                            const Progress& progress) {
  if (auto r = producer.renew(mode, [] { return Result<void>{}; }); !r) return r;
  if (auto r = producer.newest_progress(true, nothing_meanwhile); !r) return r.error();
  const Batch batch;
  const Page nothing;
  if (auto r = producer.begin(); !r) return r;
  if (auto r = producer.send(batch, nothing, {}, progress); !r) return r.error();
  const Deadline deadline(kafka_patience);
  while (true) {
    auto reported = producer.reported();
    if (!reported) return reported.error();
    if (*reported == Delivery::refused) {
      return Error{Fault::kafka, "Kafka refuses the progress record"};
    }
    if (*reported == Delivery::complete) break;
    if (deadline.passed())
      return Error{Fault::kafka, "Kafka did not confirm the progress record in time"};
    event.wait();
  }
  if (auto committed = producer.commit(); !committed) return committed.error();
  return await_progress(producer, event, progress);
}

// A session without time limits: inserting a large outbox again takes time. The statement_timeout
// of a pooler's backend is left alone, because other clients use the backend as well.
Result<std::unique_ptr<postgres::PqxxSession>> open_unlimited(const Config& config) {
  auto control = open_control(config, std::nullopt);
  if (!control || config.postgres.pooler == "transaction") return control;
  auto r = (*control)->run("removing the time-out", "set statement_timeout = 0");
  if (!r) return r.error();
  return control;
}

// Changes the database as far as necessary, then writes the progress record.
Result<int> adopt_and_write(const Config& config, postgres::PqxxSession& control,
                            kafka::KafkaProducer& producer, const KafkaEvent& event, Copy copy,
                            const std::optional<Progress>& progress,
                            std::optional<OperatorDecision> decision) {
  const auto options = postgres_options(config);
  const postgres::HighWater high_water =
      progress ? postgres::HighWater{progress->number, progress->epoch} : postgres::HighWater{};
  const bool delivered = copy.in_doubt() != nullptr && decision == OperatorDecision::delivered;
  if (!copy.adopted || !copy.newest || delivered) {
    if (auto r = postgres::adopt_copy(control, options, copy, decision, high_water); !r) {
      return for_operator(r.error(), "outbox_owner");
    }
    auto adopted = postgres::inspect_copy(control, options);
    if (!adopted) return adopted.error();
    copy = std::move(*adopted);
  }
  if (auto r =
          write_progress(producer, event, config.relay.mode, progress_of(copy, high_water.number));
      !r) {
    Error e = r.error();
    e.hint = "the database is adopted, the progress record is not written: run this command again";
    return e;
  }
  const std::int64_t again = copy.in_doubt() != nullptr ? copy.in_doubt_messages : 0;
  std::printf("done: %lld messages are pending; start the relay\n", number(copy.pending + again));
  return 0;
}

Result<int> inspect_and_adopt(const Config& config, const AdoptOptions& o) {
  signal(SIGPIPE, SIG_IGN);  // a closed connection is an ordinary error
  const KafkaEvent event;
  const auto in_kafka = kafka_options(config);  // outlives the producer, which refers to it
  kafka::KafkaProducer producer(in_kafka, event.fd());
  auto control = open_unlimited(config);
  if (!control) return control.error();
  auto copy = postgres::inspect_copy(**control, postgres_options(config));
  if (!copy) return for_operator(copy.error(), "outbox_owner");
  auto progress = producer.newest_progress(false, nothing_meanwhile);
  if (!progress) return progress.error();
  const bool foreign_record = foreign(copy->here, *progress, true).has_value();
  if (copy->adopted && !foreign_record) {
    std::printf(
        "this database, its journal and the progress record match: there is nothing to do\n");
    return 0;
  }
  describe(config, *copy, *progress);
  const auto decision = decision_of(o);
  if (copy->in_doubt() != nullptr && !decision) {
    return Error{
        Fault::usage, "batch " + std::to_string(copy->newest->number) + " is in doubt",
        "decide with --resend, which can deliver messages twice, or with --delivered, which loses "
        "messages that were not delivered"};
  }
  if (!o.yes) {
    std::printf("nothing was changed; run it with --yes to adopt the database\n");
    return exit_code(Fault::absent);
  }
  return adopt_and_write(config, **control, producer, event, std::move(*copy), *progress, decision);
}

int adopt(const Config& config, const AdoptOptions& options) {
  const auto code = inspect_and_adopt(config, options);
  std::fflush(stdout);
  return code ? *code : report(code.error());
}

constexpr std::string_view adopt_reference = R"(
It needs the privileges of the owner of the schema. If a batch is in doubt, `--resend` or
`--delivered` is required; the command prints what Kafka has of the batch. It can be run again after
an interruption. See [adopting a copy](runbook.md#adopting-a-copy).
)";

}  // namespace

Command adopt_command() {
  const auto options = std::make_shared<AdoptOptions>();
  return {
      .name = "adopt",
      .summary =
          "Adopts a database that was copied, restored or upgraded, so that the relay can continue "
          "with it.",
      .details =
          "It prints what it found and what it would do, and does it with --yes. Stop the relay "
          "first, and also a relay of the "
          "original database: it could no longer write to Kafka under this name.",
      .options =
          {{.name = "--yes", .value = &options->yes, .text = "Adopt the database."},
           {.name = "--resend",
            .value = &options->resend,
            .text = "Send the batch in doubt again. Some of its messages can be delivered twice."},
           {.name = "--delivered",
            .value = &options->delivered,
            .text =
                "Treat the batch in doubt as delivered. Messages that were not delivered are lost.",
            .excludes = {"--resend"}}},
      .exit_codes = {{0, "done, or nothing to do"},
                     {1, "something to do, and --yes was not given"},
                     usage_code,
                     postgres_code,
                     {4, "Kafka"},
                     {5, "refused: a relay is active, or a privilege is missing"}},
      .reference = adopt_reference,
      .examples = {{"adopt", "Prints what was copied, and changes nothing."},
                   {"adopt --resend --yes",
                    "Adopts the database and sends the batch in doubt again."}},
      .run = with_config([options](const Config& config) { return adopt(config, *options); }),
  };
}

}  // namespace relay
