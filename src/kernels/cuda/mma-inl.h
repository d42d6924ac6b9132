// What the attention kernels share: PTX instructions as functions, and the arithmetic of shared memory tiles. Runs on
// compute capability 8.0 and later. Fragment layouts: PTX ISA, "Matrix Fragments for mma.m16n8k16" and "ldmatrix".
#ifndef SWIFTKV_KERNELS_CUDA_MMA_INL_H_
#define SWIFTKV_KERNELS_CUDA_MMA_INL_H_

#include <cuda_bf16.h>

#include <cstddef>
#include <cstdint>

namespace swiftkv::kernels::cuda {

inline constexpr unsigned kAllLanes = 0xffffffffu;
inline constexpr float kLog2E = 1.4426950408889634f;

// The dynamic shared memory of this block, aligned as 128-byte swizzling wants it.
__device__ __forceinline__ std::byte* DynamicSharedMemory() {
  extern __shared__ __align__(1024) std::byte dynamic_shared_memory[];
  return dynamic_shared_memory;
}

__device__ __forceinline__ uint32_t SharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// 16 bytes to shared memory, asynchronously; zeros unless `valid` (then `from` isn't read, but must be an address).
__device__ __forceinline__ void CopyAsync16(uint32_t to, const void* from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(__cvta_generic_to_global(from)),
               "r"(valid ? 16 : 0)
               : "memory");
}

__device__ __forceinline__ void CommitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits for this thread's copies but for those of its last `kPending` groups.
template <int kPending>
__device__ __forceinline__ void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Four 8x8 matrices of 16-bit elements. Lane l gives the address of row l % 8 of matrix l / 8, and gets from matrix i
// in fragment[i] the elements 2 * (l % 4) and the next of row l / 4.
__device__ __forceinline__ void LoadMatrices(uint32_t address, uint32_t (&fragment)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
               : "r"(address)
               : "memory");
}

// The same of the transposed matrices: rows 2 * (l % 4) and the next of column l / 4.
__device__ __forceinline__ void LoadMatricesTransposed(uint32_t address, uint32_t (&fragment)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
               : "r"(address)
               : "memory");
}

// sums[16, 8] += a[16, 16] b[16, 8], a and b bf16. With r = lane / 4 and c = 2 * (lane % 4):
//   sums  (r, c) (r, c + 1) (r + 8, c) (r + 8, c + 1)
//   a     (r, c) (r + 8, c) (r, c + 8) (r + 8, c + 8), each with the next column in the upper half
//   b0    (c, r), b1 (c + 8, r), each with the next row in the upper half
__device__ __forceinline__ void MultiplyAdd(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// 2^x, to 2 units in the last place; 0 for -infinity.
__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ uint32_t PackBFloat16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// Bytes kFirst and kSecond of four E4M3 values as two bf16, exactly (but that NaN becomes 480; none is ever stored).
// A value's bits, moved to where bf16 has its sign, its exponent's low bits and its mantissa's high ones, are that
// value times 2^-120, subnormal ones too: the exponents' biases are 7 and 127.
template <int kFirst, int kSecond>
__device__ __forceinline__ uint32_t E4M3ToBFloat16(uint32_t values) {
  // Each value in the upper byte of its half; the lower bytes are masked away.
  const uint32_t spread = __byte_perm(values, 0, kFirst << 4 | kSecond << 12);
  const uint32_t bits = (spread & 0x80008000u) | ((spread & 0x7f007f00u) >> 4);
  const __nv_bfloat162 scale = __halves2bfloat162(__ushort_as_bfloat16(0x7b80), __ushort_as_bfloat16(0x7b80));
  const __nv_bfloat162 pair = __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&bits), scale);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// Maximum and sum over the four lanes that share a row of a fragment.
__device__ __forceinline__ float QuadMax(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
}
__device__ __forceinline__ float QuadSum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}

// Byte offset of a row's 16-byte chunk in a tile of rows of kRowBytes: the chunks that eight successive rows have at
// one place lie in different banks. The tile is aligned to its rows, so that the chunk 2 * i further lies at address
// (that ^ 32 * i).
template <int kRowBytes>
__device__ __forceinline__ uint32_t SwizzledOffset(int row, int chunk) {
  constexpr int kRowsOfBanks = kRowBytes < 128 ? 128 / kRowBytes : 1;
  constexpr int kMask = kRowBytes < 128 ? kRowBytes / 16 - 1 : 7;
  return static_cast<uint32_t>(row * kRowBytes + (chunk ^ (row / kRowsOfBanks & kMask)) * 16);
}

}  // namespace swiftkv::kernels::cuda

#endif  // SWIFTKV_KERNELS_CUDA_MMA_INL_H_
