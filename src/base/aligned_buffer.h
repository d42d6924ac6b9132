// Owned memory for tensors, the host's or a device's: 64-byte aligned, zero-filled, on the host backed by huge pages
// where the kernel grants them. Allocation failure is an error value, because sizes follow from files and flags.
#ifndef SWIFTKV_BASE_ALIGNED_BUFFER_H_
#define SWIFTKV_BASE_ALIGNED_BUFFER_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/memory_space.h"
#include "base/status.h"

namespace swiftkv {

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // Error kResourceExhausted (message names `what` and the size) if the system has not that much memory.
  static Result<AlignedBuffer> Allocate(int64_t bytes, const char* what, MemorySpace& memory = HostMemory());

  // Makes it at least that large; what it held is lost where it was smaller. Errors as Allocate.
  Status Grow(int64_t bytes, const char* what, MemorySpace& memory = HostMemory());

  // Call once the contents are written, where they are to be read often: asks the kernel to move them onto huge pages.
  // Only large buffers get those when first touched; decoding reads weights a third faster from them. A wish, never an
  // error.
  void UseHugePages() const;

  std::byte* data() { return data_.get(); }
  const std::byte* data() const { return data_.get(); }
  int64_t bytes() const { return bytes_; }
  template <class T>
  T* as() {
    return reinterpret_cast<T*>(data_.get());
  }
  template <class T>
  const T* as() const {
    return reinterpret_cast<const T*>(data_.get());
  }

 private:
  struct Release {
    MemorySpace* memory;
    int64_t allocated;
    void operator()(std::byte* data) const;
  };
  std::unique_ptr<std::byte, Release> data_{nullptr, Release{nullptr, 0}};
  int64_t bytes_ = 0;
};

}  // namespace swiftkv

#endif  // SWIFTKV_BASE_ALIGNED_BUFFER_H_
