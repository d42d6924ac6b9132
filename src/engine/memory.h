// How much memory this process may still take.
#ifndef SWIFTKV_ENGINE_MEMORY_H_
#define SWIFTKV_ENGINE_MEMORY_H_

#include <cstdint>
#include <string>

#include "base/memory_space.h"
#include "base/status.h"

namespace swiftkv {

struct MemoryInfo {
  int64_t total_bytes = 0;      // of the machine, or the limit of a cgroup that holds the process if that is less
  int64_t available_bytes = 0;  // free or reclaimable; within the cgroups' limits and RLIMIT_AS
};

// Lowers `info` to the limits of the process's memory cgroups, version 1 or 2. `root` is empty but in tests.
void LimitByCgroups(const std::string& root, MemoryInfo* info);

// Zeros where the system does not say.
MemoryInfo ReadMemoryInfo();

// What can still be allocated there; 0 where the system does not say.
int64_t AvailableBytes(MemorySpace& memory);

// Linux lends more memory than it has and later kills who uses it, so that the sum is checked before weights are
// loaded. Error kResourceExhausted: `bytes` are more than there is; `origin` names the model.
Status CheckWeightsFit(const std::string& origin, int64_t bytes, MemorySpace& memory);

}  // namespace swiftkv

#endif  // SWIFTKV_ENGINE_MEMORY_H_
