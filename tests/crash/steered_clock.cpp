// SPDX-License-Identifier: Apache-2.0
// Preloaded, it sets the wall clock that the process sees off by so many seconds as stand in the
// file OUTBOX_CLOCK_AHEAD, an integer of 8 bytes that may change at any time. Monotonic clocks are
// what they were. As with a clock that is truly set, a wait that is under way until a moment of the
// wall clock ends sooner, or later, by as much.
//
// With libfaketime 0.9 and its MT variant, librdkafka's waits end at once or hang.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <threads.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <ctime>

namespace {

std::int64_t ahead_s() {
  static const volatile std::int64_t* const mapped = []() -> const volatile std::int64_t* {
    const char* const file = std::getenv("OUTBOX_CLOCK_AHEAD");
    const int fd = file == nullptr ? -1 : open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return nullptr;
    void* const at = mmap(nullptr, sizeof(std::int64_t), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    return at == MAP_FAILED ? nullptr : static_cast<const std::int64_t*>(at);
  }
  ();
  return mapped == nullptr ? 0 : *mapped;
}

constexpr std::int64_t moment_ns = 5'000'000;
constexpr std::int64_t second_ns = 1'000'000'000;

std::int64_t ns_of(const timespec& t) { return t.tv_sec * second_ns + t.tv_nsec; }

timespec time_of(std::int64_t ns) { return {ns / second_ns, ns % second_ns}; }

template <class Function>
Function next(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

int real_clock_gettime(clockid_t clock, timespec* time) {
  static const auto real = next<int (*)(clockid_t, timespec*)>("clock_gettime");
  return real(clock, time);
}

}  // namespace

extern "C" int clock_gettime(clockid_t clock, timespec* time) noexcept {
  const int result = real_clock_gettime(clock, time);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
    time->tv_sec += ahead_s();
  return result;
}

// What librdkafka waits with; the relay's own waits are on the monotonic clock. Looks at the clock
// again every few milliseconds.
extern "C" int cnd_timedwait(cnd_t* condition, mtx_t* mutex, const timespec* deadline) {
  static const auto real = next<int (*)(cnd_t*, mtx_t*, const timespec*)>("cnd_timedwait");
  while (true) {
    timespec now{};
    real_clock_gettime(CLOCK_REALTIME, &now);
    const std::int64_t left_ns = ns_of(*deadline) - ns_of(now) - ahead_s() * second_ns;
    const timespec until = time_of(ns_of(now) + std::min(left_ns, moment_ns));
    const int result = real(condition, mutex, &until);
    if (result != thrd_timedout || left_ns <= moment_ns) return result;
  }
}

extern "C" int timespec_get(timespec* time, int base) noexcept {
  static const auto real = next<int (*)(timespec*, int)>("timespec_get");
  const int result = real(time, base);
  if (result == TIME_UTC) time->tv_sec += ahead_s();
  return result;
}

extern "C" int gettimeofday(timeval* time, void* zone) noexcept {
  static const auto real = next<int (*)(timeval*, void*)>("gettimeofday");
  const int result = real(time, zone);
  if (result == 0) time->tv_sec += ahead_s();
  return result;
}

extern "C" std::time_t time(std::time_t* out) noexcept {
  static const auto real = next<std::time_t (*)(std::time_t*)>("time");
  const std::time_t now = real(nullptr) + ahead_s();
  if (out != nullptr) *out = now;
  return now;
}
