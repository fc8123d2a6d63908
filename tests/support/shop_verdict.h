// SPDX-License-Identifier: Apache-2.0
// Compares what the shop committed, by its own tables, with what a read_committed consumer of its
// topics sees. Relies on no counter of the relay or of the shop, and nothing of the schema outbox.
#pragma once

#include <chrono>
#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

namespace relay::test {

// Counts effects: one message for each.
struct ShopVerdict {
  std::int64_t committed = 0;    // rows of shop.effect
  std::int64_t rolled_back = 0;  // planned in shop.attempt, and no row of shop.effect
  std::int64_t arrived = 0;      // committed, and in Kafka
  std::int64_t repeated = 0;     // further copies in Kafka of one that arrived
  std::int64_t lost = 0;         // committed, and not in Kafka
  std::int64_t ghosts =
      0;  // in Kafka, and not committed as it is there (another topic or key counts as well)
  std::int64_t reordered =
      0;  // first copies that follow, in their partition, a later one of the same key
  static constexpr std::size_t examples_max = 10;
  std::vector<std::string> examples;  // of what is wrong, the first few
  std::vector<std::string> unread;  // see KafkaLog; if there are any, nothing can be said for sure

  // A run in which nothing was committed shows nothing, and is not good.
  bool good() const {
    return committed > 0 && repeated == 0 && lost == 0 && ghosts == 0 && reordered == 0 &&
           unread.empty();
  }
};

// Call it when the shop has ended and the relay has nothing left to send. Throws when a server does
// not answer.
ShopVerdict check_shop(const std::string& dsn, const std::string& brokers,
                       std::chrono::milliseconds timeout = std::chrono::seconds(30));

// Prints the closing table.
std::ostream& operator<<(std::ostream& out, const ShopVerdict& verdict);

}  // namespace relay::test
