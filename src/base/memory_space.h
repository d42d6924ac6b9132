// Where the buffers live that kernels read and write: the host's own memory, or a device's.
//
//   MemorySpace& memory = backend.memory();
//   SWIFTKV_ASSIGN_OR_RETURN(AlignedBuffer rows, AlignedBuffer::Allocate(bytes, "rows", memory));
//   memory.Write(rows.data(), values.data(), bytes);   // in order with the kernels that follow
//   memory.Read(values.data(), rows.data(), bytes);    // after the kernels before
//
// Only the host may look through a pointer of the host's memory, only kernels through one of a device's.
#ifndef SWIFTKV_BASE_MEMORY_SPACE_H_
#define SWIFTKV_BASE_MEMORY_SPACE_H_

#include <cstddef>
#include <cstdint>

#include "base/status.h"

namespace swiftkv {

class MemorySpace {
 public:
  virtual ~MemorySpace() = default;
  virtual bool is_host() const = 0;

  // Zeros, at an address that is a multiple of 64 (of a device: of 256). Error kResourceExhausted names `what`.
  virtual Result<std::byte*> Allocate(int64_t bytes, const char* what) = 0;
  virtual void Free(std::byte* data, int64_t bytes) = 0;

  // `from` is host memory, and free again when Write returns.
  virtual void Write(std::byte* to, const void* from, int64_t bytes) = 0;
  // `to` is host memory; what could not be read leaves it as it is, and Backend::TakeError tells it.
  virtual void Read(void* to, const std::byte* from, int64_t bytes) = 0;
  virtual void Zero(std::byte* to, int64_t bytes) = 0;
  // Both in this memory; they don't overlap.
  virtual void Copy(std::byte* to, const std::byte* from, int64_t bytes) = 0;

  // Bytes that can still be allocated; 0: not known.
  virtual int64_t available_bytes() = 0;
};

MemorySpace& HostMemory();

}  // namespace swiftkv

#endif  // SWIFTKV_BASE_MEMORY_SPACE_H_
