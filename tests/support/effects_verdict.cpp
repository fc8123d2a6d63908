// SPDX-License-Identifier: Apache-2.0
#include "tests/support/effects_verdict.h"

#include <algorithm>
#include <fstream>
#include <iomanip>
#include <map>
#include <nlohmann/json.hpp>
#include <ostream>
#include <pqxx/pqxx>
#include <stdexcept>

namespace relay::test {
namespace {

// The id of the shop's effect in what a provider calls it: an address, a key or a path.
std::string id_of(const std::string& key) {
  const auto begin = key.find("order-");
  if (begin == std::string::npos) return key;
  return key.substr(begin, key.find_first_of("@.?#", begin) - begin);
}

// How often each effect was executed, by id.
std::map<std::string, int> executed(const std::string& log) {
  std::ifstream lines(log);
  if (!lines) throw std::runtime_error("the log of the providers cannot be read: " + log);
  std::map<std::string, int> times;
  for (std::string line; std::getline(lines, line);) {
    const auto entry = nlohmann::json::parse(line);
    if (entry.at("event") == "effect") ++times[id_of(entry.at("key").get<std::string>())];
  }
  return times;
}

struct PlannedEffect {
  std::string kind;
  std::string state = "planned";
  bool doubted = false;
};

std::map<std::string, PlannedEffect> committed(const std::string& dsn) {
  pqxx::connection connection(dsn);
  pqxx::transaction<pqxx::repeatable_read> tx(connection);
  std::map<std::string, PlannedEffect> effects;
  for (const auto& row : tx.exec(
           "select s.id, s.kind, coalesce(e.state, 'never planned'), e.in_doubt_since is not null "
           "from shop.effect s left join effect.effect e on e.dedup_key = s.id")) {
    effects[row[0].as<std::string>()] = {row[1].as<std::string>(), row[2].as<std::string>(),
                                         row[3].as<bool>()};
  }
  return effects;
}

}  // namespace

bool EffectsVerdict::good() const {
  return std::all_of(kinds.begin(), kinds.end(), [](const EffectsOfKind& k) {
    return k.asked > 0 && k.executed == k.asked && k.repeated == 0 && k.lost == 0 &&
           k.ghosts == 0 && k.resolved == k.in_doubt && k.contradicted == 0;
  });
}

EffectsVerdict check_effects(const std::string& dsn, const std::string& log) {
  EffectsVerdict verdict;
  const auto effects = committed(dsn);
  auto times = executed(log);
  const auto example = [&](const std::string& what, const std::string& id) {
    if (verdict.examples.size() < EffectsVerdict::examples_max)
      verdict.examples.push_back(what + ": " + id);
  };
  const auto of_kind = [&](const std::string& kind) -> EffectsOfKind& {
    const auto found = std::find_if(verdict.kinds.begin(), verdict.kinds.end(),
                                    [&](const EffectsOfKind& k) { return k.kind == kind; });
    if (found == verdict.kinds.end())
      throw std::runtime_error("the shop knows no effects of the kind " + kind);
    return *found;
  };
  for (const auto& [id, effect] : effects) {
    EffectsOfKind& k = of_kind(effect.kind);
    const int n = times[id];
    ++k.asked;
    k.executed += n > 0 ? 1 : 0;
    k.repeated += std::max(n - 1, 0);
    k.lost += n == 0 ? 1 : 0;
    if (n == 0) example("lost (" + effect.state + ")", id);
    if (n > 1) example("executed " + std::to_string(n) + " times", id);
    k.in_doubt += effect.doubted ? 1 : 0;
    k.resolved += effect.doubted && (effect.state == "done" || effect.state == "failed") ? 1 : 0;
    if ((effect.state == "done") != (n > 0)) {
      ++k.contradicted;
      example("the ledger says " + effect.state, id);
    }
    times.erase(id);
  }
  for (const auto& [id, n] : times) {
    of_kind(id.substr(std::min(id.rfind('-') + 1, id.size()))).ghosts += n;
    example("nobody asked for it", id);
  }
  return verdict;
}

std::ostream& operator<<(std::ostream& out, const EffectsVerdict& verdict) {
  out << std::left << std::setw(14) << "effects" << std::right;
  for (const EffectsOfKind& k : verdict.kinds) out << std::setw(10) << k.kind;
  out << '\n';
  const std::pair<const char*, std::int64_t EffectsOfKind::*> lines[] = {
      {"asked", &EffectsOfKind::asked},       {"executed", &EffectsOfKind::executed},
      {"repeated", &EffectsOfKind::repeated}, {"lost", &EffectsOfKind::lost},
      {"ghosts", &EffectsOfKind::ghosts},     {"in doubt", &EffectsOfKind::in_doubt},
      {"resolved", &EffectsOfKind::resolved}, {"contradicted", &EffectsOfKind::contradicted}};
  for (const auto& [name, member] : lines) {
    out << std::left << std::setw(14) << name << std::right;
    for (const EffectsOfKind& k : verdict.kinds) out << std::setw(10) << k.*member;
    out << '\n';
  }
  for (const std::string& example : verdict.examples) out << "  " << example << '\n';
  return out;
}

}  // namespace relay::test
