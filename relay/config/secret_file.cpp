// SPDX-License-Identifier: Apache-2.0
#include "relay/config/secret_file.h"

#include <fcntl.h>
#include <spdlog/fmt/fmt.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "relay/config/parse.h"

namespace relay::config {
namespace {

constexpr std::size_t secret_bytes_max = 64 * 1024;

class File {
 public:
  // Without O_NONBLOCK a FIFO without a writer would hang here, before fstat can refuse it.
  explicit File(const std::string& path)
      : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int fd() const { return fd_; }

 private:
  int fd_;
};

Error wrong(const std::string& path, const std::string& what, std::string hint) {
  return Error{Fault::usage, fmt::format("the file {} {}", in_quotes(path), what), std::move(hint)};
}

}  // namespace

Result<Secret> read_secret_file(const std::string& path) {
  const File file(path);
  struct stat status {};
  if (file.fd() < 0 || ::fstat(file.fd(), &status) != 0) {
    return wrong(
        path, fmt::format("cannot be opened: {}", std::strerror(errno)),
        "create it with the secret as its only content, readable by the user that runs the relay.");
  }
  if (!S_ISREG(status.st_mode))
    return wrong(path, "is not a regular file", "name a file that holds the secret.");
  if ((status.st_mode & (S_IROTH | S_IWOTH)) != 0) {
    return wrong(
        path, "can be read or written by every user of this machine",
        "chmod o-rw it; for a secret mounted by Kubernetes, set defaultMode: 0440 and an fsGroup.");
  }
  std::string content(secret_bytes_max + 1, '\0');
  std::size_t size = 0;
  while (size < content.size()) {
    const ssize_t got = ::read(file.fd(), content.data() + size, content.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      const int reason = errno;
      wipe(content);
      return wrong(path, fmt::format("cannot be read: {}", std::strerror(reason)),
                   "check the file system.");
    }
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  if (size > secret_bytes_max) {
    wipe(content);
    return wrong(path, "is longer than 64 KiB", "it must hold the secret and nothing else.");
  }
  content.resize(size);
  if (content.ends_with('\n')) content.pop_back();
  if (content.ends_with('\r')) content.pop_back();
  if (content.empty()) return wrong(path, "is empty", "it must hold the secret and nothing else.");
  return Secret(std::move(content), path);
}

}  // namespace relay::config
