// SPDX-License-Identifier: Apache-2.0
// A provider: whoever carries out an effect outside the database (sends the e-mail, makes the charge, stores the upload), as an
// EffectWorker sees it.
//
// An adapter makes one attempt when it is asked to, and says how far it got. It never repeats anything, never decides what an
// attempt means for the effect, and never throws: those are the ledger's (include/outbox/effect.h).
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>

namespace outbox {
inline namespace v1 {

// How far an attempt got on the wire. What it says must have been seen there, not guessed from the kind of error.
enum class Phase {
  nothing,   // nothing was written that could have an effect: free to repeat
  partly,    // some of what has the effect was written
  sent,      // all of it was written, and no complete answer was read
  answered,  // the provider answered; see Answer
};

// What the provider said. Only an attempt that was answered has one, with one exception: a request that could never be sent, say
// one with a line feed in an address, is `refused` by the adapter at Phase::nothing, and Outcome::error says why.
enum class Answer {
  none,          // it was not answered
  done,          // carried out, now or earlier under the same key
  refused,       // it will not carry out this request, now or later
  not_now,       // it did not carry it out, and may be asked again (HTTP 429, SMTP 4yz)
  in_progress,   // an earlier attempt is still under way (HTTP 409)
  unauthorized,  // it does not know us: nothing was carried out, and no other request will fare better (HTTP 401, 403)
  failing,       // it failed and may have carried it out (HTTP 5xx)
  absent,        // to ask(): it has no such effect
};

// What is to be carried out. Every attempt of one effect is given the same.
struct Request {
  // Identity of the effect at this provider.
  std::string effect_key;
  // What the provider can tell a repeat by, say an idempotency key. A new generation of it is a new request to the provider.
  std::string provider_key;
  // Where it goes, in the adapter's terms: see the adapter.
  std::map<std::string, std::string> target{};
  // The bytes that are sent.
  std::string body{};
};

// What came of an attempt: evidence, which the ledger keeps.
struct Outcome {
  Phase phase = Phase::nothing;
  Answer answer = Answer::none;
  // Status of the answer in the provider's protocol (HTTP 201, SMTP 250), also of one that broke off later; 0: none.
  int status = 0;
  // What the provider calls this attempt in its own logs; empty: it did not say.
  std::string request_id{};
  // What the provider calls the thing that it made, say a charge's id; empty: it did not say.
  std::string object{};
  // The beginning of its answer, at most 4 KiB.
  std::string response{};
  // What went wrong, for a person; empty: nothing.
  std::string error{};
  // How long the provider wants to be left alone.
  std::optional<std::chrono::milliseconds> retry_after{};
};

// An adapter for one account at one provider. Used by one thread at a time.
class Provider {
 public:
  using Deadline = std::chrono::steady_clock::time_point;

  virtual ~Provider() = default;

  // Makes one attempt and returns before the deadline.
  virtual Outcome call(const Request& request, Deadline deadline) = 0;

  // Asks whether the effect was carried out, without carrying it out: done, absent, or an outcome without an answer.
  // REQUIRES: supports_lookup().
  virtual Outcome lookup(const Request& request, Deadline deadline);
  virtual bool supports_lookup() const { return false; }

 protected:
  Provider() = default;
  Provider(const Provider&) = delete;
  Provider& operator=(const Provider&) = delete;
};

}  // namespace v1
}  // namespace outbox
