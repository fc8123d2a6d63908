// SPDX-License-Identifier: Apache-2.0
#include "tests/support/providers.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <stdexcept>

#include "tests/support/loopback.h"

namespace relay::test {

FakeProviders::FakeProviders() {
  std::string folder = std::filesystem::temp_directory_path() / "outbox-providers.XXXXXX";
  if (::mkdtemp(folder.data()) == nullptr) throw std::runtime_error("cannot make " + folder);
  folder_ = folder;
  const std::string key = folder_ + "/key.pem";
  const auto made =
      run_command({"/usr/bin/openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                   "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
                   "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", ca_file()},
                  {});
  if (made.code != 0) throw std::runtime_error("openssl: " + made.output);
  process_.emplace(
      std::vector<std::string>{"/usr/bin/python3", OUTBOX_SOURCE_DIR "/tests/support/providers.py",
                               folder_ + "/log", ca_file(), key},
      Process::Environment{});
  process_->says("READY\n");
  ports_ = process_->output();
}

FakeProviders::~FakeProviders() {
  process_.reset();
  std::filesystem::remove_all(folder_);
}

std::string FakeProviders::port(const std::string& name) const {
  const std::size_t at = ("\n" + ports_).find("\n" + name + "=");
  if (at == std::string::npos) throw std::runtime_error("no port " + name + " in " + ports_);
  const std::size_t begin = at + name.size() + 1;
  return ports_.substr(begin, ports_.find('\n', begin) - begin);
}

void FakeProviders::fault(const Json& fault) const {
  const std::string body = Json::array({fault}).dump();
  const std::string request =
      "POST /faults HTTP/1.1\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  const Socket control = connect_to_loopback(std::stoi(port("CONTROL")));
  char answer[256] = "";
  const bool written = ::write(control.fd(), request.data(), request.size()) ==
                           static_cast<ssize_t>(request.size()) &&
                       ::read(control.fd(), answer, sizeof(answer) - 1) > 0 &&
                       std::string(answer).starts_with("HTTP/1.1 204");
  if (!written)
    throw std::runtime_error("the fakes did not take a fault; they said:\n" + process_->output());
}

std::vector<FakeProviders::Json> FakeProviders::log(const std::string& at, const std::string& event,
                                                    const std::optional<std::string>& key) const {
  std::vector<Json> found;
  std::ifstream file(folder_ + "/log");
  for (std::string line; std::getline(file, line) && !file.eof();) {
    Json entry = Json::parse(line);
    if (entry["at"] == at && entry["event"] == event && (!key || entry["key"] == *key))
      found.push_back(std::move(entry));
  }
  return found;
}

std::string said(const outbox::Outcome& outcome) {
  static constexpr const char* phases[] = {"nothing", "partly", "sent", "answered"};
  static constexpr const char* answers[] = {"none",        "done",         "refused", "not_now",
                                            "in_progress", "unauthorized", "failing", "absent"};
  return std::string(phases[static_cast<std::size_t>(outcome.phase)]) + " " +
         answers[static_cast<std::size_t>(outcome.answer)] + " " + std::to_string(outcome.status);
}

std::string dead_address() {
  // Bound and not listening, so that nobody else gets the port while the test runs.
  static const Socket bound = bound_to_loopback();
  return "127.0.0.1:" + std::to_string(bound.port());
}

}  // namespace relay::test
