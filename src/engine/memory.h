// How much memory this process may still take.
#ifndef SWIFTKV_ENGINE_MEMORY_H_
#define SWIFTKV_ENGINE_MEMORY_H_

#include <cstdint>

namespace swiftkv {

struct MemoryInfo {
  int64_t total_bytes = 0;      // of the machine, or the cgroup's limit if that is less
  int64_t available_bytes = 0;  // free or reclaimable; within the cgroup's limit and RLIMIT_AS
};

// Zeros where the system does not say.
MemoryInfo ReadMemoryInfo();

}  // namespace swiftkv

#endif  // SWIFTKV_ENGINE_MEMORY_H_
