// SPDX-License-Identifier: Apache-2.0
#include "relay/commands/trace_text.h"

#include <cstdio>

#include "relay/commands/output.h"

namespace relay {
namespace {

constexpr const char* no_relay = "No relay is running: it continues when a relay is started.";

std::string kafka_sentence(const Json& j, bool in_doubt) {
  const Json& verdict = j["kafka"]["verdict"];
  if (verdict == "found") {
    if (!in_doubt) return "It was read back from Kafka just now.";
    return j["batch"]["mode"] == "exactly-once" ? "Kafka has it: its transaction was committed, "
                                                  "and the next relay marks it delivered."
                                                : "Kafka has this message already.";
  }
  if (verdict == "expired") {
    return "It expired from the topic: the retention of the topic has deleted its segment.";
  }
  if (verdict == "undecided") {
    return "Whether Kafka has it could not be determined in time: an open transaction hides the "
           "end of "
           "the topic. Run the command again.";
  }
  if (verdict == "no_topic") return "The topic does not exist any more.";
  if (verdict == "unreachable") return "Kafka is not reachable.";
  return in_doubt
             ? "A read_committed consumer does not see it."
             : "The topic does not have it, although nothing was deleted from its start: the topic "
               "was compacted, or created again.";
}

std::string parked_sentence(const Json& parked) {
  if (parked.empty()) return "It was released just now.";  // between two statements
  const Json& last = parked.back();
  const std::string text = "It could not be sent, and is parked: " + last["error_class"].text() +
                           ", " + last["error_text"].text() + ". ";
  if (last["resolution"].is_null()) return text + "It waits for a decision.";
  return text + "The decision is to " + last["resolution"].text() + " it.";
}

std::string discarded_sentence(const Json& parked) {
  const Json& last = parked.back();
  return "It could not be sent, and " + last["decided_by"].text() + " decided to discard it" +
         (last["decided_why"].is_null() ? "." : ": " + last["decided_why"].text() + ".");
}

std::string in_doubt_sentence(const Json& j) {
  const bool exactly_once = j["batch"]["mode"] == "exactly-once";
  return std::string(
             "Its batch is in doubt: the relay that sent it ended before Kafka had confirmed it. "
             "The next relay ") +
         (exactly_once
              ? "reads its progress record, and sends the batch again only if Kafka does not "
                "have it. "
              : "sends the batch again, with the same deduplication keys. ") +
         kafka_sentence(j, true);
}

void print_batch(const Json& j) {
  const Json& b = j["batch"];
  if (b.is_null()) return;
  print_field("batch", shown(b["number"]) + ", " + shown(b["mode"]) + ", opened at " +
                           shown(b["opened_at"]));
  if (b["delivered_at"].is_null() || j["state"] == "parked") return;
  print_field("delivered", shown(b["delivered_at"]));
}

void print_parked(const Json& parked) {
  for (const Json& p : parked) {
    const std::string released =
        p["released_in"].is_null() ? "" : ", released in batch " + shown(p["released_in"]);
    print_field("parked", shown(p["parked_at"]) + ", " + shown(p["error_class"]) + ", of batch " +
                              shown(p["parked_for"]) + released);
  }
}

void print_kafka(const Json& k) {
  if (k.is_null()) return;
  if (k["verdict"] == "found") {
    print_field("Kafka", "partition " + shown(k["partition"]) + ", offset " + shown(k["offset"]));
  } else {
    print_field("Kafka",
                k["verdict"] == "expired" ? "expired from the topic" : shown(k["verdict"]));
  }
}

void print_consumed(const Json& consumed) {
  if (consumed.is_null()) return;
  for (const Json& c : consumed) {
    const std::string reason = c["reason"].is_null() ? "" : ": " + shown(c["reason"]);
    print_field("consumed", "by " + shown(c["consumer"]) + " at " + shown(c["accepted_at"]) + ", " +
                                shown(c["state"]) + reason);
  }
}

void print_effects(const Json& effects) {
  if (effects.is_null()) return;
  for (const Json& e : effects) {
    std::string line = shown(e["id"]) + " at " + shown(e["provider"]) + ": " + shown(e["state"]);
    if (!e["settled_at"].is_null()) line += " at " + shown(e["settled_at"]);
    if (!e["request_id"].is_null()) line += ", request " + shown(e["request_id"]);
    if (!e["object"].is_null()) line += ", object " + shown(e["object"]);
    print_field("effect", line);
  }
}

}  // namespace

std::string explain(const TracedMessage& message) {
  const Json& j = message.json;
  const std::string& state = j["state"].text();
  const auto relay_will = [&](const char* what) {
    return message.holder.empty() ? std::string(no_relay)
                                  : "The relay " + message.holder + " will " + what + " it.";
  };
  if (state == "pending") {
    return "It is committed, and in no batch yet. " + relay_will("read");
  }
  if (state == "scheduled") {
    if (!message.due) {
      return "It is committed, and not to be delivered before " + j["deliver_at"].text() + ".";
    }
    return "It is due, and not yet moved into the outbox. " + relay_will("move");
  }
  if (state == "sending") {
    return "Its batch is being sent by the relay " + message.holder + ", and not confirmed yet.";
  }
  if (state == "parked") return parked_sentence(j["parked"]);
  if (state == "discarded") return discarded_sentence(j["parked"]);
  return state == "delivered" ? kafka_sentence(j, false) : in_doubt_sentence(j);
}

void print_message(const Json& j) {
  std::printf("message %s: %s\n", shown(j["id"]).c_str(), shown(j["state"]).c_str());
  print_field("topic", shown(j["topic"]));
  print_field("dedup key", shown(j["dedup_key"]));
  if (!j["seq"].is_null()) print_field("seq", shown(j["seq"]));
  print_field("written at", shown(j["created_at"]));
  if (!j["deliver_at"].is_null()) print_field("due at", shown(j["deliver_at"]));
  print_batch(j);
  print_parked(j["parked"]);
  print_kafka(j["kafka"]);
  print_consumed(j["consumed"]);
  print_effects(j["effects"]);
  std::printf("  %s\n", shown(j["explanation"]).c_str());
}

}  // namespace relay
