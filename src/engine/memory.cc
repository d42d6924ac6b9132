#include "engine/memory.h"

#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <string>

namespace swiftkv {
namespace {

// "<name>:   <kB> kB" in /proc/meminfo, in bytes.
int64_t MeminfoBytes(const std::string& name) {
  std::ifstream file("/proc/meminfo");
  std::string key;
  int64_t kilobytes = 0;
  std::string unit;
  while (file >> key >> kilobytes) {
    if (key == name) return kilobytes << 10;
    std::getline(file, unit);
  }
  return 0;
}

// A cgroup v2 file that holds one number; nullopt where it is absent or "max".
std::optional<int64_t> CgroupBytes(const char* path) {
  std::ifstream file(path);
  int64_t bytes = 0;
  if (file >> bytes) return bytes;
  return std::nullopt;
}

}  // namespace

MemoryInfo ReadMemoryInfo() {
  MemoryInfo info{.total_bytes = MeminfoBytes("MemTotal:"), .available_bytes = MeminfoBytes("MemAvailable:")};
  const std::optional<int64_t> limit = CgroupBytes("/sys/fs/cgroup/memory.max");
  const std::optional<int64_t> used = CgroupBytes("/sys/fs/cgroup/memory.current");
  if (limit && *limit < info.total_bytes) {
    info.total_bytes = *limit;
    info.available_bytes = std::min(info.available_bytes, std::max<int64_t>(*limit - used.value_or(0), 0));
  }
  rlimit address_space{};
  if (getrlimit(RLIMIT_AS, &address_space) == 0 && address_space.rlim_cur != RLIM_INFINITY) {
    info.available_bytes = std::min(info.available_bytes, static_cast<int64_t>(address_space.rlim_cur));
  }
  return info;
}

int64_t AvailableBytes(MemorySpace& memory) {
  return memory.is_host() ? ReadMemoryInfo().available_bytes : memory.available_bytes();
}

Status CheckWeightsFit(const std::string& origin, int64_t bytes, MemorySpace& memory) {
  const int64_t available = AvailableBytes(memory);
  if (available == 0 || bytes <= available) return Ok();
  return ResourceExhausted("{}: the weights need {} MiB; {} MiB of {} are available", origin, bytes >> 20,
                           available >> 20, memory.is_host() ? "memory" : "the GPU's memory");
}

}  // namespace swiftkv
