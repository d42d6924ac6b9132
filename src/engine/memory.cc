#include "engine/memory.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <filesystem>
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

// What the files of a memory cgroup are called.
struct CgroupVersion {
  const char* root;
  const char* limit;
  const char* usage;
  const char* inactive_file;  // in memory.stat, with the cgroups inside
  const char* active_file;
};
constexpr CgroupVersion kVersion1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                                     "total_inactive_file", "total_active_file"};
constexpr CgroupVersion kVersion2 = {"/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file", "active_file"};

// A file that holds one number; nullopt where it is absent or "max".
std::optional<int64_t> NumberIn(const std::string& path) {
  std::ifstream file(path);
  int64_t number = 0;
  if (file >> number) return number;
  return std::nullopt;
}

// Pages of files in the cgroup: charged to it, and reclaimed when something else wants their place.
int64_t FileBytes(const std::string& folder, const CgroupVersion& version) {
  std::ifstream file(folder + "/memory.stat");
  std::string key;
  int64_t bytes = 0;
  int64_t sum = 0;
  while (file >> key >> bytes) {
    if (key == version.inactive_file || key == version.active_file) sum += bytes;
  }
  return sum;
}

void LimitBy(const std::string& folder, const CgroupVersion& version, MemoryInfo* info) {
  const std::optional<int64_t> limit = NumberIn(folder + "/" + version.limit);
  if (!limit) return;
  const int64_t used = NumberIn(folder + "/" + version.usage).value_or(0) - FileBytes(folder, version);
  info->total_bytes = std::min(info->total_bytes, *limit);
  info->available_bytes = std::min(info->available_bytes, std::max<int64_t>(*limit - std::max<int64_t>(used, 0), 0));
}

}  // namespace

void LimitByCgroups(const std::string& root, MemoryInfo* info) {
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {  // "0::/path", of version 1 "4:memory,hugetlb:/path"
    const size_t controllers = line.find(':') + 1;
    const size_t path_begin = line.find(":/", controllers) + 1;
    if (controllers == 0 || path_begin == 0) continue;
    const std::string names = fmt::format(",{},", line.substr(controllers, path_begin - 1 - controllers));
    if (names != ",," && names.find(",memory,") == std::string::npos) continue;
    const CgroupVersion& version = names == ",," ? kVersion2 : kVersion1;
    // Each cgroup on the way up has a limit of its own. A container may see its own as the root.
    for (std::filesystem::path path = line.substr(path_begin); path != "/"; path = path.parent_path()) {
      LimitBy(root + version.root + path.string(), version, info);
    }
    LimitBy(root + version.root, version, info);
  }
}

MemoryInfo ReadMemoryInfo() {
  MemoryInfo info{.total_bytes = MeminfoBytes("MemTotal:"), .available_bytes = MeminfoBytes("MemAvailable:")};
  LimitByCgroups("", &info);
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
