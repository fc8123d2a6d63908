// SPDX-License-Identifier: Apache-2.0
// What reading costs where it could be dear: beside many kept rows, behind a late committer, beside
// a large open transaction.
//
//   pages [--kept 3000000] [--open 300000] [--times 21]
//
// Prints medians of the time from asking for a page to having it, as the relay's reader does it.
#include <iostream>

#include "relay/postgres/reader.h"
#include "tests/support/bench_main.h"
#include "tests/support/test_outbox.h"
#include "tests/support/usage.h"

namespace {

using namespace relay;
using namespace relay::test;

struct Options {
  int kept = 3'000'000;
  int open = 300'000;
  int times = 21;
};

std::string rows(int count) {
  return "insert into outbox.message (topic, key, payload) "
         "select 't', convert_to('k' || g % 1000, 'UTF8'), convert_to(rpad(g::text, 200, 'x'), "
         "'UTF8') "
         "from generate_series(1, " +
         std::to_string(count) + ") g";
}

class Bench {
 public:
  explicit Bench(const Options& o)
      : o_(o), db_(shared_postgres(), nullptr), database_(options_), reader_(options_, database_) {
    options_.dsn = Secret(db_.dsn());
    database_.use(std::move(*postgres::StreamSession::connect(db_.dsn())));
  }

  void run() {
    pqxx::connection early(db_.dsn());
    pqxx::work late(early);
    late.exec(rows(2));
    std::cout << "loading " << o_.kept << " rows\n" << std::flush;
    db_.sql(rows(o_.kept));
    db_.sql("vacuum (analyze) outbox.message");
    const Snapshot base = *Snapshot::parse(db_.value("select pg_current_snapshot()::text"));
    late.commit();
    const Cursor behind{.base = base};
    std::optional<Page> two;
    print("page of two rows of a late committer", [&] { two = page(behind); });
    if (!two || two->messages.size() != 2)
      throw std::runtime_error("the page should have two rows");
    const Batch batch{.number = 1,
                      .epoch = 1,
                      .token = Uuid::random(),
                      .bounds = two->bounds,
                      .messages = 2,
                      .bytes = two->bytes};
    print("re-read of that batch", [&] {
      reader_.reset(behind);
      if (auto again = reader_.reread(batch); !again)
        throw std::runtime_error(again.error().text());
    });
    db_.sql(rows(20'000));
    print("page of 20,000 fresh rows, and those", [&] { two = page(behind); });
    if (!two || two->messages.size() < 10'000) throw std::runtime_error("the page should be full");

    pqxx::connection writer(db_.dsn());
    pqxx::work open(writer);
    open.exec(rows(o_.open));
    const Cursor now{.base = *Snapshot::parse(db_.value("select pg_current_snapshot()::text"))};
    print("empty poll beside the open transaction", [&] {
      if (page(now)) throw std::runtime_error("nothing should be visible");
    });
    print("empty poll whose base is older than it", [&] {
      if (!page(behind)) throw std::runtime_error("there should be rows");
    });
  }

 private:
  std::optional<Page> page(const Cursor& cursor) {
    reader_.reset(cursor);
    if (auto r = reader_.want(); !r) throw std::runtime_error(r.error().text());
    while (true) {
      auto news = reader_.advance();
      if (!news) throw std::runtime_error(news.error().text());
      if (*news) return reader_.take();
    }
  }

  template <class F>
  void print(const char* name, F&& once) {
    std::vector<double> ms;
    for (int i = 0; i < o_.times; ++i) {
      const auto began = Clock::now();
      once();
      ms.push_back(std::chrono::duration<double, std::milli>(Clock::now() - began).count());
    }
    std::printf("%-42s %9.3f ms\n", name, median(ms));
    std::fflush(stdout);
  }

  const Options o_;
  TestOutbox db_;
  postgres::Options options_;
  postgres::PgDatabase database_;
  postgres::PgReader reader_;
};

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return relay::test::bench_main(argc, argv, "pages", "Times the reader's pages.",
                                 {{"--kept", &o.kept, "Delivered rows that are kept"},
                                  {"--open", &o.open, "Rows of the open transaction"},
                                  {"--times", &o.times, "Repetitions of each"}},
                                 [&] { Bench(o).run(); });
}
