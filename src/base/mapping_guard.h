// A mapped file that another process cuts short: Linux answers a read beyond the new end with SIGBUS, which by default
// ends the process. While a MappingGuard lives, such a read finds zeros instead, and failed() tells of it.
//
//   MappingGuard guard(data, size);   // of an mmap
//   ... read ...
//   if (guard.failed()) { what was read may be zeros that the file never held }
//
// A failing disk raises the same signal and is answered in the same way. The first guard installs the process's handler
// of SIGBUS; a SIGBUS from anywhere else goes on to the handler that was there before.
#ifndef SWIFTKV_BASE_MAPPING_GUARD_H_
#define SWIFTKV_BASE_MAPPING_GUARD_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace swiftkv {

class MappingGuard {
 public:
  // The mapping (page-aligned, read-only, private) must outlive the guard.
  MappingGuard(const void* data, size_t size);
  ~MappingGuard();
  MappingGuard(const MappingGuard&) = delete;
  MappingGuard& operator=(const MappingGuard&) = delete;

  bool failed() const { return failed_.load(std::memory_order_acquire); }

  // For the signal handler: if `address` is in the mapping, puts zeros from its page to the end.
  bool Replace(uintptr_t address);

 private:
  const uintptr_t begin_;
  const uintptr_t end_;  // a page boundary
  std::atomic<bool> failed_ = false;
};

}  // namespace swiftkv

#endif  // SWIFTKV_BASE_MAPPING_GUARD_H_
