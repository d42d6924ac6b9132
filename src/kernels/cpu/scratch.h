// Work memory of the calling thread, kept between calls.
#ifndef SWIFTKV_KERNELS_CPU_SCRATCH_H_
#define SWIFTKV_KERNELS_CPU_SCRATCH_H_

#include <cstddef>
#include <cstdint>

namespace swiftkv::kernels::cpu {

// At least `bytes`, 64-byte aligned, contents undefined. Valid until this thread's next call.
std::byte* ThreadScratch(int64_t bytes);
// The same apart: for what a kernel prepares on the calling thread before all threads take part.
std::byte* CallScratch(int64_t bytes);

inline int64_t RoundUp(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace swiftkv::kernels::cpu

#endif  // SWIFTKV_KERNELS_CPU_SCRATCH_H_
