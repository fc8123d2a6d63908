// SPDX-License-Identifier: Apache-2.0
#include "tests/support/process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <thread>
#include <utility>

namespace relay::test {

namespace {

// The share of a processor that each task gets that could run now.
double share_of_a_processor() {
  std::string averages;
  double runnable = 0;
  std::ifstream("/proc/loadavg") >> averages >> averages >> averages >> runnable;
  return std::min(1.0, std::thread::hardware_concurrency() / std::max(1.0, runnable));
}

}  // namespace

void eventually(const std::string& what, const std::function<bool()>& condition, Millis within) {
  std::chrono::duration<double, std::milli> left = within;
  for (auto then = Clock::now(); !condition();) {
    const auto now = Clock::now();
    left -= (now - then) * share_of_a_processor();
    then = now;
    if (left.count() < 0) throw std::runtime_error("gave up waiting: " + what);
    std::this_thread::yield();
    usleep(2'000);
  }
}

Process::Process(std::vector<std::string> command, const Environment& environment) {
  static std::atomic<int> count{0};
  file_ = "/tmp/outbox-test." + std::to_string(getpid()) + "." + std::to_string(++count) + ".log";
  std::vector<char*> argv;
  for (auto& word : command) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ < 0) throw std::runtime_error("fork failed");
  if (pid_ > 0) return;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);
  const int out = open(file_.c_str(), O_CREAT | O_WRONLY | O_APPEND, 0600);
  dup2(out, STDOUT_FILENO);
  dup2(out, STDERR_FILENO);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const auto& [name, value] : environment) setenv(name.c_str(), value.c_str(), 1);
  execv(argv[0], argv.data());
  dprintf(STDERR_FILENO, "cannot start %s\n", argv[0]);
  _exit(127);
}

Process::Process(Process&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), file_(std::move(other.file_)), status_(other.status_) {}

Process::~Process() {
  if (pid_ > 0 && running()) {
    ::kill(pid_, SIGKILL);
    int status = 0;
    waitpid(pid_, &status, 0);
  }
  if (!file_.empty()) unlink(file_.c_str());
}

void Process::signal(int number) const {
  if (!status_) ::kill(pid_, number);
}

bool Process::running() {
  if (status_) return false;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) != pid_) return true;
  status_ = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  return false;
}

int Process::wait(Millis within) {
  try {
    eventually(
        "the end of process " + std::to_string(pid_), [this] { return !running(); }, within);
  } catch (const std::runtime_error& e) {
    throw std::runtime_error(std::string(e.what()) + "; it said:\n" + output());
  }
  return *status_;
}

std::string Process::output() const {
  std::ostringstream text;
  text << std::ifstream(file_).rdbuf();
  return text.str();
}

void Process::stops() const {
  eventually("process " + std::to_string(pid_) + " stops", [&] {
    return run_command(
               {"/bin/grep", "-q", "^State:.T", "/proc/" + std::to_string(pid_) + "/status"}, {})
               .code == 0;
  });
}

void Process::says(const std::string& text, Millis within) const {
  try {
    eventually(
        text, [&] { return output().find(text) != std::string::npos; }, within);
  } catch (const std::runtime_error& e) {
    throw std::runtime_error(std::string(e.what()) + "; process " + std::to_string(pid_) +
                             " said:\n" + output());
  }
}

Finished run_command(std::vector<std::string> command, const Process::Environment& environment,
                     Millis within) {
  Process process(std::move(command), environment);
  const int code = process.wait(within);
  return {code, process.output()};
}

}  // namespace relay::test
