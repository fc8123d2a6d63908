// SPDX-License-Identifier: Apache-2.0
#include "tests/faults/debezium.h"

#include <signal.h>

#include <cstdlib>
#include <fstream>
#include <stdexcept>

namespace relay::faults {
namespace {

// The router's own layout, with the payload as it is: as text, the longest would be more than a
// producer sends.
constexpr const char* create_table = R"(
  create table public.outboxevent (
    id uuid primary key,
    aggregatetype varchar(255) not null,
    aggregateid varchar(255),
    type varchar(255) not null,
    payload bytea
  );
  create function public.say_to_debezium() returns trigger language plpgsql as $$
  begin
    insert into public.outboxevent
    values (new.id, new.topic, convert_from(new.key, 'UTF8'), 'said', new.payload);
    return null;
  end $$;
  create trigger debezium after insert on outbox.message
    for each row execute function public.say_to_debezium())";

// offset.flush.interval.ms is that of the file that Kafka ships for standalone workers; the default
// would be a minute.
std::string worker_properties(const std::filesystem::path& folder, const std::string& brokers) {
  return "bootstrap.servers=" + brokers +
         "\nkey.converter=org.apache.kafka.connect.storage.StringConverter"
         "\nvalue.converter=io.debezium.converters.BinaryDataConverter"
         "\nvalue.converter.delegate.converter.type=org.apache.kafka.connect.json.JsonConverter"
         "\noffset.storage.file.filename=" +
         (folder / "offsets").string() +
         "\noffset.flush.interval.ms=10000"
         "\nplugin.discovery=service_load"
         "\nlisteners=HTTP://127.0.0.1:0\n";
}

std::string connector_properties(const test::TestOutbox& db, int port) {
  return "name=outbox"
         "\nconnector.class=io.debezium.connector.postgresql.PostgresConnector"
         "\ntasks.max=1"
         "\nplugin.name=pgoutput"
         "\ndatabase.hostname=127.0.0.1"
         "\ndatabase.port=" +
         std::to_string(port) +
         "\ndatabase.user=postgres"
         "\ndatabase.password=postgres"
         "\ndatabase.dbname=" +
         db.database() +
         "\ntopic.prefix=app"
         "\ntable.include.list=public.outboxevent"
         "\ntransforms=outbox"
         "\ntransforms.outbox.type=io.debezium.transforms.outbox.EventRouter"
         "\ntransforms.outbox.route.topic.replacement=${routedByValue}\n";
}

}  // namespace

Debezium::Debezium(test::TestOutbox& db) {
  std::string name = std::filesystem::temp_directory_path() / "outbox-debezium.XXXXXX";
  if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot create " + name);
  folder_ = name;
  db.sql(create_table);
  std::ofstream(folder_ / "worker.properties") << worker_properties(folder_, db.kafka().brokers());
  std::ofstream(folder_ / "connector.properties") << connector_properties(db, db.postgres().port());
}

Debezium::~Debezium() {
  process_.reset();
  std::filesystem::remove_all(folder_);
}

void Debezium::start() {
  const char* const home = std::getenv("OUTBOX_DEBEZIUM_HOME");
  if (home == nullptr)
    throw std::runtime_error("OUTBOX_DEBEZIUM_HOME is not set. HINT: start it by tests/faults/run");
  process_.reset();
  process_.emplace(
      std::vector<std::string>{"/usr/bin/env", "java", "-Xms256M", "-Xmx1G", "-Dlog4j2.level=WARN",
                               "-cp", std::string(home) + "/*",
                               "org.apache.kafka.connect.cli.ConnectStandalone",
                               folder_ / "worker.properties", folder_ / "connector.properties"},
      test::Process::Environment{});
}

void Debezium::kill() {
  process_->signal(SIGKILL);
  process_->wait();
}

bool Debezium::has_noted_offsets() const {
  std::error_code none;
  return std::filesystem::file_size(folder_ / "offsets", none) > 0 && !none;
}

}  // namespace relay::faults
