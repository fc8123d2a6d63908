// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>

namespace relay::test {

// A file system of its own, in memory, that can be full. Processes started later by the thread that
// made it see it, and nobody else; it is gone when the last of them has ended.
class SmallDisk {
 public:
  // Throws std::system_error, as for anybody but root.
  explicit SmallDisk(std::int64_t bytes);
  ~SmallDisk();
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;

  const std::filesystem::path& path() const { return path_; }
  // Takes all the room that there is.
  void fill() const;
  // Gives it back.
  void empty() const { std::filesystem::remove(filler()); }

 private:
  std::filesystem::path filler() const { return path_ / "filler"; }

  std::filesystem::path path_;
};

}  // namespace relay::test
