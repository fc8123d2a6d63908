// SPDX-License-Identifier: Apache-2.0
#include "tests/support/effect_model.h"

#include <algorithm>
#include <functional>
#include <random>
#include <stdexcept>

namespace relay::test {

// --- The rules ---------------------------------------------------------------------------------

bool ModelEffect::executed() const {
  return std::any_of(attempts.begin(), attempts.end(),
                     [](const auto& a) { return a.second.answer == "done"; });
}

std::string ModelEffect::next_step(const ModelRules& rules) const {
  if (executed()) return "late_answer";
  if (doubts >= rules.in_doubt_attempts_max) return "operator";
  if (rules.window && key == Key::live) return "repeat";
  if (rules.supports_lookup) return "lookup";
  return rules.hold ? "operator" : "repeat";
}

void ModelEffect::settled(const std::string& how, const std::string& why) {
  state = how;
  evidence = why;
}

std::string ModelEffect::doubt(const ModelRules& rules, bool counts) {
  doubts += counts ? 1 : 0;
  doubtful = true;
  return state = next_step(rules) == "operator" ? "needs_review" : "in_doubt";
}

void ModelEffect::expire(const ModelRules& rules) {
  overdue = false;
  doubt(rules, true);
}

std::optional<std::string> ModelEffect::take(const ModelRules& rules) {
  std::string step = next_step(rules);
  if (step == "late_answer") {
    settled("done", "late_answer");
    return std::nullopt;
  }
  if (state == "planned") {
    step = "call";
    const bool seen = std::any_of(attempts.begin(), attempts.end(),
                                  [](const auto& a) { return a.second.phase != "nothing"; });
    if (!rules.window) {
      key = Key::none;
    } else if (!seen || key == Key::none) {
      key = Key::live;
    }
  } else if (step == "operator") {
    state = "needs_review";
    return std::nullopt;
  }
  state = "claimed";
  attempts[++epoch] = {step};
  return step;
}

std::string ModelEffect::settle(const ModelRules& rules, std::int64_t of, const std::string& phase,
                                const std::string& answer, bool breaker_open) {
  ModelAttempt& a = attempts.at(of);
  const bool current = state == "claimed" && of == epoch;
  if (a.phase.empty()) {
    a.phase = phase;
    a.answer = answer;
    a.late = !current;
  } else if (of == epoch && !a.late && a.phase == phase && a.answer == answer) {
    return state;
  }
  if (!current) {
    if (a.answer == "done" && state != "done" && state != "failed" && state != "claimed")
      settled("done", "late_answer");
    return "stale";
  }
  overdue = false;
  const bool harmless = (a.phase == "nothing" && a.answer.empty()) || a.answer == "not_now" ||
                        a.answer == "unauthorized";
  const std::string how = a.kind == "call" ? "answer" : a.kind;
  if (a.answer == "done") {
    settled("done", how);
  } else if (executed()) {
    settled("done", "late_answer");
  } else if (a.answer == "refused" && a.kind != "lookup" &&
             (!doubtful || (a.phase == "answered" && key == Key::live))) {
    settled("failed", how);
  } else if (a.answer == "absent" || (harmless && !doubtful)) {
    state = "planned";
    doubtful = false;
  } else {
    const auto fails = [](const ModelAttempt& x) {
      return x.answer == "failing" || x.answer == "unauthorized" || x.answer == "not_now";
    };
    const bool again = fails(a) && std::any_of(attempts.begin(), attempts.find(of),
                                               [&](const auto& x) { return fails(x.second); });
    return doubt(rules, !harmless && !((breaker_open || again) && key == Key::live));
  }
  return state;
}

std::optional<std::string> ModelEffect::resolve(const ModelRules& rules,
                                                const std::string& resolution) {
  if (state == "claimed" && overdue) expire(rules);
  const bool doubted = state == "in_doubt" || state == "needs_review";
  if (!doubted && (state != "planned" || resolution != "failed")) return std::nullopt;
  if (resolution == "resend") {
    state = "planned";
    ++generation;
    doubts = 0;
    key = Key::none;
    doubtful = false;
  } else {
    settled(resolution, "decision");
  }
  return state;
}

namespace {

// --- The random run ----------------------------------------------------------------------------

struct Objection : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Ended {
  const char* phase;
  const char* answer;
};
constexpr Ended ends[] = {{"nothing", ""},
                          {"nothing", "refused"},
                          {"partly", ""},
                          {"sent", ""},
                          {"sent", ""},
                          {"answered", "done"},
                          {"answered", "refused"},
                          {"answered", "not_now"},
                          {"answered", "failing"},
                          {"answered", "in_progress"},
                          {"answered", "absent"},
                          {"answered", "unauthorized"},
                          {"answered", ""},
                          {"sent", "done"},
                          {"nothing", "not_now"},
                          {"partly", "refused"}};

class Run {
 public:
  Run(TestLedger& db, std::uint64_t seed)
      : owner_(db.dsn()), worker_(db.login("effect_worker")), random_(seed) {
    change_rules();
  }

  void step() {
    static constexpr void (Run::*steps[])() = {
        &Run::plan,    &Run::plan,   &Run::claim,  &Run::claim,   &Run::claim,
        &Run::retry,   &Run::retry,  &Run::retry,  &Run::settle,  &Run::settle,
        &Run::settle,  &Run::settle, &Run::settle, &Run::settle,  &Run::expire,
        &Run::resolve, &Run::forge,  &Run::age,    &Run::breaker, &Run::change_rules};
    arrange();
    (this->*steps[pick(std::size(steps))])();
    compare();
  }
  const std::string& transcript() const { return transcript_; }

 private:
  std::size_t pick(std::size_t n) {
    return std::uniform_int_distribution<std::size_t>(0, n - 1)(random_);
  }
  std::string quoted(const std::string& text) { return text.empty() ? "null" : owner_.quote(text); }
  void note(const std::string& what) { transcript_ += what + "\n"; }

  pqxx::result sql(pqxx::connection& connection, const std::string& statement) {
    pqxx::nontransaction tx(connection);
    return tx.exec(statement);
  }
  // What the worker is answered; nothing: it is refused.
  std::optional<std::string> ask(pqxx::connection& connection, const std::string& statement) {
    try {
      const auto rows = sql(connection, statement);
      return rows.empty() || rows.columns() == 0 ? "" : std::string(rows[0][0].c_str());
    } catch (const pqxx::sql_error& e) {
      note(std::string("  refused: ") + e.what());
      return std::nullopt;
    }
  }
  void expect(const std::string& what, const std::optional<std::string>& said,
              const std::optional<std::string>& expected) {
    if (said != expected) {
      throw Objection(what + ": the ledger says " + said.value_or("(refused)") + ", the model " +
                      expected.value_or("(refused)"));
    }
  }
  // What time and throttling would do, under control: behind the back of the triggers.
  void quietly(const std::string& statement) {
    sql(owner_, "set session_replication_role = replica; " + statement +
                    "; set session_replication_role = origin");
  }
  void arrange() {
    quietly(
        "update effect.effect set not_before = 'infinity'; update effect.throttle set tokens = "
        "1000, failures = 0, opened = 0, probing_until = "
        "null, open_until = " +
        std::string(breaker_open_ ? "clock_timestamp() - interval '1 millisecond'" : "null"));
  }

  std::optional<std::int64_t> any(const std::function<bool(const ModelEffect&)>& wanted) {
    std::vector<std::int64_t> ids;
    for (const auto& [id, e] : effects_) {
      if (wanted(e)) ids.push_back(id);
    }
    if (ids.empty()) return std::nullopt;
    return ids[pick(ids.size())];
  }

  void change_rules() {
    rules_ = {pick(2) == 0, pick(3) != 0, pick(2) == 0, 1 + static_cast<int>(pick(4))};
    note("register hold=" + std::to_string(rules_.hold) + " window=" +
         std::to_string(rules_.window) + " ask=" + std::to_string(rules_.supports_lookup) +
         " in_doubt_attempts_max=" + std::to_string(rules_.in_doubt_attempts_max));
    sql(worker_,
        std::string("select effect.register('p', jsonb_build_object('in_doubt_policy', '") +
            (rules_.hold ? "hold" : "resend") + "', 'idempotency_window', " +
            (rules_.window ? "'10 hours'" : "null") + ", 'supports_lookup', " +
            (rules_.supports_lookup ? "true" : "false") + ", 'in_doubt_attempts_max', " +
            std::to_string(rules_.in_doubt_attempts_max) +
            ", 'window_margin', '0', 'lookup_delay', '0', 'claim_ttl', '1 hour', 'retry_first', '1 "
            "hour', 'retry_max', '1 hour', "
            "'retry_budget_burst', 1000, 'breaker_failures', 1000000, 'probe_first', '1 hour'))");
  }
  void breaker() {
    breaker_open_ = !breaker_open_;
    note(breaker_open_ ? "breaker opens" : "breaker closes");
  }
  void plan() {
    if (std::count_if(effects_.begin(), effects_.end(),
                      [](const auto& e) { return e.second.evidence.empty(); }) >= 8)
      return;
    const std::string key = "k" + std::to_string(effects_.size());
    const auto id = ask(worker_, "select effect.plan('p', '" + key + "', '{}', 'body')");
    note("plan " + key + " = " + id.value_or("?"));
    if (!id) throw Objection("plan is refused");
    effects_[std::stoll(*id)] = {};
    expect("the same effect again",
           ask(worker_, "select effect.plan('p', '" + key + "', '{}', 'body')"), id);
    expect("another request", ask(worker_, "select effect.plan('p', '" + key + "', '{}', 'other')"),
           std::nullopt);
  }

  void expire_overdue() {
    for (auto& [id, e] : effects_) {
      if (e.overdue) e.expire(rules_);
    }
  }
  std::optional<std::string> claimed(std::int64_t id, const std::string& kind) {
    return std::to_string(id) + " " + std::to_string(effects_[id].epoch) + " " + kind;
  }
  std::string claim_statement() const {
    return "select coalesce(string_agg(effect_id || ' ' || epoch || ' ' || kind, ', '), '') from "
           "effect.claim('p', 'w', 1)";
  }
  // An effect that was not attempted yet, the oldest first.
  void claim() {
    note("claim");
    expire_overdue();
    const auto first = std::find_if(effects_.begin(), effects_.end(), [](const auto& e) {
      return e.second.state == "planned" && e.second.epoch == 0;
    });
    std::optional<std::string> expected = "";
    if (first != effects_.end()) {
      const auto kind = first->second.take(rules_);
      if (kind) expected = claimed(first->first, *kind);
    }
    expect("claim", ask(worker_, claim_statement()), expected);
  }
  // One whose next attempt is due.
  void retry() {
    const auto id = any([](const ModelEffect& e) {
      return e.state == "in_doubt" || (e.state == "planned" && e.epoch > 0);
    });
    if (!id) return;
    note("retry of " + std::to_string(*id));
    quietly("update effect.effect set not_before = clock_timestamp() where id = " +
            std::to_string(*id));
    expire_overdue();
    const auto kind = effects_[*id].take(rules_);
    expect("claim", ask(worker_, claim_statement()), kind ? claimed(*id, *kind) : "");
  }

  void settle() {
    const auto id = any([&](const ModelEffect& e) {
      return e.epoch > 0 && (e.state == "claimed" || pick(3) == 0);
    });
    if (!id) return;
    ModelEffect& e = effects_[*id];
    const std::int64_t epoch =
        pick(4) == 0 ? 1 + static_cast<std::int64_t>(pick(static_cast<std::size_t>(e.epoch)))
                     : e.epoch;
    const auto [phase, answer] = ends[pick(std::size(ends))];
    settle_with(*id, epoch, phase, answer);
    if (pick(3) == 0) settle_with(*id, epoch, phase, answer);
  }
  void settle_with(std::int64_t id, std::int64_t epoch, const std::string& phase,
                   const std::string& answer) {
    note("settle " + std::to_string(id) + " epoch " + std::to_string(epoch) + " " + phase + "/" +
         answer);
    ModelEffect& e = effects_[id];
    const bool contradiction = ((phase == "answered") != !answer.empty() &&
                                !(phase == "nothing" && answer == "refused")) ||
                               (answer == "absent" && e.attempts[epoch].kind != "lookup");
    const auto said =
        ask(worker_, "select effect.settle(" + std::to_string(id) + ", " + std::to_string(epoch) +
                         ", " + quoted(phase) + ", " + quoted(answer) + ", error => 'model')");
    if (contradiction && e.attempts[epoch].phase.empty())
      return expect("settle", said, std::nullopt);
    expect("settle", said, e.settle(rules_, epoch, phase, answer, breaker_open_));
  }

  void expire() {
    const auto id = any([](const ModelEffect& e) { return e.state == "claimed"; });
    if (!id) return;
    note("claim of " + std::to_string(*id) + " expires");
    effects_[*id].overdue = true;
    const std::string number = std::to_string(*id);
    quietly(
        "update effect.effect set claim_expires_at = clock_timestamp() - interval '1 second' where "
        "id = " +
        number +
        "; update effect.attempt set started_at = started_at - interval '2 hours' where "
        "finished_at is null and effect = " +
        number);
  }
  // The provider forgets the key.
  void age() {
    const auto id = any(
        [](const ModelEffect& e) { return e.key == ModelEffect::Key::live && e.evidence.empty(); });
    if (!id || pick(2) == 0) return;
    note("key of " + std::to_string(*id) + " ends");
    effects_[*id].key = ModelEffect::Key::dead;
    quietly(
        "update effect.effect set key_valid_until = clock_timestamp() - interval '5 hours' where "
        "id = " +
        std::to_string(*id));
  }
  void resolve() {
    if (pick(2) == 0) return;
    const auto id = any([](const ModelEffect&) { return true; });
    if (!id) return;
    static constexpr const char* resolutions[] = {"done", "failed", "resend"};
    const std::string resolution = resolutions[pick(3)];
    note("resolve " + std::to_string(*id) + " " + resolution);
    const auto expected = effects_[*id].resolve(rules_, resolution);
    expect("resolve",
           ask(owner_, "select effect.resolve(" + std::to_string(*id) + ", '" + resolution +
                           "', 'model', 'at random')"),
           expected);
  }
  // What nothing speaks for.
  void forge() {
    const auto id = any([](const ModelEffect& e) { return e.epoch > 0; });
    if (!id) return;
    static constexpr const char* changes[] = {
        "effect.effect set state = 'done', settled_at = clock_timestamp(), evidence = 'answer', "
        "worker = null, claim_expires_at = null",
        "effect.effect set state = 'failed', settled_at = clock_timestamp(), evidence = 'repeat', "
        "worker = null, claim_expires_at = null",
        "effect.effect set state = 'done', settled_at = clock_timestamp(), evidence = 'decision', "
        "worker = null, claim_expires_at = null",
        "effect.effect set epoch = epoch + 1",
        "effect.effect set generation = generation + 1",
        "effect.effect set in_doubt_attempts = in_doubt_attempts + 1",
        "effect.effect set key_valid_until = 'infinity'",
        "effect.effect set state = 'claimed', worker = 'thief', claim_expires_at = 'infinity'"};
    const std::string change = changes[pick(std::size(changes))];
    note("forge " + std::to_string(*id) + " " + change);
    expect("forged", ask(worker_, "update " + change + " where id = " + std::to_string(*id)),
           std::nullopt);
    const std::string at = std::to_string(*id) + ", " + std::to_string(effects_[*id].epoch);
    if (!effects_[*id].attempts[effects_[*id].epoch].phase.empty()) {
      expect("evidence changed",
             ask(worker_,
                 "update effect.attempt set phase = 'nothing', answer = null where (effect, epoch) "
                 "= (" +
                     at + ")"),
             std::nullopt);
    }
    expect("evidence added",
           ask(worker_, "insert into effect.attempt (effect, epoch, kind, worker) values (" + at +
                            " + 1, 'call', 'w')"),
           std::nullopt);
  }

  static std::string line(std::int64_t id, const ModelEffect& e) {
    std::string text = std::to_string(id) + " " + e.state + " epoch " + std::to_string(e.epoch) +
                       " generation " + std::to_string(e.generation) + " doubts " +
                       std::to_string(e.doubts) + " " + e.evidence +
                       (e.doubtful ? " doubtful" : "") + " key ";
    text += e.key == ModelEffect::Key::none   ? "none"
            : e.key == ModelEffect::Key::live ? "live"
                                              : "dead";
    for (const auto& [epoch, a] : e.attempts) {
      text += " | " + std::to_string(epoch) + " " + a.kind + " " + a.phase + "/" + a.answer +
              (a.late ? " late" : "");
    }
    return text;
  }
  void compare() {
    const auto rows =
        sql(owner_,
            "select e.id, e.id || ' ' || e.state || ' epoch ' || e.epoch || ' generation ' || "
            "e.generation || ' doubts ' || e.in_doubt_attempts || "
            "' ' || coalesce(e.evidence, '') || case when e.in_doubt_since is not null then ' "
            "doubtful' else '' end || ' key ' || "
            "case when e.key_valid_until is null then 'none' "
            "when e.key_valid_until > clock_timestamp() then 'live' else 'dead' end || "
            "coalesce((select string_agg(' | ' || a.epoch "
            "|| ' ' || a.kind || ' ' || coalesce(a.phase, '') || '/' || coalesce(a.answer, '') || "
            "case when a.late then ' late' else '' end, '' order "
            "by a.epoch) from effect.attempt a where a.effect = e.id), '') from effect.effect e "
            "order by e.id");
    if (static_cast<std::size_t>(rows.size()) != effects_.size())
      throw Objection("another number of effects");
    for (const auto& row : rows) {
      const auto id = row[0].as<std::int64_t>();
      const std::string expected = line(id, effects_.at(id));
      if (row[1].c_str() != expected)
        throw Objection("the ledger: " + std::string(row[1].c_str()) + "\nthe model:  " + expected);
    }
  }

  pqxx::connection owner_, worker_;
  std::mt19937_64 random_;
  ModelRules rules_;
  bool breaker_open_ = false;
  std::map<std::int64_t, ModelEffect> effects_;
  std::string transcript_;
};

}  // namespace

std::optional<std::string> compare_with_model(TestLedger& db, std::uint64_t seed, int rounds) {
  Run run(db, seed);
  for (int i = 0; i < rounds; ++i) {
    try {
      run.step();
    } catch (const Objection& e) {
      const std::string transcript = run.transcript();
      return "round " + std::to_string(i) + ": " + e.what() + "\nafter:\n" +
             transcript.substr(transcript.size() > 4000 ? transcript.size() - 4000 : 0);
    }
  }
  return std::nullopt;
}

}  // namespace relay::test
