// SPDX-License-Identifier: Apache-2.0
#include "tests/support/shop_verdict.h"

#include <algorithm>
#include <iomanip>
#include <map>
#include <ostream>
#include <pqxx/pqxx>
#include <tuple>
#include <unordered_map>

#include "tests/support/kafka_log.h"

namespace relay::test {
namespace {

const std::vector<std::string> topics = {"shop.emails", "shop.charges", "shop.uploads"};

struct Effect {
  std::string topic;
  std::string key;
  std::int64_t nth = 0;  // rises with each effect of the key
  int copies = 0;
};
using Effects = std::unordered_map<std::string, Effect>;

Effects committed_effects(pqxx::dbtransaction& tx) {
  Effects effects;
  for (const auto& row : tx.exec("select id, 'shop.' || kind, key, nth from shop.effect")) {
    effects[row[0].as<std::string>()] = {row[1].as<std::string>(), row[2].as<std::string>(),
                                         row[3].as<std::int64_t>()};
  }
  return effects;
}

class ShopChecker {
 public:
  ShopChecker(Effects& effects, ShopVerdict& verdict) : effects_(effects), verdict_(verdict) {}

  void see(const KafkaRecord& record) {
    const std::string id = record.header("dedup-key").value_or("(no dedup-key)");
    const auto found = effects_.find(id);
    if (found == effects_.end() || found->second.topic != record.topic ||
        found->second.key != record.key) {
      return count(verdict_.ghosts, "ghost", id, record);
    }
    Effect& effect = found->second;
    if (++effect.copies > 1) return count(verdict_.repeated, "repeated", id, record);
    ++verdict_.arrived;
    std::int64_t& last = last_[{record.topic, record.partition, effect.key}];
    if (effect.nth <= last) count(verdict_.reordered, "reordered", id, record);
    last = std::max(last, effect.nth);
  }

  void finish() {
    for (const auto& [id, effect] : effects_) {
      if (effect.copies > 0) continue;
      ++verdict_.lost;
      example("lost: " + id + " for " + effect.topic + ", key " + effect.key);
    }
  }

 private:
  void count(std::int64_t& counter, const char* what, const std::string& id,
             const KafkaRecord& record) {
    ++counter;
    example(std::string(what) + ": " + id + " in " + record.topic + "[" +
            std::to_string(record.partition) + "] at " + std::to_string(record.offset) + ", key " +
            record.key.value_or("(none)"));
  }
  void example(std::string text) {
    if (verdict_.examples.size() < ShopVerdict::examples_max)
      verdict_.examples.push_back(std::move(text));
  }

  Effects& effects_;
  ShopVerdict& verdict_;
  std::map<std::tuple<std::string, std::int32_t, std::string>, std::int64_t>
      last_;  // the highest nth seen
};

}  // namespace

ShopVerdict check_shop(const std::string& dsn, const std::string& brokers,
                       std::chrono::milliseconds timeout) {
  ShopVerdict verdict;
  pqxx::connection connection(dsn);
  pqxx::transaction<pqxx::repeatable_read> tx(connection);
  tx.exec("set transaction read only");
  Effects effects = committed_effects(tx);
  verdict.committed = static_cast<std::int64_t>(effects.size());
  verdict.rolled_back =
      tx.exec("select coalesce(sum(planned), 0) from shop.attempt")[0][0].as<std::int64_t>() -
      verdict.committed;

  const KafkaLog log = read_log(brokers, topics, Isolation::read_committed, timeout);
  verdict.unread = log.unread;
  ShopChecker checker(effects, verdict);
  for (const KafkaRecord& record : log.records) checker.see(record);
  checker.finish();
  return verdict;
}

std::ostream& operator<<(std::ostream& out, const ShopVerdict& verdict) {
  const std::pair<const char*, std::int64_t> lines[] = {
      {"committed", verdict.committed}, {"rolled back", verdict.rolled_back},
      {"arrived", verdict.arrived},     {"repeated", verdict.repeated},
      {"lost", verdict.lost},           {"ghosts", verdict.ghosts},
      {"reordered", verdict.reordered}};
  for (const auto& [name, number] : lines)
    out << std::left << std::setw(12) << name << std::right << std::setw(10) << number << '\n';
  for (const std::string& example : verdict.examples) out << "  " << example << '\n';
  for (const std::string& partition : verdict.unread)
    out << "  unknown: an open transaction hides the rest of " << partition << '\n';
  return out;
}

}  // namespace relay::test
