// SPDX-License-Identifier: Apache-2.0
// Preloaded, it sets the wall clock that the process sees off by so many seconds as stand in the file OUTBOX_CLOCK_AHEAD, an integer of
// 8 bytes that may change at any time. Monotonic clocks are what they were, and waits are as long as they were when they began: one that
// is under way when the clock is set goes on, where a kernel's would end sooner or later.
//
// With libfaketime 0.9 and its MT variant, librdkafka's waits end at once or hang.
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

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
  }();
  return mapped == nullptr ? 0 : *mapped;
}

template <class Function>
Function next(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" int clock_gettime(clockid_t clock, timespec* time) noexcept {
  static const auto real = next<int (*)(clockid_t, timespec*)>("clock_gettime");
  const int result = real(clock, time);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) time->tv_sec += ahead_s();
  return result;
}

// A deadline on the wall clock, as the process sees it; one of a monotonic clock counts from the start of the machine.
extern "C" int pthread_cond_timedwait(pthread_cond_t* condition, pthread_mutex_t* mutex, const timespec* deadline) {
  using Wait = int (*)(pthread_cond_t*, pthread_mutex_t*, const timespec*);
  static const auto real = [] {
    void* const x86 = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    return x86 == nullptr ? next<Wait>("pthread_cond_timedwait") : reinterpret_cast<Wait>(x86);
  }();
  timespec true_deadline = *deadline;
  if (constexpr std::time_t no_uptime = 1'000'000'000; true_deadline.tv_sec > no_uptime) true_deadline.tv_sec -= ahead_s();
  return real(condition, mutex, &true_deadline);
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
