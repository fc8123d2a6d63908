// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <pqxx/pqxx>
#include <string>
#include <thread>
#include <vector>

namespace relay::test {

// Writers that commit asynchronously where the server's setting says so, each on a key of its own,
// and go on through outages. They count what was acknowledged to them and then forgotten. REQUIRES:
// create_counters().
class AsynchronousWriters {
 public:
  AsynchronousWriters(std::string dsn, std::string topic, int count)
      : dsn_(std::move(dsn)), topic_(std::move(topic)) {
    for (int w = 0; w < count; ++w)
      threads_.emplace_back([this, w] { write("k" + std::to_string(w)); });
  }
  ~AsynchronousWriters() { stop(); }
  void stop() {
    stopping_ = true;
    for (auto& t : threads_) {
      if (t.joinable()) t.join();
    }
  }
  std::int64_t forgotten() const { return forgotten_; }
  std::int64_t acknowledged() const { return acknowledged_; }

 private:
  void write(const std::string& key) {
    std::int64_t last = 0;
    while (!stopping_) {
      try {
        pqxx::connection c(dsn_);
        pqxx::nontransaction tx(c);
        const auto found =
            tx.exec("select coalesce(max(n), 0) from counter where key = '" + key + "'")[0][0]
                .as<std::int64_t>();
        forgotten_ += std::max<std::int64_t>(0, last - found);
        last = found;
        while (!stopping_) {
          last = tx.exec("with c as (insert into counter values ('" + key +
                         "', 1) on conflict (key) do update set n = counter.n + 1 returning n), "
                         "m as (insert into outbox.message (topic, key, payload) select '" +
                         topic_ + "', '" + key +
                         "', "
                         "convert_to('" +
                         key + " ' || n, 'UTF8') from c) select n from c")[0][0]
                     .as<std::int64_t>();
          ++acknowledged_;
          tx.exec("select pg_sleep(0.002)");  // a load, not a flood
        }
      } catch (const std::exception&) {
        // The server is away: that is what the test is about.
      }
    }
  }

  const std::string dsn_;
  const std::string topic_;
  std::atomic<bool> stopping_ = false;
  std::atomic<std::int64_t> forgotten_ = 0;
  std::atomic<std::int64_t> acknowledged_ = 0;
  std::vector<std::thread> threads_;
};

}  // namespace relay::test
