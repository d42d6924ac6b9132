#include "base/aligned_buffer.h"

#include <sys/mman.h>

#include <algorithm>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25  // Linux 6.1; older kernels answer EINVAL
#endif

namespace swiftkv {
namespace {

constexpr int64_t kHugePage = int64_t{2} << 20;
constexpr int64_t kSmallest = 128 << 10;  // smaller buffers aren't worth the trouble

}  // namespace

void AlignedBuffer::Unmap::operator()(std::byte* data) const { munmap(data, static_cast<size_t>(mapped)); }

Result<AlignedBuffer> AlignedBuffer::Allocate(int64_t bytes, const char* what) {
  constexpr int64_t kLimit = int64_t{1} << 46;
  if (bytes < 0 || bytes > kLimit) return InvalidInput("{}: {} bytes asked for, the limit is {}", what, bytes, kLimit);
  const int64_t mapped = std::max<int64_t>(bytes, 1);
  // Anonymous pages arrive zeroed, and only the pages touched count as resident.
  void* data = mmap(nullptr, static_cast<size_t>(mapped), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) {
    return ResourceExhausted("{}: no memory for {} MiB", what, bytes >> 20);
  }
  if (mapped >= kSmallest) madvise(data, static_cast<size_t>(mapped), MADV_HUGEPAGE);
  AlignedBuffer buffer;
  buffer.data_ = std::unique_ptr<std::byte, Unmap>(static_cast<std::byte*>(data), Unmap{mapped});
  buffer.bytes_ = bytes;
  return buffer;
}

void AlignedBuffer::UseHugePages() const {
  if (bytes_ < kSmallest) return;
  // The first and last page may be shared with neighbours: mappings made one after the other are adjacent, and the
  // kernel treats them as one. Where they are not, it refuses that page.
  const auto begin = reinterpret_cast<uintptr_t>(data_.get()) / kHugePage * kHugePage;
  const auto end = reinterpret_cast<uintptr_t>(data_.get()) + static_cast<uintptr_t>(bytes_);
  for (uintptr_t page = begin; page < end; page += kHugePage) {
    madvise(reinterpret_cast<void*>(page), kHugePage, MADV_COLLAPSE);
  }
}

}  // namespace swiftkv
