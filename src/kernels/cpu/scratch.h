// Work memory of the calling thread, kept between calls.
#ifndef SWIFTKV_KERNELS_CPU_SCRATCH_H_
#define SWIFTKV_KERNELS_CPU_SCRATCH_H_

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace swiftkv::kernels::cpu {

// At least `bytes`, 64-byte aligned, contents undefined. Valid until this thread's next call.
std::byte* ThreadScratch(int64_t bytes);
// The same apart: for what a kernel prepares on the calling thread before all threads take part.
std::byte* CallScratch(int64_t bytes);

inline int64_t RoundUp(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// Gives pointers their arrays in the thread's scratch memory, each 64-byte aligned:
//
//   PlaceInThreadScratch([&](auto place) {
//     place(&scores, 16 * dim);  // float*: elements, not bytes
//     place(&sums, 16);
//   });
//
// Inlined by force: compiled for itself it would have the file's target, and calls into a kernel's instead.
template <class Fields>
[[gnu::always_inline]] inline void PlaceInThreadScratch(const Fields& fields) {
  const auto bytes = [](auto** field, int64_t count) {
    return RoundUp(count * static_cast<int64_t>(sizeof(**field)), 64);
  };
  int64_t total = 0;
  fields([&](auto** field, int64_t count) { total += bytes(field, count); });
  std::byte* next = ThreadScratch(total);
  fields([&](auto** field, int64_t count) {
    *field = reinterpret_cast<std::remove_reference_t<decltype(*field)>>(next);
    next += bytes(field, count);
  });
}

}  // namespace swiftkv::kernels::cpu

#endif  // SWIFTKV_KERNELS_CPU_SCRATCH_H_
