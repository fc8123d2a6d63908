// SPDX-License-Identifier: Apache-2.0
// Processes, and what they use of processor and memory, as /proc shows.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace relay::test {

// The processes whose parent this is.
std::vector<pid_t> children_of(pid_t parent);

// User and system time of one process, all its threads included, in seconds. Throws when the
// process is gone.
double cpu_seconds(pid_t pid);

// The same of a server and its children, those that have ended included.
double cpu_seconds_with_children(pid_t server);

// The most memory that the process has had resident, in kB.
std::int64_t peak_memory_kb(pid_t pid);

// A number of /proc/PID/status, such as "VmRSS" in kB or "Threads". Throws when the process is
// gone.
std::int64_t status_number(pid_t pid, const std::string& name);

// File descriptors that the process has open.
std::int64_t open_files(pid_t pid);

// Middle value; the mean of the two middle ones if their number is even. REQUIRES: !values.empty().
double median(std::vector<double> values);

// The value below which this share of them lies, 0 to 1. REQUIRES: !values.empty().
double quantile(std::vector<double> values, double share);

}  // namespace relay::test
