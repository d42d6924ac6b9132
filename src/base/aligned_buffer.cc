#include "base/aligned_buffer.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25  // Linux 6.1; older kernels answer EINVAL
#endif

namespace swiftkv {
namespace {

constexpr int64_t kHugePage = int64_t{2} << 20;
constexpr int64_t kSmallest = 128 << 10;  // smaller buffers aren't worth the trouble

class HostMemorySpace final : public MemorySpace {
 public:
  bool is_host() const override { return true; }

  Result<std::byte*> Allocate(int64_t bytes, const char* what) override {
    // Anonymous pages arrive zeroed, and only the pages touched count as resident.
    void* data = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) return ResourceExhausted("{}: no memory for {} MiB", what, bytes >> 20);
    if (bytes >= kSmallest) madvise(data, static_cast<size_t>(bytes), MADV_HUGEPAGE);
    return static_cast<std::byte*>(data);
  }
  void Free(std::byte* data, int64_t bytes) override { munmap(data, static_cast<size_t>(bytes)); }

  void Write(std::byte* to, const void* from, int64_t bytes) override {
    if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
  }
  void Read(void* to, const std::byte* from, int64_t bytes) override {
    if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
  }
  void Zero(std::byte* to, int64_t bytes) override {
    if (bytes > 0) std::memset(to, 0, static_cast<size_t>(bytes));
  }
  void Copy(std::byte* to, const std::byte* from, int64_t bytes) override {
    if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
  }

  int64_t available_bytes() override { return 0; }
};

}  // namespace

MemorySpace& HostMemory() {
  static HostMemorySpace memory;
  return memory;
}

void AlignedBuffer::Release::operator()(std::byte* data) const { memory->Free(data, allocated); }

Result<AlignedBuffer> AlignedBuffer::Allocate(int64_t bytes, const char* what, MemorySpace& memory) {
  constexpr int64_t kLimit = int64_t{1} << 46;
  if (bytes < 0 || bytes > kLimit) return InvalidInput("{}: {} bytes asked for, the limit is {}", what, bytes, kLimit);
  const int64_t allocated = std::max<int64_t>(bytes, 1);
  SWIFTKV_ASSIGN_OR_RETURN(std::byte * data, memory.Allocate(allocated, what));
  AlignedBuffer buffer;
  buffer.data_ = std::unique_ptr<std::byte, Release>(data, Release{&memory, allocated});
  buffer.bytes_ = bytes;
  return buffer;
}

Status AlignedBuffer::Grow(int64_t bytes, const char* what, MemorySpace& memory) {
  if (bytes <= bytes_) return Ok();
  *this = AlignedBuffer();  // gives the old memory back first
  SWIFTKV_ASSIGN_OR_RETURN(*this, Allocate(bytes, what, memory));
  return Ok();
}

void AlignedBuffer::UseHugePages() const {
  if (bytes_ < kSmallest || !data_.get_deleter().memory->is_host()) return;
  // The first and last page may be shared with neighbours: mappings made one after the other are adjacent, and the
  // kernel treats them as one. Where they are not, it refuses that page.
  const auto begin = reinterpret_cast<uintptr_t>(data_.get()) / kHugePage * kHugePage;
  const auto end = reinterpret_cast<uintptr_t>(data_.get()) + static_cast<uintptr_t>(bytes_);
  for (uintptr_t page = begin; page < end; page += kHugePage) {
    madvise(reinterpret_cast<void*>(page), kHugePage, MADV_COLLAPSE);
  }
}

}  // namespace swiftkv
