// SPDX-License-Identifier: Apache-2.0
#include "tests/support/small_disk.h"

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <system_error>

namespace relay::test {
namespace {

[[noreturn]] void fail(const std::string& what) {
  throw std::system_error(errno, std::generic_category(), what);
}

}  // namespace

SmallDisk::SmallDisk(std::int64_t bytes) {
  std::string name = std::filesystem::temp_directory_path() / "outbox-disk.XXXXXX";
  if (mkdtemp(name.data()) == nullptr) fail("cannot create " + name);
  path_ = name;
  const std::string size = "mode=755,size=" + std::to_string(bytes);
  if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      mount("tmpfs", name.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, size.c_str()) != 0) {
    const int reason = errno;
    rmdir(name.c_str());
    errno = reason;
    fail("cannot mount a disk, which needs root");
  }
}

SmallDisk::~SmallDisk() {
  umount2(path_.c_str(), MNT_DETACH);
  rmdir(path_.c_str());
}

void SmallDisk::fill() const {
  const int fd = open(filler().c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) {
    if (errno == ENOSPC) return;
    fail("cannot create " + filler().string());
  }
  const std::string page(4'096, 'x');
  while (write(fd, page.data(), page.size()) > 0) {
  }
  const bool full = errno == ENOSPC;
  close(fd);
  if (!full) fail("cannot fill " + path_.string());
}

}  // namespace relay::test
