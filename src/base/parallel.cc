#include "base/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>

namespace swiftkv {
namespace {

int AllowedCores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return std::clamp(CPU_COUNT(&set), 1, 1024);
}

std::atomic<int>& ThreadCount() {
  static std::atomic<int> count{AllowedCores()};
  return count;
}

}  // namespace

int Threads() { return ThreadCount().load(std::memory_order_relaxed); }
void SetThreads(int threads) { ThreadCount().store(std::clamp(threads, 1, 1024), std::memory_order_relaxed); }

}  // namespace swiftkv
