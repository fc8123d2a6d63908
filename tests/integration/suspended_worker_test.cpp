// SPDX-License-Identifier: Apache-2.0
// The machine of a worker is suspended between its claim and its request, for longer than the claim
// lasts: another worker may have made the request meanwhile. The sleeper must not make it.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <filesystem>
#include <new>

#include "tests/crash/fault_at_socket_call.h"
#include "tests/support/effect_checker.h"
#include "tests/support/test_outbox.h"

namespace relay {
namespace {

using test::SocketFault;

// A file with a SocketFault, for a library that is preloaded.
class SharedFault {
 public:
  SharedFault() {
    const int fd = open(file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(SocketFault)) != 0) throw std::runtime_error(file_);
    void* const at = mmap(nullptr, sizeof(SocketFault), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (at == MAP_FAILED) throw std::runtime_error("mmap of " + file_);
    fault_ = new (at) SocketFault;
  }
  ~SharedFault() {
    munmap(fault_, sizeof(SocketFault));
    std::filesystem::remove(file_);
  }
  SharedFault(const SharedFault&) = delete;
  SharedFault& operator=(const SharedFault&) = delete;

  const std::string& file() const { return file_; }
  SocketFault* operator->() const { return fault_; }

 private:
  const std::string file_ =
      std::filesystem::path(testing::TempDir()) / ("socket-fault-" + std::to_string(getpid()));
  SocketFault* fault_;
};

class SuspendedWorker : public ::testing::TestWithParam<const char*> {
 protected:
  SuspendedWorker() : kind(GetParam()), db(test::shared_postgres()) {
    outbox::ProviderSettings settings{.in_doubt_policy = outbox::InDoubtPolicy::hold};
    settings.claim_ttl = std::chrono::seconds(20);
    settings.retry_first = settings.retry_max = std::chrono::milliseconds(10);
    settings.breaker_failures = 100'000;
    settings.retry_budget_burst = 100'000;
    db.register_provider(kind, settings);
  }

  std::string server() const {
    return kind == "mail" ? fakes.mail() : kind == "store" ? fakes.store() : fakes.payments();
  }
  // Plans one effect; its key, as the log of the provider has it.
  std::string plan_one() {
    const std::string id = "e" + std::to_string(++planned);
    test::PlannedEffect p{kind == "bank" ? "payments" : kind, id, {}};
    p.effect.provider = kind;
    p.effect.body = kind == "mail" ? "Subject: x\n\nText.\n" : "{}";
    p.key = kind == "mail" ? id + "@customers.example" : kind == "store" ? "/" + id : id;
    p.effect.target = kind == "mail" ? std::map<std::string, std::string>{{"to", p.key}}
                      : kind == "store"
                          ? std::map<std::string, std::string>{{"url", server() + p.key}}
                          : std::map<std::string, std::string>{{"path", "/charges"}};
    p.effect.effect_key = p.key;
    test::plan(db, {p});
    return p.key;
  }
  // Runs a worker until it has settled an effect, well or not.
  void work(const test::Process::Environment& more = {}) {
    test::Process worker({test::program_path("worker-that-dies"), db.dsn(), kind, server()}, more);
    EXPECT_EQ(worker.wait(), 0) << worker.output();
  }
  // The same, suspended before its socket call of this number.
  void work_suspended(std::int64_t at) {
    fault->calls = 0;
    fault->struck = fault->suspended = false;
    fault->name.fill('\0');
    fault->port = 0;
    fault->what = SocketFault::What::suspend;
    fault->at = at;
    fault->armed = true;
    work({{"LD_PRELOAD", std::string(OUTBOX_BUILD_DIR) + "/libfault_at_socket_call.so"},
          {"OUTBOX_SOCKET_FAULT", fault.file()}});
  }
  std::size_t executed(const std::string& key) const {
    return fakes.effects(kind == "bank" ? "payments" : kind, key);
  }

  const std::string kind;
  test::TestLedger db;
  test::FakeProviders fakes;
  SharedFault fault;
  int planned = 0;
};

TEST_P(SuspendedWorker, SendsNothingAfterItsClaim) {
  const int port = std::stoi(server().substr(server().rfind(':') + 1));
  std::size_t by_the_sleeper = 1;  // executed by the worker that was suspended one call earlier
  for (int at = 1;; ++at) {
    ASSERT_LT(at, 200) << "no call went to the provider";
    const std::string key = plan_one();
    work_suspended(at);
    ASSERT_TRUE(fault->struck) << "call " << at;
    if (fault->port == port) {
      // The call before this one connected to the provider.
      EXPECT_EQ(by_the_sleeper, 0U) << "sent by a claim that was over";
      // What is written in one call cannot be taken back; a mail counts from its last dot.
      if (kind == "mail") {
        EXPECT_EQ(executed(key), 0U);
      }
      return;
    }
    by_the_sleeper = executed(key);
    while (db.value("select count(*) from effect.effect where state in ('planned', "
                    "'in_doubt')") != "0")
      work();
    EXPECT_EQ(executed(key), 1U) << "call " << at;
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, SuspendedWorker, ::testing::Values("bank", "store", "mail"),
                         [](const auto& p) { return std::string(p.param); });

}  // namespace
}  // namespace relay
