// SPDX-License-Identifier: Apache-2.0
#include "tests/support/scratch_servers.h"

#include <fcntl.h>
#include <librdkafka/rdkafka.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <fstream>
#include <iostream>
#include <memory>
#include <pqxx/pqxx>
#include <span>
#include <stdexcept>

#include "common/owned.h"
#include "tests/support/process.h"
#include "tests/support/usage.h"

namespace relay::test {
namespace {

using Clock = std::chrono::steady_clock;

// Runs a program to its end; throws what it wrote unless it returned 0.
void run_program(const std::vector<std::string>& words) {
  std::array<int, 2> pipe{};
  if (pipe2(pipe.data(), O_CLOEXEC) != 0) throw std::runtime_error("pipe2 failed");
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&files, pipe[1], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&files, pipe[1], STDERR_FILENO);
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  pid_t child = 0;
  const int failed = posix_spawnp(&child, arguments[0], &files, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&files);
  close(pipe[1]);

  std::string output;
  std::array<char, 4096> buffer{};
  for (ssize_t n = 0; (n = read(pipe[0], buffer.data(), buffer.size())) > 0;)
    output.append(buffer.data(), static_cast<std::size_t>(n));
  close(pipe[0]);
  int status = 0;
  if (failed == 0) waitpid(child, &status, 0);
  if (failed != 0 || status != 0)
    throw std::runtime_error(failed != 0 ? "cannot run " + words[0] : output);
}

using Client = outbox::common::Owned<rd_kafka_t, rd_kafka_destroy>;

Client connect(const std::string& brokers) {
  std::array<char, 512> error{};
  rd_kafka_conf_t* conf = rd_kafka_conf_new();
  rd_kafka_conf_set(conf, "bootstrap.servers", brokers.c_str(), error.data(), error.size());
  Client client(rd_kafka_new(RD_KAFKA_PRODUCER, conf, error.data(), error.size()));
  if (!client) throw std::runtime_error(error.data());
  return client;
}

using Metadata = outbox::common::Owned<const rd_kafka_metadata_t, rd_kafka_metadata_destroy>;

// nullptr: no answer.
Metadata metadata_of_all(const std::string& brokers) {
  const Client client = connect(brokers);
  const rd_kafka_metadata_t* answer = nullptr;
  if (rd_kafka_metadata(client.get(), 1, nullptr, &answer, 1000) != RD_KAFKA_RESP_ERR_NO_ERROR)
    return nullptr;
  return Metadata(answer);
}

bool has_leaders(rd_kafka_t* client, const std::string& topic, int partitions) {
  outbox::common::Owned<rd_kafka_topic_t, rd_kafka_topic_destroy> handle(
      rd_kafka_topic_new(client, topic.c_str(), nullptr));
  const rd_kafka_metadata_t* answer = nullptr;
  if (rd_kafka_metadata(client, 0, handle.get(), &answer, 1000) != RD_KAFKA_RESP_ERR_NO_ERROR)
    return false;
  const Metadata owned(answer);
  const rd_kafka_metadata_topic_t& found = answer->topics[0];
  if (found.err != RD_KAFKA_RESP_ERR_NO_ERROR || found.partition_cnt != partitions) return false;
  for (int i = 0; i < partitions; ++i) {
    if (found.partitions[i].err != RD_KAFKA_RESP_ERR_NO_ERROR || found.partitions[i].leader < 0)
      return false;
  }
  return true;
}

}  // namespace

ScratchFolder::ScratchFolder() {
  std::string name = std::filesystem::temp_directory_path() / "outbox-scratch.XXXXXX";
  if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot create " + name);
  path_ = name;
}

ScratchFolder::~ScratchFolder() {
  try {
    scratch("remove");
    std::filesystem::remove(path_);  // still there if nothing was ever started
  } catch (const std::exception& e) {
    std::cerr << "cannot remove " << path_ << ": " << e.what() << '\n';
  }
}

void ScratchFolder::scratch(const std::string& command,
                            const std::vector<std::string>& arguments) const {
  std::vector<std::string> words = {"env", "OUTBOX_SCRATCH_OWNER=" + std::to_string(getpid()),
                                    OUTBOX_SOURCE_DIR "/scripts/scratch", command, path_.string()};
  words.insert(words.end(), arguments.begin(), arguments.end());
  run_program(words);
}

std::string ScratchFolder::value(const std::string& name) const {
  std::ifstream env(path_ / "env");
  const std::string wanted = name + "=\"";
  for (std::string line; std::getline(env, line);) {
    if (line.starts_with(wanted))
      return line.substr(wanted.size(), line.size() - wanted.size() - 1);
  }
  return {};
}

ScratchPostgres::ScratchPostgres(const std::vector<std::string>& settings) {
  folder_.scratch("postgres", settings);
}

ScratchPostgres::ScratchPostgres(Standby, const ScratchPostgres& primary) {
  folder_.scratch("standby", {primary.folder().string()});
}

std::string ScratchPostgres::dsn(const std::string& database, const std::string& user) const {
  return "host=127.0.0.1 port=" + folder_.value("PGPORT") + " user=" + user + " dbname=" + database;
}

std::string ScratchPostgres::create_database(const std::string& name) {
  const std::string chosen = name.empty() ? "test_" + std::to_string(++databases_) : name;
  pqxx::connection connection(dsn());
  pqxx::nontransaction(connection).exec("create database " + connection.quote_name(chosen));
  return chosen;
}

void ScratchPostgres::stop(Stop how) {
  folder_.scratch("stop-postgres", {how == Stop::fast ? "fast" : "immediate"});
}

void ScratchPostgres::replicate_synchronously() const {
  pqxx::connection connection(dsn());
  pqxx::nontransaction tx(connection);
  tx.exec("alter system set synchronous_standby_names = '*'");
  tx.exec("select pg_reload_conf()");
  eventually("the standby is synchronous", [&] {
    return !tx.exec("select from pg_stat_replication r where r.sync_state = 'sync'").empty();
  });
}

void ScratchPostgres::set_clock(std::chrono::seconds ahead) const {
  const auto file = folder() / "clock";
  std::ofstream(file.string() + ".new") << std::showpos << ahead.count() << '\n';
  std::filesystem::rename(file.string() + ".new", file);
}

void ScratchPostgres::pause() const {
  ::kill(pid(), SIGSTOP);  // first, so that no child is born behind our back
  for (const pid_t child : children_of(pid())) ::kill(child, SIGSTOP);
}

void ScratchPostgres::resume() const {
  for (const pid_t child : children_of(pid())) ::kill(child, SIGCONT);
  ::kill(pid(), SIGCONT);
}

ScratchPgbouncer::ScratchPgbouncer(const ScratchPostgres& server,
                                   const std::vector<std::string>& settings) {
  std::vector<std::string> arguments = {std::to_string(server.port())};
  arguments.insert(arguments.end(), settings.begin(), settings.end());
  folder_.scratch("pgbouncer", arguments);
}

std::string ScratchPgbouncer::dsn(const std::string& database, const std::string& user) const {
  return "host=127.0.0.1 port=" + folder_.value("PGBOUNCER_PORT") + " user=" + user +
         " dbname=" + database;
}

ScratchKafka::ScratchKafka(const std::vector<std::string>& properties) {
  folder_.scratch("kafka", properties);
}

bool ScratchKafka::in_sync() const {
  const Metadata all = metadata_of_all(brokers());
  if (!all) return false;
  for (const auto& topic : std::span(all->topics, static_cast<std::size_t>(all->topic_cnt))) {
    for (const auto& partition :
         std::span(topic.partitions, static_cast<std::size_t>(topic.partition_cnt))) {
      if (partition.leader < 0 || partition.isr_cnt != partition.replica_cnt) return false;
    }
  }
  return true;
}

int ScratchKafka::leader(const std::string& topic, int partition) const {
  const Metadata all = metadata_of_all(brokers());
  for (int i = 0; all && i < all->topic_cnt; ++i) {
    if (all->topics[i].topic != topic) continue;
    for (int p = 0; p < all->topics[i].partition_cnt; ++p) {
      if (all->topics[i].partitions[p].id == partition) return all->topics[i].partitions[p].leader;
    }
  }
  throw std::runtime_error("topic " + topic + " has no leader");
}

void ScratchKafka::alter_topic(const std::string& name,
                               const std::vector<std::string>& config) const {
  const Client client = connect(brokers());
  const outbox::common::Owned<rd_kafka_queue_t, rd_kafka_queue_destroy> queue(
      rd_kafka_queue_new(client.get()));
  const outbox::common::Owned<rd_kafka_ConfigResource_t, rd_kafka_ConfigResource_destroy> resource(
      rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, name.c_str()));
  for (const std::string& entry : config) {
    const auto equals = entry.find('=');
    rd_kafka_ConfigResource_set_config(resource.get(), entry.substr(0, equals).c_str(),
                                       entry.substr(equals + 1).c_str());
  }
  rd_kafka_ConfigResource_t* resources = resource.get();
  rd_kafka_AlterConfigs(client.get(), &resources, 1, nullptr, queue.get());
  const outbox::common::Owned<rd_kafka_event_t, rd_kafka_event_destroy> event(
      rd_kafka_queue_poll(queue.get(), 15'000));
  if (!event) throw std::runtime_error("no answer to a change of topic " + name);
  if (rd_kafka_event_error(event.get()) != RD_KAFKA_RESP_ERR_NO_ERROR)
    throw std::runtime_error(rd_kafka_event_error_string(event.get()));
}

void ScratchKafka::create_topic(const std::string& name, int partitions,
                                const std::vector<std::string>& config) const {
  const Client client = connect(brokers());
  const outbox::common::Owned<rd_kafka_queue_t, rd_kafka_queue_destroy> queue(
      rd_kafka_queue_new(client.get()));
  std::array<char, 512> error{};
  const outbox::common::Owned<rd_kafka_NewTopic_t, rd_kafka_NewTopic_destroy> topic(
      rd_kafka_NewTopic_new(name.c_str(), partitions, -1, error.data(), error.size()));
  if (!topic) throw std::runtime_error(error.data());
  for (const std::string& entry : config) {
    const auto equals = entry.find('=');
    rd_kafka_NewTopic_set_config(topic.get(), entry.substr(0, equals).c_str(),
                                 entry.substr(equals + 1).c_str());
  }
  rd_kafka_NewTopic_t* topics = topic.get();
  rd_kafka_CreateTopics(client.get(), &topics, 1, nullptr, queue.get());
  const outbox::common::Owned<rd_kafka_event_t, rd_kafka_event_destroy> event(
      rd_kafka_queue_poll(queue.get(), 15'000));
  if (!event) throw std::runtime_error("no answer to the creation of topic " + name);
  if (rd_kafka_event_error(event.get()) != RD_KAFKA_RESP_ERR_NO_ERROR)
    throw std::runtime_error(rd_kafka_event_error_string(event.get()));
  std::size_t count = 0;
  const rd_kafka_topic_result_t* result =
      *rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event.get()), &count);
  if (rd_kafka_topic_result_error(result) != RD_KAFKA_RESP_ERR_NO_ERROR)
    throw std::runtime_error(rd_kafka_topic_result_error_string(result));

  const auto deadline = Clock::now() + std::chrono::seconds(15);
  while (!has_leaders(client.get(), name, partitions)) {
    if (Clock::now() > deadline) throw std::runtime_error("topic " + name + " has no leaders");
  }
}

void ScratchKafka::delete_topic(const std::string& name) const {
  const Client client = connect(brokers());
  const outbox::common::Owned<rd_kafka_queue_t, rd_kafka_queue_destroy> queue(
      rd_kafka_queue_new(client.get()));
  const outbox::common::Owned<rd_kafka_DeleteTopic_t, rd_kafka_DeleteTopic_destroy> topic(
      rd_kafka_DeleteTopic_new(name.c_str()));
  rd_kafka_DeleteTopic_t* topics = topic.get();
  rd_kafka_DeleteTopics(client.get(), &topics, 1, nullptr, queue.get());
  const outbox::common::Owned<rd_kafka_event_t, rd_kafka_event_destroy> event(
      rd_kafka_queue_poll(queue.get(), 15'000));
  if (!event) throw std::runtime_error("no answer to the deletion of topic " + name);
  if (rd_kafka_event_error(event.get()) != RD_KAFKA_RESP_ERR_NO_ERROR)
    throw std::runtime_error(rd_kafka_event_error_string(event.get()));
}

ScratchPostgres& shared_postgres() {
  static ScratchPostgres server;
  return server;
}

ScratchKafka& shared_kafka() {
  static ScratchKafka server;
  return server;
}

ScratchKafka& shared_kafka_with_rights() {
  static ScratchKafka server(
      {"authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
       "allow.everyone.if.no.acl.found=true"});
  return server;
}

}  // namespace relay::test
