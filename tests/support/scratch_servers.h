// SPDX-License-Identifier: Apache-2.0
// Real servers for tests: a PostgreSQL cluster or a Kafka broker of their own, on free loopback
// ports, made by scripts/scratch.
//
// A server that does not start, stop or answer throws std::runtime_error with the end of its log:
// the test fails, it never skips. Destructors stop the server and remove its folder; if the test
// process is killed, a watchdog does.
#pragma once

#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

namespace relay::test {

// A folder of scripts/scratch and what runs in it.
class ScratchFolder {
 public:
  ScratchFolder();
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  // Runs `scripts/scratch command FOLDER arguments…` to its end.
  void scratch(const std::string& command, const std::vector<std::string>& arguments = {}) const;
  // A value of the file that scripts/scratch writes, e.g. "PGPORT"; empty if there is none.
  std::string value(const std::string& name) const;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

class ScratchPostgres {
 public:
  enum class Stop {
    fast,
    immediate
  };  // immediate: as in a crash, without a checkpoint, WAL in buffers is lost

  // Each setting is name=value, as in postgresql.conf.
  explicit ScratchPostgres(const std::vector<std::string>& settings = {});
  // A standby to which `primary` streams. It follows nobody else, and has the users and databases
  // of the primary.
  static ScratchPostgres standby_of(const ScratchPostgres& primary) {
    return ScratchPostgres(Standby{}, primary);
  }

  std::string dsn(const std::string& database = "postgres",
                  const std::string& user = "postgres") const;
  // Creates a database and returns its name: `name`, or one that is new on this server.
  std::string create_database(const std::string& name = {});

  void stop(Stop how);
  // Starts a stopped server again: same port, same data.
  void start() const { folder_.scratch("start-postgres"); }

  // From now on nothing is visible here before the standby has it. REQUIRES: there is one.
  void replicate_synchronously() const;
  // Ends the standby's recovery; returns when it can be written to.
  void promote() const { folder_.scratch("promote"); }

  // By how much the clock that the server sees differs from the true one, from now on. REQUIRES:
  // the setting clock=steered.
  void set_clock(std::chrono::seconds ahead) const;

  void pause()
      const;  // SIGSTOP to every process of the server: connections stay open, and nothing answers
  void resume() const;  // SIGCONT

  int port() const { return std::stoi(folder_.value("PGPORT")); }
  int pid() const { return std::stoi(folder_.value("PG_PID")); }  // of the server's first process
  const std::filesystem::path& folder() const { return folder_.path(); }

 private:
  struct Standby {};
  ScratchPostgres(Standby, const ScratchPostgres& primary);

  ScratchFolder folder_;
  int databases_ = 0;
};

// A pooler in transaction mode before a server, shared by all who connect as one user to one
// database.
class ScratchPgbouncer {
 public:
  // Each setting is name=value, as in pgbouncer.ini.
  explicit ScratchPgbouncer(const ScratchPostgres& server,
                            const std::vector<std::string>& settings = {});

  std::string dsn(const std::string& database = "postgres",
                  const std::string& user = "postgres") const;
  void kill() const { folder_.scratch("stop-pgbouncer", {"KILL"}); }
  void stop() const { folder_.scratch("stop-pgbouncer", {"TERM"}); }
  // Starts it again when it has ended: same port.
  void start() const { folder_.scratch("start-pgbouncer"); }
  int pid() const { return std::stoi(folder_.value("PGBOUNCER_PID")); }

 private:
  ScratchFolder folder_;
};

// A cluster of one broker, or of several, which are numbered from 1.
class ScratchKafka {
 public:
  // Each property is name=value, as in a broker's configuration; advertised=HOST:PORT adds a
  // listener that sends clients to that address, where a proxy is expected that forwards to
  // proxied(); brokers=N makes a cluster of N, by default with three replicas, two of them in sync.
  explicit ScratchKafka(const std::vector<std::string>& properties = {});

  std::string brokers() const { return folder_.value("KAFKA_BROKERS"); }
  std::string proxied() const { return folder_.value("KAFKA_PROXIED"); }

  // Creates a topic with the default replication and returns when each partition has a leader. Each
  // config is name=value.
  void create_topic(const std::string& name, int partitions,
                    const std::vector<std::string>& config = {}) const;

  // Returns when the broker has agreed; it forgets the topic a moment later.
  void delete_topic(const std::string& name) const;

  // Changes these, each name=value, and resets every other setting of the topic.
  void alter_topic(const std::string& name, const std::vector<std::string>& config) const;

  void pause() const { folder_.scratch("pause-kafka"); }    // SIGSTOP
  void resume() const { folder_.scratch("resume-kafka"); }  // SIGCONT
  void kill() const { folder_.scratch("stop-kafka", {"KILL"}); }
  void stop() const { folder_.scratch("stop-kafka", {"TERM"}); }
  // Starts a stopped or killed broker again: same port, same data.
  void start() const { folder_.scratch("start-kafka"); }

  void kill(int broker) const { folder_.scratch("stop-kafka", {"KILL", std::to_string(broker)}); }
  void stop(int broker) const { folder_.scratch("stop-kafka", {"TERM", std::to_string(broker)}); }
  void start(int broker) const { folder_.scratch("start-kafka", {std::to_string(broker)}); }
  // The broker that leads a partition of a topic.
  int leader(const std::string& topic, int partition = 0) const;
  // Whether every replica of every partition is in sync, as a broker that runs sees it.
  bool in_sync() const;

  int pid() const { return std::stoi(folder_.value("KAFKA_PID")); }
  const std::filesystem::path& folder() const { return folder_.path(); }

 private:
  ScratchFolder folder_;
};

// Servers of this process, started when first asked for and stopped at its end.
ScratchPostgres& shared_postgres();
ScratchKafka& shared_kafka();
// With an authorizer that allows whatever no rule is about.
ScratchKafka& shared_kafka_with_rights();

}  // namespace relay::test
