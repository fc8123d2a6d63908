// SPDX-License-Identifier: Apache-2.0
// Interface of a provider adapter, which executes effects outside the database (sends the e-mail,
// makes the charge, stores the upload).
//
//   class SmsProvider final : public outbox::Provider {
//    public:
//     outbox::Outcome call(const outbox::Request& request, Deadline deadline) override {
//       const SmsReply reply = send_sms(request.target.at("to"), request.body, deadline);
//       if (!reply.connected) return {.error = reply.error};  // Phase::nothing
//       if (!reply.answered) return {.phase = outbox::Phase::sent, .error = reply.error};
//       return {.phase = outbox::Phase::answered,
//               .answer = outbox::Answer::done,
//               .object = reply.id};
//     }
//   };
//
// An adapter makes one attempt per call and reports how far it got. It does not retry, does not
// decide the state of the effect, and does not throw: retries and states belong to the ledger
// (effect.h).
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>

namespace outbox {
inline namespace v1 {

// Progress of an attempt on the wire. Report what was observed there; do not infer it from the kind
// of error.
enum class Phase {
  nothing,   // nothing was written that could have an effect: safe to repeat
  partly,    // a part of the request was written
  sent,      // the whole request was written, and no complete answer was read
  answered,  // the provider answered; see Answer
};

// Answer of the provider. Set only at Phase::answered, with one exception: a request that cannot be
// sent, for example with a line feed in an address, is `refused` at Phase::nothing, with the reason
// in Outcome::error.
enum class Answer {
  none,          // no answer
  done,          // executed, now or earlier under the same key
  refused,       // rejected permanently
  not_now,       // not executed; retry later (HTTP 429, SMTP 4yz)
  in_progress,   // an earlier attempt is still in progress (HTTP 409)
  unauthorized,  // credentials rejected: not executed, and all requests will fail (HTTP 401, 403)
  failing,       // failed, and possibly executed (HTTP 5xx)
  absent,        // lookup() only: no such effect exists
};

// The request of an effect. Every attempt of one effect receives the same request.
struct Request {
  // Identity of the effect at this provider.
  std::string effect_key;
  // Idempotency key for the provider. A new key is a new request.
  std::string provider_key;
  // Destination, in the terms of the adapter.
  std::map<std::string, std::string> target{};
  // Bytes to send.
  std::string body{};
};

// Result of an attempt. The ledger keeps it as evidence.
struct Outcome {
  Phase phase = Phase::nothing;
  Answer answer = Answer::none;
  // Status in the provider's protocol (HTTP 201, SMTP 250), also of a truncated answer; 0: none.
  int status = 0;
  // The provider's identifier of this attempt, for its logs; empty: none.
  std::string request_id{};
  // The provider's identifier of the created object, for example a charge id; empty: none.
  std::string object{};
  // Beginning of the answer, at most 4 KiB.
  std::string response{};
  // Error description for operators; empty: no error.
  std::string error{};
  // Delay requested by the provider. Defaults to none.
  std::optional<std::chrono::milliseconds> retry_after{};
};

// Time since the machine was started, suspended or not (CLOCK_BOOTTIME). std::chrono::steady_clock
// stands still while a machine is suspended, and so would the end of a claim, while another worker
// takes it over.
struct BootClock {
  using duration = std::chrono::nanoseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<BootClock>;
  static constexpr bool is_steady = true;
  static time_point now() noexcept;
};

// Adapter for one account at one provider.
// Threads: an EffectWorker calls its adapters in the thread of run(), one call at a time.
class Provider {
 public:
  using Deadline = BootClock::time_point;

  virtual ~Provider() = default;

  // Makes one attempt and returns before the deadline. Nothing that can have an effect is sent
  // after it: check it again after each wait, because the machine may have been suspended
  // meanwhile.
  virtual Outcome call(const Request& request, Deadline deadline) = 0;

  // Queries whether the effect was executed, without executing it. Returns done, absent, or an
  // outcome without an answer.
  // REQUIRES: supports_lookup().
  virtual Outcome lookup(const Request& request, Deadline deadline);
  // Defaults to false.
  virtual bool supports_lookup() const { return false; }

 protected:
  Provider() = default;
  Provider(const Provider&) = delete;
  Provider& operator=(const Provider&) = delete;
};

}  // namespace v1
}  // namespace outbox
