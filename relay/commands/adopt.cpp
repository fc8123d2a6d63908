// SPDX-License-Identifier: Apache-2.0
// adopt: adopts a database that was copied, restored or upgraded. First the database, in one transaction; then the progress record,
// which also shuts out every older producer of this name. A crash in between leaves a database that the relay refuses, until this
// command is run again.
#include "relay/postgres/adopt.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdio>

#include "relay/base/check.h"
#include "relay/commands/commands.h"
#include "relay/commands/context.h"
#include "relay/commands/output.h"
#include "relay/core/recovery.h"
#include "relay/kafka/producer.h"

namespace outbox {
namespace {

using postgres::Copy;
using postgres::CopyKind;
using postgres::OperatorDecision;

constexpr Millis kafka_patience{30'000};
constexpr Millis record_is_readable_within{10'000};

long long number(std::int64_t n) { return static_cast<long long>(n); }

std::optional<OperatorDecision> settlement(const AdoptOptions& o) {
  if (o.resend) return OperatorDecision::resend;
  if (o.delivered) return OperatorDecision::delivered;
  return std::nullopt;
}

// Rung by the Kafka client. Unlike the wake-up of `run` it leaves the signals alone: this command can be ended at any time.
class Bell {
 public:
  Bell() : fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) { CHECK(fd_ >= 0); }
  ~Bell() { close(fd_); }
  Bell(const Bell&) = delete;
  Bell& operator=(const Bell&) = delete;
  int fd() const { return fd_; }
  void wait() const {
    pollfd rung{fd_, POLLIN, 0};
    eventfd_t count = 0;
    if (poll(&rung, 1, 100) > 0) static_cast<void>(eventfd_read(fd_, &count));
  }

 private:
  const int fd_;
};

// What the record in Kafka says about the batch in doubt. It is the original's word: it may have gone on after the copy was made.
const char* evidence(const Copy& copy, const std::optional<Progress>& progress) {
  if (progress && progress->token == copy.newest->token) return "Kafka has it";
  if (progress && progress->previous == copy.newest->token) return "Kafka has it, and the batch behind it";
  if (progress && progress->token == copy.token_before) {
    return copy.newest->mode == Mode::exactly_once ? "Kafka does not have it" : "Kafka may have some of it, or all";
  }
  return "Kafka does not say";
}

void describe(const Config& config, const Copy& copy, const std::optional<Progress>& progress) {
  const std::string was = copy.relay && *copy.relay != config.relay.name ? ", was " + *copy.relay : "";
  std::printf("relay         %s%s\n", config.relay.name.c_str(), was.c_str());
  std::printf("cluster       %lld%s\n", number(copy.here.cluster),
              copy.cluster && *copy.cluster != copy.here.cluster ? (", was " + std::to_string(*copy.cluster)).c_str() : "");
  if (copy.kind == CopyKind::physical) {
    std::printf("transactions  have kept their ids: the position holds\n");
    std::printf("delivered     %lld messages\n", number(copy.delivered));
    std::printf("pending       %lld messages\n", number(copy.pending));
  } else {
    std::printf("transactions  have ids of another server: messages that are pending are inserted anew, the others are deleted\n");
    std::printf("delivered     %lld messages, to be deleted\n", number(copy.delivered - copy.in_doubt_messages));
    std::printf("pending       %lld messages, %lld of them written here since the copy\n", number(copy.pending), number(copy.since_copy));
  }
  if (copy.sequence_behind) std::printf("sequence      behind the newest message: it is put above it\n");
  if (copy.in_doubt() != nullptr) {
    std::printf("in doubt      batch %lld, %lld messages: %s\n", number(copy.newest->number), number(copy.in_doubt_messages),
                evidence(copy, progress));
  }
  if (progress && copy.newest && progress->number > copy.newest->number) {
    std::printf("Kafka         has %lld batches of the original that this copy does not know; what is pending here may be among them\n",
                number(progress->number - copy.newest->number));
  }
}

// What recovery must find in Kafka: the newest batch, or the one before it if that is to be sent again.
Progress progress_of(const Copy& copy, std::int64_t at_least) {
  CHECK(copy.newest);
  if (copy.in_doubt() == nullptr) return {copy.here, copy.epoch, copy.newest->number, copy.newest->token, copy.token_before};
  return {copy.here, copy.epoch, std::max(copy.newest->number - 1, at_least), copy.token_before.value_or(Uuid::random()), std::nullopt};
}

// Not by the token alone: that of the batch before one in doubt is what the original has written as well.
bool is_same(const Progress& a, const Progress& b) {
  return a.identity.cluster == b.identity.cluster && a.identity.timeline == b.identity.timeline && a.epoch == b.epoch && a.token == b.token;
}

// At-least-once no commit waits for the progress record; the relay would refuse to start without it.
Result<void> await_progress(kafka::KafkaProducer& producer, const Bell& bell, const Progress& progress) {
  const Deadline deadline(record_is_readable_within);
  while (true) {
    auto newest = producer.newest_progress(true);
    if (newest && *newest && is_same(**newest, progress)) return {};
    if (deadline.passed()) return newest ? Error{Fault::kafka, "Kafka did not take the progress record in time"} : newest.error();
    bell.wait();
  }
}

Result<void> write_progress(kafka::KafkaProducer& producer, const Bell& bell, Mode mode, const Progress& progress) {
  if (auto r = producer.renew(mode, [] { return Result<void>{}; }); !r) return r;
  if (auto r = producer.newest_progress(true); !r) return r.error();
  const Batch batch;
  const Page nothing;
  if (auto r = producer.begin(); !r) return r;
  if (auto r = producer.send(batch, nothing, {}, progress); !r) return r.error();
  const Deadline deadline(kafka_patience);
  while (true) {
    auto reported = producer.reported();
    if (!reported) return reported.error();
    if (*reported == Delivery::refused) return Error{Fault::kafka, "Kafka refuses the progress record"};
    if (*reported == Delivery::complete) break;
    if (deadline.passed()) return Error{Fault::kafka, "Kafka did not take the progress record in time"};
    bell.wait();
  }
  if (auto committed = producer.commit(); !committed) return committed.error();
  return await_progress(producer, bell, progress);
}

Result<int> carry_out(const Config& config, const AdoptOptions& o) {
  const auto in_postgres = postgres_options(config);
  const auto in_kafka = kafka_options(config);
  signal(SIGPIPE, SIG_IGN);  // a server that closes a connection is an error like others
  const Bell bell;
  kafka::KafkaProducer producer(in_kafka, bell.fd());
  // To write a large outbox anew takes its time. A pooler's backend is others' as well.
  auto control = open_control(config, std::nullopt);
  if (!control) return control.error();
  if (config.postgres.pooler != "transaction") {
    if (auto r = (*control)->run("lifting the time-out", "set statement_timeout = 0"); !r) return r.error();
  }
  auto copy = postgres::inspect_copy(**control, in_postgres);
  if (!copy) return for_person(copy.error(), "outbox_owner");
  auto progress = producer.newest_progress(false);
  if (!progress) return progress.error();
  const bool foreign_record = foreign(copy->here, *progress).has_value();
  if (copy->adopted && !foreign_record) {
    std::printf("this database, its journal and the progress record belong together: there is nothing to do\n");
    return 0;
  }
  describe(config, *copy, *progress);
  const auto decision = settlement(o);
  if (copy->in_doubt() != nullptr && !decision) {
    return Error{Fault::usage, "batch " + std::to_string(copy->newest->number) + " is in doubt",
                 "say --resend, and some of it may arrive twice, or --delivered, and what was not is lost"};
  }
  if (!o.yes) {
    std::printf("nothing was changed; with --yes it is done\n");
    return exit_code(Fault::absent);
  }
  const postgres::HighWater high_water = *progress ? postgres::HighWater{(*progress)->number, (*progress)->epoch} : postgres::HighWater{};
  if (!copy->adopted || !copy->newest || (copy->in_doubt() != nullptr && decision == OperatorDecision::delivered)) {
    if (auto r = postgres::adopt_copy(**control, in_postgres, *copy, decision, high_water); !r) return for_person(r.error(), "outbox_owner");
    copy = postgres::inspect_copy(**control, in_postgres);
    if (!copy) return copy.error();
  }
  if (auto r = write_progress(producer, bell, config.relay.mode, progress_of(*copy, high_water.number)); !r) {
    Error e = r.error();
    e.hint = "the database is adopted, Kafka is not told yet: run this command again";
    return e;
  }
  const std::int64_t again = copy->in_doubt() != nullptr ? copy->in_doubt_messages : 0;
  std::printf("done: %lld messages are pending; start the relay\n", number(copy->pending + again));
  return 0;
}

}  // namespace

int adopt(const Config& config, const AdoptOptions& options) {
  const auto code = carry_out(config, options);
  std::fflush(stdout);
  return code ? *code : report(code.error());
}

}  // namespace outbox
