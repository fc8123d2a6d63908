// SPDX-License-Identifier: Apache-2.0
// What the outbox costs the application: ten rows per transaction into outbox.message, against a
// table with the same columns, defaults and primary key alone; and by outbox.enqueue().
//
//   enqueue [--pairs 5] [--seconds 8] [--connections 4]
#include <filesystem>
#include <fstream>

#include "tests/support/bench_main.h"
#include "tests/support/test_outbox.h"
#include "tests/support/usage.h"

namespace {

using namespace relay;
using namespace relay::test;

constexpr int rows = 10;

std::string script(const std::string& row) {
  std::string text = "begin;\n";
  for (int i = 0; i < rows; ++i) text += row + ";\n";
  return text + "commit;\n";
}

// Transactions per second of pgbench with this script.
double pgbench(TestOutbox& db, const std::string& name, const std::string& text, int connections,
               int seconds) {
  const auto file = db.postgres().folder() / (name + ".sql");
  std::ofstream(file) << text;
  const std::string found =
      run_command({"/bin/sh", "-c",
                   "printf %s \"$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)\""},
                  {})
          .output;
  const auto done =
      run_command({found + "/pgbench", "-n", "-M", "prepared", "-c", std::to_string(connections),
                   "-j", "2", "-T", std::to_string(seconds), "-f", file.string(), db.dsn()},
                  {}, Millis{(seconds + 60) * 1000});
  const auto at = done.output.find("tps = ");
  if (done.code != 0 || at == std::string::npos) throw std::runtime_error(done.output);
  return std::stod(done.output.substr(at + 6));
}

}  // namespace

int main(int argc, char** argv) {
  int pairs = 5;
  int seconds = 8;
  int connections = 4;
  return relay::test::bench_main(
      argc, argv, "enqueue",
      "Compares inserting into the outbox with inserting into a plain table.",
      {{"--pairs", &pairs},
       {"--seconds", &seconds, "Of each measurement"},
       {"--connections", &connections}},
      [&] {
        ScratchPostgres postgres;
        TestOutbox db(postgres, nullptr);
        db.sql(
            "create table plain (like outbox.message including defaults including identity, "
            "primary "
            "key (seq))");
        const std::string values =
            "(topic, key, payload) values ('t', 'key-0123456789', convert_to(repeat('x', 200), "
            "'UTF8'))";
        const std::string plain = script("insert into plain " + values);
        const std::string message = script("insert into outbox.message " + values);
        const std::string function =
            script("select outbox.enqueue('t', 'key-0123456789', repeat('x', 200))");
        std::vector<double> insert_ratio;
        std::vector<double> function_ratio;
        std::vector<double> us_per_row;
        for (int i = 0; i < pairs; ++i) {
          db.sql("truncate plain, outbox.message");
          db.sql("checkpoint");
          const double p = pgbench(db, "plain", plain, connections, seconds);
          const double m = pgbench(db, "message", message, connections, seconds);
          const double f = pgbench(db, "function", function, connections, seconds);
          std::printf("  rows a second: plain %.0f, outbox.message %.0f, enqueue() %.0f\n",
                      p * rows, m * rows, f * rows);
          std::fflush(stdout);
          insert_ratio.push_back(p / m);
          function_ratio.push_back(p / f);
          us_per_row.push_back(1e6 * (1 / m - 1 / p) / rows);
        }
        std::printf(
            "time of INSERT into outbox.message / plain table   %.2f (%.1f us a row more, seen by "
            "all "
            "connections together)\n",
            median(insert_ratio), median(us_per_row));
        std::printf("time of outbox.enqueue() / INSERT into plain table %.2f\n",
                    median(function_ratio));
      });
}
