// SPDX-License-Identifier: Apache-2.0
// The command line: which commands there are, what they take, and what their help says.
#include <CLI/CLI.hpp>
#include <algorithm>

#include "relay/commands/commands.h"
#include "relay/commands/context.h"
#include "relay/commands/help.h"
#include "relay/config/reference.h"
#include "relay/config/parse.h"

namespace outbox {
namespace {

constexpr const char* decision_exit_codes =
    "0 done, 1 not found, 2 usage or configuration, 3 PostgreSQL, 5 refused: a right is missing";

// For options that narrow down what a command changes: an empty one, such as that of a variable that is not set, would mean all.
std::string not_empty(const std::string& value) { return value.empty() ? "is empty; leave the option out if all are meant" : ""; }

// What the commands that list have in common.
void add_list_options(CLI::App* list, std::string& topic, std::int64_t& limit, bool& json) {
  list->add_option("--topic", topic, "Only of this topic. Defaults to all.")->type_name("TOPIC");
  list->add_option("--limit", limit, "The most that are listed. Defaults to 100.")
      ->type_name("N")
      ->check([](const std::string& n) { return n.starts_with('-') || n == "0" ? "must be 1 or more" : ""; });
  list->add_flag("--json", json, "Print JSON.");
}

// What the commands that are recorded have in common. Returns the option for the reason.
CLI::Option* add_record_options(CLI::App* command, std::string& why, std::string& by, bool& json) {
  CLI::Option* const reason = command->add_option("--why", why, "The reason, for those who come later.")->type_name("TEXT");
  command->add_option("--by", by, "Who decides. Defaults to the login of the database.")->type_name("NAME");
  command->add_flag("--json", json, "Print JSON.");
  return reason;
}

class CommandLine {
 public:
  explicit CommandLine(std::function<void(Phase)> at_phase);
  int run(int argc, char** argv);

 private:
  CLI::App* add(CLI::App& parent, const char* name, const char* description, const char* exit_codes);
  // A command that is called with the configuration, or not at all. `instead` looks at the options when all are parsed: it may
  // throw, or choose what needs no configuration.
  CLI::App* add_configured(CLI::App& parent, const char* name, const char* description, const char* exit_codes,
                           std::function<int(const Config&)> command, std::function<std::function<int()>()> instead = {});
  void add_init();
  void add_trace();
  void add_parked();
  void add_decision(CLI::App& parked, const char* name, const char* description, ParkedDecision& decision,
                    int (*command)(const Config&, const ParkedDecision&));
  void add_edit(CLI::App& parked);
  void add_scheduled();
  void add_effects();
  void add_replay();
  void add_adopt();
  void add_config();
  Result<Config> load() const {
    return config::load(file_.empty() ? std::nullopt : std::optional(file_), config::process_environment(), required_);
  }
  std::optional<Error> unknown_command(int argc, char** argv) const;
  std::string chosen_path() const;

  CLI::App app_{"Publishes the messages of a PostgreSQL outbox to Kafka, once.", "outbox-relay"};
  std::string file_;
  config::Required required_ = config::Required::all;
  std::function<int()> chosen_;  // run when the whole line was understood

  InitOptions init_;
  std::string schemas_ = "outbox";
  bool no_roles_ = false;
  bool json_ = false;
  StatusOptions status_;
  TraceOptions trace_;
  ParkedListOptions parked_list_;
  ParkedShowOptions parked_show_;
  ParkedDecision parked_release_;
  ParkedDecision parked_discard_;
  ParkedEdit parked_edit_;
  ScheduledListOptions scheduled_list_;
  std::vector<std::string> scheduled_ids_;
  EffectsListOptions effects_list_;
  EffectsShowOptions effects_show_;
  EffectDecision effects_resolve_;
  ReplayOptions replay_;
  bool prune_dry_run_ = false;
  AdoptOptions adopt_;
  bool config_defaults_ = false;
  std::string config_check_;
};

CLI::App* CommandLine::add(CLI::App& parent, const char* name, const char* description, const char* exit_codes) {
  CLI::App* const command = parent.add_subcommand(name, description);
  command->footer(std::string("Exit codes: ") + exit_codes + ".");
  return command;
}

CLI::App* CommandLine::add_configured(CLI::App& parent, const char* name, const char* description, const char* exit_codes,
                                      std::function<int(const Config&)> command, std::function<std::function<int()>()> instead) {
  CLI::App* const added = add(parent, name, description, exit_codes);
  added->add_option("--config", file_, "The configuration. Defaults to /etc/outbox-relay/relay.toml, else ./relay.toml.")
      ->type_name("FILE");
  added->callback([this, command = std::move(command), instead = std::move(instead)] {
    if (instead) chosen_ = instead();
    if (chosen_) return;
    chosen_ = [this, command] {
      auto config = load();
      return config ? command(*config) : report(config.error());
    };
  });
  return added;
}

void CommandLine::add_init() {
  CLI::App* const init_command = add_configured(
      app_, "init",
      "Creates the schema outbox or those of --schema, with their roles, or upgrades them.\n"
      "It can be repeated: what is there is kept, and the rights of the roles are renewed. All schemas are created in one transaction. "
      "Run it as a role that may create roles and schemas, not as the relay's user.",
      "0 done, 2 usage or configuration, 3 PostgreSQL, 4 Kafka, 5 refused: a schema is newer than this program, or a right is missing",
      [this](const Config& c) { return init(c, init_); },
      [this]() -> std::function<int()> {
        init_.roles = !no_roles_;
        auto schemas = schemas_named(schemas_);
        if (!schemas) return [e = schemas.error()] { return report(e); };
        init_.schemas = *schemas;
        if (!schemas->contains(Schema::outbox)) {
          if (init_.kafka) throw CLI::ValidationError("--kafka", "the progress topic is the outbox's, which --schema leaves out");
          required_ = config::Required::postgres;
        }
        if (init_.from != 0 && schemas->size() != 1) throw CLI::ValidationError("--from", "each schema has a version of its own: name one");
        if (!init_.print_sql) return {};
        return [this] { return print_sql(init_); };
      });
  init_command
      ->add_option("--schema", schemas_,
                   "Which of the schemas outbox, inbox and effect, with commas between. Without outbox, the configuration needs no more "
                   "than postgres.dsn. Defaults to outbox.")
      ->type_name("LIST");
  CLI::Option* const dry_run = init_command->add_flag("--dry-run", init_.dry_run, "Only say what would be done.");
  CLI::Option* const kafka = init_command->add_flag("--kafka", init_.kafka, "Create the progress topic as well.");
  init_command->add_flag("--no-roles", no_roles_, "Create no roles: everything is owned by the current user.");
  CLI::Option* const print_sql =
      init_command->add_flag("--print-sql", init_.print_sql, "Print the SQL instead, for Flyway, Liquibase or psql. Needs no configuration.")
          ->excludes(dry_run)
          ->excludes(kafka);
  init_command->add_option("--from", init_.from, "Print what leads on from this version of one schema. Defaults to 0: nothing is there.")
      ->type_name("VERSION")
      ->check(CLI::NonNegativeNumber)
      ->needs(print_sql);
}

void CommandLine::add_trace() {
  CLI::App* const command = add_configured(
      app_, "trace",
      "Says where one message is: whether it was committed, in which batch it was sent, and where Kafka has it.\n"
      "What was delivered is read back from its topic each time. Give exactly one of ID, --key and --seq. It needs the role "
      "outbox_observer in the database, and the rights Read and Describe on the topic.",
      "0 found, 1 no such message, or one that should be in Kafka and is not, 2 usage or configuration, 3 PostgreSQL, 4 Kafka could not be "
      "asked, 5 refused: a right is missing in PostgreSQL",
      [this](const Config& c) { return trace(c, trace_); },
      [this]() -> std::function<int()> {
        if (int{trace_.id.has_value()} + int{trace_.key.has_value()} + int{trace_.seq.has_value()} == 1) return {};
        throw CLI::ValidationError("trace", "exactly one of ID, --key and --seq is needed");
      });
  command->add_option("ID", trace_.id, "The id of the message, as outbox.enqueue() returned it.");
  command->add_option("--key", trace_.key, "The deduplication key, as consumers see it in the header dedup-key.")->type_name("DEDUP_KEY");
  command->add_option("--seq", trace_.seq, "The seq of the message in outbox.message.")->type_name("N");
  command->add_flag("--json", trace_.json, "Print JSON.");
}

void CommandLine::add_parked() {
  CLI::App* const parked = app_.add_subcommand(
      "parked", "Parked messages are those that could not be sent, and wait for a decision, each with its reason.");
  parked->require_subcommand(0, 1);
  parked->footer("Exit codes: see the commands.");
  const char* const exit_codes = decision_exit_codes;

  CLI::App* const list = add_configured(*parked, "list", "Lists the messages that are parked, oldest first.", exit_codes,
                                        [this](const Config& c) { return parked_list(c, parked_list_); });
  add_list_options(list, parked_list_.topic, parked_list_.limit, parked_list_.json);
  list->add_option("--class", parked_list_.error_class, "Only those parked for this reason, such as too_large. Defaults to all.")
      ->type_name("CLASS");

  CLI::App* const show = add_configured(*parked, "show", "Shows one parked message and the decision about it.", exit_codes,
                                        [this](const Config& c) { return parked_show(c, parked_show_); });
  show->add_option("ID", parked_show_.id, "The id of the message, as `parked list` prints it.")->required();
  show->add_flag("--payload", parked_show_.payload, "With key, headers and payload. Needs the role outbox_operator.");
  show->add_flag("--json", parked_show_.json, "Print JSON.");

  add_decision(*parked, "release",
               "Decides that parked messages are sent now, as they are.\n"
               "The running relay does it within a second. Messages that only wait for one of them (key_blocked) follow by themselves.",
               parked_release_, parked_release);
  add_decision(*parked, "discard",
               "Decides that parked messages are never sent.\n"
               "They stay in outbox.parked, with the decision, until retention removes them. Messages that only wait for one of them "
               "(key_blocked) are sent.",
               parked_discard_, parked_discard);
  add_edit(*parked);
}

void CommandLine::add_decision(CLI::App& parked, const char* name, const char* description, ParkedDecision& decision,
                               int (*command)(const Config&, const ParkedDecision&)) {
  CLI::App* const added = add_configured(
      parked, name, description, decision_exit_codes, [&decision, command](const Config& c) { return command(c, decision); },
      [&decision]() -> std::function<int()> {
        const bool filtered = !decision.topic.empty() || !decision.error_class.empty();
        if (int{!decision.ids.empty()} + int{filtered} + int{decision.all} == 1) return {};
        throw CLI::ValidationError("which messages?", "give their ids, or --topic and --class, or --all");
      });
  added->add_option("ID", decision.ids, "Ids of messages, as `parked list` prints them.");
  added->add_option("--topic", decision.topic, "All of this topic.")->type_name("TOPIC")->check(not_empty);
  added->add_option("--class", decision.error_class, "All that are parked for this reason, such as too_large.")
      ->type_name("CLASS")
      ->check(not_empty);
  added->add_flag("--all", decision.all, "All that are parked.");
  added->add_flag("--dry-run", decision.dry_run, "Only count them.");
  add_record_options(added, decision.why, decision.by, decision.json)->required();
}

void CommandLine::add_edit(CLI::App& parked) {
  CLI::App* const edit = add_configured(parked, "edit",
                                        "Decides that a parked message is sent with another topic, key, payload or headers.\n"
                                        "What is not given stays as it is. The message as it was stays in outbox.parked.",
                                        decision_exit_codes, [this](const Config& c) { return parked_edit(c, parked_edit_); });
  edit->add_option("ID", parked_edit_.id, "The id of the message, as `parked list` prints it.")->required();
  edit->add_option("--topic", parked_edit_.topic, "The new topic.")->type_name("TOPIC");
  CLI::Option* const key = edit->add_option("--key", parked_edit_.key, "The new key, as text.")->type_name("TEXT");
  edit->add_flag("--no-key", parked_edit_.no_key, "Without a key.")->excludes(key);
  CLI::Option* const payload =
      edit->add_option("--payload-file", parked_edit_.payload_file, "The new payload: the bytes of this file; - is standard input.")
          ->type_name("FILE");
  edit->add_flag("--tombstone", parked_edit_.tombstone, "Without a payload.")->excludes(payload);
  CLI::Option* const headers =
      edit->add_option("--headers", parked_edit_.headers, "The new headers: a JSON object of strings.")->type_name("JSON");
  edit->add_flag("--no-headers", parked_edit_.no_headers, "Without headers.")->excludes(headers);
  add_record_options(edit, parked_edit_.why, parked_edit_.by, parked_edit_.json)->required();
}

void CommandLine::add_scheduled() {
  CLI::App* const scheduled = app_.add_subcommand("scheduled", "Scheduled messages are those that are to be delivered later.");
  scheduled->require_subcommand(0, 1);
  scheduled->footer("Exit codes: see the commands.");
  CLI::App* const list = add_configured(*scheduled, "list", "Lists scheduled messages, the first to fall due first.", decision_exit_codes,
                                        [this](const Config& c) { return scheduled_list(c, scheduled_list_); });
  add_list_options(list, scheduled_list_.topic, scheduled_list_.limit, scheduled_list_.json);

  CLI::App* const cancel =
      add_configured(*scheduled, "cancel", "Removes scheduled messages, so that they are never delivered.", decision_exit_codes,
                     [this](const Config& c) { return scheduled_cancel(c, scheduled_ids_, json_); });
  cancel->add_option("ID", scheduled_ids_, "Ids of messages, as `scheduled list` prints them.")->required();
  cancel->add_flag("--json", json_, "Print JSON.");
}

void CommandLine::add_effects() {
  CLI::App* const effects = app_.add_subcommand(
      "effects", "Effects are what consumers carry out at providers: what was asked, what is known about it, and what a person decides.");
  effects->require_subcommand(0, 1);
  effects->footer("Exit codes: see the commands.");
  const char* const exit_codes = "0 done, 1 not found, 2 usage or configuration, 3 PostgreSQL, 5 refused: no schema, or a right is missing";

  CLI::App* const list = add_configured(
      *effects, "list",
      "Lists the effects of which nobody knows whether they were carried out, those first that a person has to decide about.\n"
      "It looks at the database of consumer.dsn, and needs the role effect_observer.",
      exit_codes, [this](const Config& c) { return effects_list(c, effects_list_); });
  list->add_option("--provider", effects_list_.provider, "Only of this provider. Defaults to all.")->type_name("NAME");
  list->add_option("--state", effects_list_.state, "Those in this state instead, or all.")
      ->type_name("STATE")
      ->check(CLI::IsMember({"planned", "claimed", "in_doubt", "needs_review", "done", "failed", "all"}));
  list->add_option("--limit", effects_list_.limit, "The most that are listed. Defaults to 100.")->type_name("N")->check(CLI::PositiveNumber);
  list->add_flag("--json", effects_list_.json, "Print JSON.");

  CLI::App* const show =
      add_configured(*effects, "show", "Shows one effect: each attempt, what the provider said, what was decided, what comes next.", exit_codes,
                     [this](const Config& c) { return effects_show(c, effects_show_); });
  show->add_option("ID", effects_show_.id, "The number of the effect, as `effects list` prints it.")->required();
  show->add_flag("--payload", effects_show_.payload, "With the request and the answers. Needs the role effect_operator.");
  show->add_flag("--json", effects_show_.json, "Print JSON.");

  CLI::App* const resolve = add_configured(
      *effects, "resolve",
      "Decides about effects in doubt, when the provider's own records show what became of them. Needs the role effect_operator.\n"
      "One that is planned can be called off with --failed.",
      "0 done, 1 there is no such effect, or it is not in doubt, 2 usage or configuration, 3 PostgreSQL, 5 refused: a right is missing",
      [this](const Config& c) { return effects_resolve(c, effects_resolve_); },
      [this]() -> std::function<int()> {
        if (int{effects_resolve_.done} + int{effects_resolve_.failed} + int{effects_resolve_.resend} == 1) return {};
        throw CLI::ValidationError("what became of it?", "exactly one of --done, --failed and --resend is needed");
      });
  resolve->add_option("ID", effects_resolve_.ids, "Numbers of effects, as `effects list` prints them.")->required();
  CLI::Option* const done = resolve->add_flag("--done", effects_resolve_.done, "It was carried out.");
  resolve->add_flag("--failed", effects_resolve_.failed, "It was not carried out, and shall not be.");
  resolve->add_flag("--resend", effects_resolve_.resend, "Carry it out again, with another key: if it was carried out, it happens twice.");
  resolve->add_option("--object", effects_resolve_.object, "What the provider calls the thing that it made.")->type_name("TEXT")->needs(done);
  add_record_options(resolve, effects_resolve_.why, effects_resolve_.by, effects_resolve_.json)->required();
}

void CommandLine::add_replay() {
  CLI::App* const command = add_configured(
      app_, "replay",
      "Enqueues messages again that were delivered, with the deduplication keys that they had.\n"
      "A consumer that remembers the keys takes them for repeats: it is for those who have lost what they did. The messages carry the "
      "header outbox-replay with the number of the replay. Needs the role outbox_operator.",
      decision_exit_codes, [this](const Config& c) { return replay(c, replay_); },
      [this]() -> std::function<int()> {
        const bool fresh = !replay_.since.empty();
        if (fresh == replay_.resume.has_value()) throw CLI::ValidationError("replay", "either --since or --resume is needed");
        return {};
      });
  CLI::Option* const resume =
      command->add_option("--resume", replay_.resume, "Go on with the interrupted replay of this number instead.")->type_name("N");
  command->add_option("--since", replay_.since, "Messages of batches that were opened at this time or later, like 2026-11-24T12:00:00Z.")
      ->type_name("T");
  command->add_option("--until", replay_.until, "And before this time. Defaults to now.")->type_name("T")->check(not_empty)->excludes(resume);
  command->add_option("--topic", replay_.topic, "Only of this topic. Defaults to all.")->type_name("TOPIC")->check(not_empty)->excludes(resume);
  command->add_option("--rate", replay_.rows_per_second, "Messages a second at most. Defaults to 20000.")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  command->add_flag("--dry-run", replay_.dry_run, "Only count them.");
  add_record_options(command, replay_.why, replay_.by, replay_.json);
}

void CommandLine::add_adopt() {
  CLI::App* const command = add_configured(
      app_, "adopt",
      "Adopts a database that was copied, restored or upgraded, so that the relay can go on with it.\n"
      "Says what it found and what it would do; does it with --yes. Stop the relay first, also the one of the original database: it could "
      "not write to Kafka under this name any more. Needs the rights of the owner.",
      "0 done, or nothing to do, 1 something to do and no --yes, 2 usage or configuration, 3 PostgreSQL, 4 Kafka, 5 refused: a relay is active",
      [this](const Config& c) { return adopt(c, adopt_); });
  command->add_flag("--yes", adopt_.yes, "Do it.");
  CLI::Option* const resend = command->add_flag("--resend", adopt_.resend, "Send the batch in doubt again: some of it may arrive twice.");
  command->add_flag("--delivered", adopt_.delivered, "Take the batch in doubt for delivered: what was not is lost.")->excludes(resend);
}

void CommandLine::add_config() {
  CLI::App* const command = add_configured(
      app_, "config", "Prints the configuration in force, without secrets.", "", [](const Config& c) { return config_show(c); },
      [this]() -> std::function<int()> {
        if (config_defaults_) return [] { return config_defaults(); };
        if (config_check_.empty()) return {};
        return [this] { return config_check(config_check_); };
      });
  command->footer("Exit codes: 0 done, 2 usage or configuration.\n\n" + config::help_text());
  CLI::Option* const defaults =
      command->add_flag("--defaults", config_defaults_, "Print the annotated file instead, every option at its default.");
  command->add_option("--check", config_check_, "Say instead whether the relay could start with this file and this environment.")
      ->type_name("FILE")
      ->excludes(defaults)
      ->excludes(command->get_option("--config"));
  defaults->excludes(command->get_option("--config"));
}

// In the order in which a person meets them.
CommandLine::CommandLine(std::function<void(Phase)> at_phase) {
  app_.formatter(std::make_shared<HelpFormatter>());
  app_.set_help_flag("-h,--help", "Print this help.");
  app_.require_subcommand(0, 1);
  app_.set_version_flag("--version", OUTBOX_VERSION, "Print the version of the program.");
  app_.footer(
      "`outbox-relay COMMAND --help` tells more; `outbox-relay config --help` explains every option of the configuration.\n\n"
      "Exit codes: 0 done, 1 finding or not found, 2 usage or configuration, 3 PostgreSQL, 4 Kafka, 5 refused, because a promise could not "
      "be kept, 6 fenced by another relay.");
  add_init();
  CLI::App* const check_command = add_configured(
      app_, "check",
      "Looks at everything that would break a promise: configuration, connections, rights, topics, settings of broker and database.\n"
      "It changes nothing, and disturbs no running relay. Run it with the relay's own configuration.",
      "0 nothing would, 1 something would, 2 usage or configuration, 3 PostgreSQL is not reachable, 4 Kafka is not reachable, 5 `run` would "
      "refuse",
      [this](const Config& c) { return check(c, json_); });
  check_command->add_flag("--json", json_, "Print JSON.");
  add_configured(app_, "run",
                 "Runs the relay until SIGTERM or SIGINT. SIGHUP reads the configuration again.\n"
                 "It then delivers what is in flight and hands over. Of several that run for one outbox, one is active and the others "
                 "stand by. While PostgreSQL or Kafka is away, it waits.",
                 "0 ended as asked, 2 usage or configuration, 5 refused, because a promise could not be kept",
                 [this, at_phase = std::move(at_phase)](const Config& c) { return outbox::run(c, [this] { return load(); }, at_phase); });
  CLI::App* const status_command = add_configured(
      app_, "status",
      "Shows how far the relay is: pending messages, the oldest of them, the batch in doubt, the lease, parked and scheduled messages.\n"
      "It asks the database alone, and needs the role outbox_observer.",
      "0 done, 2 usage or configuration, 3 PostgreSQL, 5 refused: no schema, or a right is missing",
      [this](const Config& c) { return status(c, status_); });
  status_command->add_flag("--json", status_.json, "Print JSON; with --watch, one line each time.");
  status_command->add_flag("--watch", status_.watch, "Show it anew every second, until SIGINT.");
  add_trace();
  add_parked();
  add_scheduled();
  add_effects();
  add_replay();
  CLI::App* const prune_command = add_configured(
      app_, "prune",
      "Deletes what retention.keep no longer keeps, while no relay runs; a running relay does it by itself.\n"
      "Only what was delivered is ever deleted; a parked message is kept until it was released.",
      "0 done, 2 usage or configuration, 3 PostgreSQL, 5 refused: a relay is active, 6 a relay took the lease meanwhile",
      [this](const Config& c) { return prune(c, prune_dry_run_); });
  prune_command->add_flag("--dry-run", prune_dry_run_, "Only count what would be deleted.");
  add_adopt();
  add_config();
  CLI::App* const version_command =
      add(app_, "version", "Prints the versions of the program, its libraries, and the schemas that it works with.", "0 done, 2 usage");
  version_command->add_flag("--json", json_, "Print JSON.");
  version_command->callback([this] { chosen_ = [this] { return version(json_); }; });
}

// The parser would only say that an argument was not expected.
std::optional<Error> CommandLine::unknown_command(int argc, char** argv) const {
  const CLI::App* at = &app_;
  std::string path = "outbox-relay";
  for (int i = 1; i < argc && argv[i][0] != '-'; ++i) {
    std::vector<std::string> names;
    const CLI::App* next = nullptr;
    for (const CLI::App* command : at->get_subcommands([](const CLI::App*) { return true; })) {
      names.push_back(command->get_name());
      if (command->get_name() == argv[i]) next = command;
    }
    if (names.empty()) break;
    if (next == nullptr) {
      const auto meant = config::nearest(argv[i], names);
      return Error{Fault::usage, "there is no command " + config::in_quotes(argv[i]),
                   (meant ? "did you mean " + *meant + "? " : "") + "`" + path + " --help` lists the commands"};
    }
    at = next;
    path += std::string(" ") + argv[i];
  }
  return std::nullopt;
}

int CommandLine::run(int argc, char** argv) {
  if (auto error = unknown_command(argc, argv)) return report(*error);
  try {
    app_.parse(argc, argv);
  } catch (const CLI::Success& help) {
    return app_.exit(help);
  } catch (const CLI::ParseError& e) {
    return report({Fault::usage, e.what(), "`" + chosen_path() + " --help` says what it takes"});
  }
  if (chosen_) return chosen_();
  return report({Fault::usage, "a command is missing", "`" + chosen_path() + " --help` lists the commands"});
}

// The words of the command as far as it was parsed.
std::string CommandLine::chosen_path() const {
  std::string path = "outbox-relay";
  for (const CLI::App* at = &app_; !at->get_subcommands().empty();) {
    at = at->get_subcommands().front();
    path += " " + at->get_name();
  }
  return path;
}

}  // namespace

int main_command(int argc, char** argv, std::function<void(Phase)> at_phase) {
  return CommandLine(std::move(at_phase)).run(argc, argv);
}

}  // namespace outbox
