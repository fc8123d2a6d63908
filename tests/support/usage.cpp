// SPDX-License-Identifier: Apache-2.0
#include "tests/support/usage.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>

namespace relay::test {
namespace {

struct Stat {
  pid_t parent = 0;
  double own = 0;     // seconds
  double reaped = 0;  // of children that have ended and were waited for
};

Stat read_stat(const std::filesystem::path& process) {
  std::stringstream text;
  text << std::ifstream(process / "stat").rdbuf();
  const std::string line = text.str();
  const auto name_end = line.rfind(')');
  if (name_end == std::string::npos) throw std::runtime_error(process.string() + " is gone");
  std::istringstream fields(line.substr(name_end + 2));  // field 3, the state, comes first
  std::vector<std::string> f;
  for (std::string field; fields >> field;) f.push_back(field);
  const auto seconds = [&](std::size_t number) {
    return std::stod(f.at(number - 3)) / static_cast<double>(sysconf(_SC_CLK_TCK));
  };
  return {static_cast<pid_t>(std::stoi(f.at(1))), seconds(14) + seconds(15),
          seconds(16) + seconds(17)};
}

}  // namespace

double cpu_seconds(pid_t pid) { return read_stat("/proc/" + std::to_string(pid)).own; }

std::vector<pid_t> children_of(pid_t parent) {
  std::vector<pid_t> children;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    try {
      if (read_stat(entry.path()).parent == parent) children.push_back(std::stoi(name));
    } catch (const std::runtime_error&) {
      continue;  // it ended meanwhile
    }
  }
  return children;
}

double cpu_seconds_with_children(pid_t server) {
  const Stat root = read_stat("/proc/" + std::to_string(server));
  double sum = root.own + root.reaped;
  for (const pid_t child : children_of(server)) {
    try {
      sum += cpu_seconds(child);
    } catch (const std::runtime_error&) {
      continue;
    }
  }
  return sum;
}

std::int64_t status_number(pid_t pid, const std::string& name) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(name + ":")) return std::stoll(line.substr(name.size() + 1));
  }
  throw std::runtime_error("process " + std::to_string(pid) + " is gone");
}

std::int64_t peak_memory_kb(pid_t pid) { return status_number(pid, "VmHWM"); }

std::int64_t open_files(pid_t pid) {
  const std::filesystem::directory_iterator all("/proc/" + std::to_string(pid) + "/fd");
  return std::distance(begin(all), end(all));
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const auto n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

double quantile(std::vector<double> values, double share) {
  const auto at = static_cast<std::size_t>(share * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(at), values.end());
  return values[at];
}

}  // namespace relay::test
