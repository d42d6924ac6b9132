#include "server/allocation_limit.h"

#include <cstdlib>
#include <new>

// A file of their own, so that the compiler sees no allocation beside them.
void* operator new(size_t size) {
  void* const memory = size < swiftkv::allocation_limit ? std::malloc(size) : nullptr;
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void* operator new(size_t size, const std::nothrow_t&) noexcept { return std::malloc(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace swiftkv {

std::atomic<size_t> allocation_limit = kNoAllocationLimit;

}  // namespace swiftkv
