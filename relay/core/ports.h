// SPDX-License-Identifier: Apache-2.0
// What the loop needs of PostgreSQL and Kafka, and nothing more. The wrappers implement these; so
// can a model.
//
// All of them are used by the loop's thread only. Calls block for a bounded time unless said
// otherwise.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "relay/base/clock.h"
#include "relay/base/error.h"
#include "relay/base/uuid.h"
#include "relay/core/message.h"
#include "relay/core/mode.h"
#include "relay/core/page_mask.h"

namespace relay {

// Microseconds since 1970-01-01 UTC by the clock of the database.
using Timestamp = std::chrono::microseconds;

// A row of the journal.
struct Batch {
  std::int64_t number = 0;
  std::int64_t epoch = 0;
  Uuid token = {};
  bool release = false;
  Mode mode = Mode::exactly_once;
  PageBounds bounds = {};     // of a release: those of the batch before it
  std::int64_t messages = 0;  // rows of its page, those parked for it included
  std::int64_t bytes = 0;
  Timestamp opened_at{};
  bool delivered = false;
};

// What recovery wants to know of the batch before the newest.
struct Predecessor {
  Uuid token;
  Mode mode;
};

// First and last offset per partition, per topic.
struct OffsetRange {
  std::int64_t first;
  std::int64_t last;
};
using Offsets = std::map<std::string, std::map<std::int32_t, OffsetRange>>;

// A batch of which Kafka said that it is delivered.
struct Confirmed {
  std::int64_t number;
  Offsets offsets;  // empty: found delivered by recovery
};

// A message that cannot be sent, and why.
struct Rejection {
  std::size_t index = 0;  // of the message, in the page it was read with
  std::int64_t seq = 0;
  std::string error_class;  // see outbox.parked.error_class
  std::string text;
};

// What Producer::validate() found.
struct Validation {
  std::vector<Rejection> rejected;  // ascending
  bool complete = true;             // false: a topic is not yet known to be missing; ask again
};

// What became of the messages that were handed over.
enum class Delivery {
  pending,   // reports are due
  complete,  // Kafka has all of them
  refused,   // Kafka would not take those of Producer::refused()
};

// Which database this is. Transaction ids mean nothing in another cluster; an abandoned primary has
// an older timeline; other databases of the cluster have other object ids. 0: unknown.
struct Identity {
  std::int64_t cluster = 0;
  std::uint32_t timeline = 0;
  std::uint32_t database = 0;
};

// The newest committed progress record of a relay. Its first record has the number 0, which is of
// no batch: it claims the relay name for the database.
struct Progress {
  Identity identity;
  std::int64_t epoch = 0;
  std::int64_t number = 0;
  Uuid token;
  std::optional<Uuid> previous;  // token of the batch before it
};

// The database: its sessions, which Reader, Journal and Lease use.
class Database {
 public:
  virtual ~Database() = default;
  // Opens new sessions and checks the server. Pages and snapshots that were read before are void.
  //   refused   a guarantee could not be kept on this database.
  virtual Result<Identity> connect() = 0;
};

// Reads messages in order. Never blocks, but in reread().
class Reader {
 public:
  virtual ~Reader() = default;
  // Forgets what was read ahead; the next page begins at `cursor`.
  virtual void reset(const Cursor& cursor) = 0;
  // Asks for the next page, unless it is being read or lies ready.
  virtual Result<void> want() = 0;
  // Goes on with a read; true when there is news: a page to take, or nothing found.
  virtual Result<bool> advance() = 0;
  // The page that was read, once. nullopt: nothing new was visible.
  virtual std::optional<Page> take() = 0;
  // Reads the rows of `batch` again, without those parked for it and, of a release, those
  // discarded.
  //   refused   fewer or other rows than the journal says: something deleted or hid them.
  virtual Result<Page> reread(const Batch& batch) = 0;
};

// The relay's memory of what it sent. Only appends. Each write is refused (Fault::fenced) when
// `epoch` does not hold the lease.
class Journal {
 public:
  virtual ~Journal() = default;
  virtual Result<std::optional<Batch>> newest() = 0;
  virtual Result<std::optional<Predecessor>> before(std::int64_t number) = 0;
  virtual Result<bool> knows(const Uuid& token) = 0;

  // Appends `next`, parks `parked` of it, and marks `confirmed` delivered, in one commit; fills
  // next.opened_at. Once it has returned, every message of the batch is durable, whatever commit
  // mode the application used.
  //   in_doubt  the connection broke, or the wait for the synchronous standby was cancelled:
  //   nothing may be sent before
  //             recovery has looked for the token.
  virtual Result<void> open(Batch& next, std::span<const Rejection> parked,
                            const std::optional<Confirmed>& confirmed, bool renew_lease) = 0;
  // The same for parked messages that an operator has decided about, in the order of their keys:
  // chooses them, at most release_messages_max, and appends a batch with them that has the position
  // of the batch before it. `next` names the number, epoch, token and mode; the rest is filled in.
  // Reader::reread() then reads what is to be sent.
  //   false     there was nothing to release; nothing was written.
  //   in_doubt  as open().
  virtual Result<bool> open_release(Batch& next, const std::optional<Confirmed>& confirmed) = 0;
  // Marks a batch delivered, by itself.
  virtual Result<void> mark_delivered(std::int64_t epoch, const Confirmed& confirmed) = 0;
  // Parks messages of `batch`, which is open and in doubt.
  virtual Result<void> park(std::int64_t epoch, const Batch& batch,
                            std::span<const Rejection> parked) = 0;
  // Topics of which unreleased messages with a key are parked, at most `count_max` of them.
  virtual Result<std::vector<std::string>> topics_with_blocked_keys(std::size_t count_max) = 0;
  // Of `messages`, all of batch `number`, those whose (topic, key) is blocked by an unreleased
  // message that was parked for an earlier batch, or for this one and comes before; ascending
  // indexes.
  virtual Result<std::vector<std::size_t>> blocked(std::int64_t number,
                                                   std::span<const Message* const> messages) = 0;
};

// Who may write to the journal.
class Lease {
 public:
  struct Taken {
    std::int64_t epoch;
    bool continued;  // it was ours until now: nobody else held it in between
  };
  virtual ~Lease() = default;
  // Whether take() would be tried: the lease is free, expired, ours, or unchanged for one ttl by
  // our own clock.
  virtual Result<bool> available() = 0;
  // Takes it if it is still available; nullopt: somebody else was faster.
  virtual Result<std::optional<Taken>> take() = 0;
  virtual Result<void> renew() = 0;
  // Gives it up, so that a standby takes over at once.
  virtual Result<void> resign() = 0;
  // Whether we still may act as the holder, by our own clock.
  virtual bool held() const = 0;
  // Whether a third of the ttl has passed since the last sign of life.
  virtual bool due() const = 0;
  // A sign of life was committed by an open() that was sent at `sent`.
  virtual void extended(Clock::time_point sent) = 0;
};

// Kafka may take many seconds for an answer: this is called about once a second while it is waited
// for, and its error ends the attempt.
using Meanwhile = std::function<Result<void>()>;
inline Result<void> nothing_meanwhile() { return {}; }

// Writes to Kafka and reads its progress records.
class Producer {
 public:
  virtual ~Producer() = default;
  // The newest committed progress record; changes nothing in Kafka. With `to_the_end`, which needs
  // renew() before it, the answer counts only when nothing can lie behind it; an error means
  // "unknown": ask again.
  virtual Result<std::optional<Progress>> newest_progress(bool to_the_end,
                                                          const Meanwhile& meanwhile) = 0;
  // Destroys the producer and makes a new incarnation for `mode`, which fences every older one. In
  // exactly-once mode, what was open in Kafka has ended when it returns.
  virtual Result<void> renew(Mode mode, const Meanwhile& meanwhile) = 0;
  // From the next incarnation on, a record batch holds at most so many messages; 0: as many as fit.
  // If that is a change, the present incarnation is no longer clean.
  virtual void limit_record_batches(std::size_t messages_max) = 0;
  // Destroys the producer: nothing more of this batch is sent by this process.
  virtual void abandon() = 0;
  // Whether there is an incarnation for `mode` all of whose transactions were clean, so that
  // another may begin on it.
  virtual bool clean(Mode mode) const = 0;
  // Returns the messages of `page` that cannot be sent. May look topics up. `stamp` is the time
  // that their records will bear, which some topics bound; nullopt: now.
  virtual Result<Validation> validate(const Page& page, std::optional<Timestamp> stamp) = 0;
  // Discards what the cluster said about topics that could not be written to: validate() asks
  // again.
  virtual void recheck_unwritable() = 0;
  virtual Result<void> begin() = 0;
  // Hands over all messages of the page but the masked ones, then the progress record. The page
  // must live until abandon(), or until commit() has returned.
  //   pending   everything was handed over.
  //   refused   Kafka has refused a message already; reported() will say so as well, with all that
  //   it refused by then.
  virtual Result<Delivery> send(const Batch& batch, const Page& page, const PageMask& masked,
                                const Progress& progress) = 0;
  // Serves delivery reports.
  virtual Result<Delivery> reported() = 0;
  // The messages that Kafka would not take, in no order.
  virtual const std::vector<Rejection>& refused() const = 0;
  // Whether each of them cannot be sent by itself. Otherwise some only were in a record batch with
  // one that cannot.
  virtual bool isolated() const = 0;
  // Exactly-once: commits the transaction. At-least-once: writes the progress record. Then the
  // batch is delivered.
  virtual Result<Offsets> commit() = 0;
  // One question to the cluster: is it there?
  virtual Result<void> probe() = 0;
};

// What goes on beside the stream while the lease is ours: retention, scheduled messages that fall
// due, and the search for decisions about parked messages.
class Maintenance {
 public:
  virtual ~Maintenance() = default;
  virtual void start(std::int64_t epoch) = 0;
  virtual void stop() = 0;
  // Whether, since the last call, parked messages were found that can be released.
  virtual bool found_releasable() = 0;
};

// The clock, and waiting.
class Poller {
 public:
  virtual ~Poller() = default;
  virtual Clock::time_point now() const = 0;
  // Returns when PostgreSQL or Kafka has something, a signal came, or `at_most` is over.
  virtual void wait(std::chrono::microseconds at_most) = 0;
  // Whether the loop is asked to end …
  virtual bool stop_requested() const = 0;
  // … only to begin again in the same process, so that the lease is not given up.
  virtual bool restart_requested() const = 0;
};

}  // namespace relay
