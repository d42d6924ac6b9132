#include "base/aligned_buffer.h"

#include <sys/mman.h>

#include <algorithm>

namespace swiftkv {

void AlignedBuffer::Unmap::operator()(std::byte* data) const { munmap(data, static_cast<size_t>(mapped)); }

Result<AlignedBuffer> AlignedBuffer::Allocate(int64_t bytes, const char* what) {
  constexpr int64_t kHugePage = int64_t{2} << 20;
  constexpr int64_t kLimit = int64_t{1} << 46;
  if (bytes < 0 || bytes > kLimit) return InvalidInput("{}: {} bytes asked for, the limit is {}", what, bytes, kLimit);
  const int64_t mapped = std::max<int64_t>(bytes, 1);
  // Anonymous pages arrive zeroed, and only the pages touched count as resident.
  void* data = mmap(nullptr, static_cast<size_t>(mapped), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) {
    return ResourceExhausted("{}: no memory for {} MiB", what, bytes >> 20);
  }
  if (mapped >= kHugePage) madvise(data, static_cast<size_t>(mapped), MADV_HUGEPAGE);
  AlignedBuffer buffer;
  buffer.data_ = std::unique_ptr<std::byte, Unmap>(static_cast<std::byte*>(data), Unmap{mapped});
  buffer.bytes_ = bytes;
  return buffer;
}

}  // namespace swiftkv
