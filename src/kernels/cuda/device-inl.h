// What the kernels of rows share: chunks of elements in vector registers, reductions over a block, conversions. For .cu
// files alone.
//
// A thread works on chunks of neighbouring elements. Whether a chunk is one 16-byte access or one access per element
// (pointers or strides that don't allow it) changes neither which thread has which element nor the order of sums.
#ifndef SWIFTKV_KERNELS_CUDA_DEVICE_INL_H_
#define SWIFTKV_KERNELS_CUDA_DEVICE_INL_H_

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>
#include <type_traits>
#include <utility>

#include "base/dtype.h"

namespace swiftkv::kernels::cuda {

using BF16 = __nv_bfloat16;
using E4M3 = __nv_fp8_e4m3;

inline constexpr int kWarpSize = 32;
inline constexpr int kMaxThreads = 1024;  // of one block
inline constexpr int kVectorBytes = 16;
inline constexpr float kMaxE4M3 = 448;

// Elements of T that a thread reads at once.
template <typename T>
inline constexpr int kChunkOf = sizeof(T) == 4 ? 4 : 8;

template <int kCount>
struct Floats {
  float values[kCount];
  __device__ float& operator[](int i) { return values[i]; }
  __device__ float operator[](int i) const { return values[i]; }
};

// Elements as they lie in memory.
template <int kBytes>
struct alignas(kBytes < kVectorBytes ? kBytes : kVectorBytes) Words {
  uint32_t values[kBytes / 4];
};

// The lowest bits of a word are the element that comes first in memory.
__device__ inline void UnpackWord(uint32_t word, float* values, std::type_identity<float>) {
  values[0] = __uint_as_float(word);
}
__device__ inline void UnpackWord(uint32_t word, float* values, std::type_identity<BF16>) {
  values[0] = __uint_as_float(word << 16);
  values[1] = __uint_as_float(word & 0xffff0000u);
}
__device__ inline void UnpackWord(uint32_t word, float* values, std::type_identity<E4M3>) {
  for (int i = 0; i < 2; ++i) {
    const auto pair = static_cast<__nv_fp8x2_storage_t>(word >> (16 * i));
    const float2 floats = __half22float2(__half2(__nv_cvt_fp8x2_to_halfraw2(pair, __NV_E4M3)));
    values[2 * i] = floats.x;
    values[2 * i + 1] = floats.y;
  }
}

// Rounds to nearest even; E4M3 saturates, NaN stays NaN.
__device__ inline uint32_t PackWord(const float* values, std::type_identity<float>) {
  return __float_as_uint(values[0]);
}
__device__ inline uint32_t PackWord(const float* values, std::type_identity<BF16>) {
  const __nv_bfloat162_raw pair = __floats2bfloat162_rn(values[0], values[1]);
  return pair.x | static_cast<uint32_t>(pair.y) << 16;
}
__device__ inline uint32_t PackWord(const float* values, std::type_identity<E4M3>) {
  const uint32_t low = __nv_cvt_float2_to_fp8x2({values[0], values[1]}, __NV_SATFINITE, __NV_E4M3);
  const uint32_t high = __nv_cvt_float2_to_fp8x2({values[2], values[3]}, __NV_SATFINITE, __NV_E4M3);
  return low | high << 16;
}

template <typename T, int kBytes>
__device__ Floats<kBytes / sizeof(T)> Unpack(const Words<kBytes>& words) {
  constexpr int kPerWord = 4 / sizeof(T);
  Floats<kBytes / sizeof(T)> floats;
#pragma unroll
  for (int w = 0; w < kBytes / 4; ++w)
    UnpackWord(words.values[w], floats.values + w * kPerWord, std::type_identity<T>());
  return floats;
}

template <typename T, int kCount>
__device__ Words<kCount * sizeof(T)> Pack(const Floats<kCount>& floats) {
  constexpr int kPerWord = 4 / sizeof(T);
  Words<kCount * sizeof(T)> words;
#pragma unroll
  for (int w = 0; w < kCount / kPerWord; ++w) {
    words.values[w] = PackWord(floats.values + w * kPerWord, std::type_identity<T>());
  }
  return words;
}

// An unsigned integer as wide as T.
template <typename T>
using BitsOf = std::conditional_t<sizeof(T) == 4, uint32_t, std::conditional_t<sizeof(T) == 2, uint16_t, uint8_t>>;

// Elements [i, i + kCount) of a row of `size`, zeros beyond its end. kAligned: one vector access; then `size` is a
// multiple of kCount.
template <bool kAligned, int kCount, typename T>
__device__ Words<kCount * sizeof(T)> LoadWords(const T* row, int i, int size) {
  Words<kCount * sizeof(T)> words = {};
  if constexpr (kAligned) {
    if (i < size) words = *reinterpret_cast<const Words<kCount * sizeof(T)>*>(row + i);
  } else {
    constexpr int kPerWord = 4 / sizeof(T);
#pragma unroll
    for (int e = 0; e < kCount; ++e) {
      if (i + e >= size) break;
      const uint32_t bits = reinterpret_cast<const BitsOf<T>*>(row)[i + e];
      words.values[e / kPerWord] |= bits << (8 * sizeof(T) * (e % kPerWord));
    }
  }
  return words;
}

template <bool kAligned, int kCount, typename T>
__device__ Floats<kCount> LoadFloats(const T* row, int i, int size) {
  return Unpack<T>(LoadWords<kAligned, kCount>(row, i, size));
}

// The inverse; nothing is written beyond the row's end.
template <bool kAligned, int kCount, typename T>
__device__ void StoreFloats(const Floats<kCount>& floats, T* row, int i, int size) {
  const Words<kCount * sizeof(T)> words = Pack<T>(floats);
  if constexpr (kAligned) {
    if (i < size) *reinterpret_cast<Words<kCount * sizeof(T)>*>(row + i) = words;
  } else {
    constexpr int kPerWord = 4 / sizeof(T);
#pragma unroll
    for (int e = 0; e < kCount; ++e) {
      if (i + e >= size) break;
      const uint32_t bits = words.values[e / kPerWord] >> (8 * sizeof(T) * (e % kPerWord));
      reinterpret_cast<BitsOf<T>*>(row)[i + e] = static_cast<BitsOf<T>>(bits);
    }
  }
}

// Every lane gets the result: `merge` is commutative, so both partners of an exchange compute the same.
template <typename T, typename Merge>
__device__ T WarpReduce(T value, Merge merge) {
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    value = merge(value, __shfl_xor_sync(0xffffffffu, value, distance));
  }
  return value;
}

// Over a block of full warps, all of whose threads call it and get the result.
template <typename T, typename Merge>
__device__ T BlockReduce(T value, T neutral, Merge merge) {
  __shared__ T of_warps[kWarpSize];
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int warps = static_cast<int>(blockDim.x) / kWarpSize;
  value = WarpReduce(value, merge);
  __syncthreads();  // the same array may be read for an earlier call still
  if (lane == 0) of_warps[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  return WarpReduce(lane < warps ? of_warps[lane] : neutral, merge);
}
__device__ inline float BlockSum(float value) {
  return BlockReduce(value, 0.0f, [](float a, float b) { return a + b; });
}
template <typename T>
__device__ T BlockMax(T value, T lowest) {
  return BlockReduce(value, lowest, [](T a, T b) { return a > b ? a : b; });
}
template <typename T>
__device__ T BlockMin(T value, T highest) {
  return BlockReduce(value, highest, [](T a, T b) { return a < b ? a : b; });
}

// e^x, at most 2^-22 + |x| 2^-24 off relatively; 0 where it is below the normal numbers.
__device__ inline float FastExp(float x) {
  constexpr float kLog2OfE = 1.4426950408889634f;
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x * kLog2OfE));
  return result;
}

// Calls f with std::true_type or std::false_type, so that `value` becomes a constant.
template <typename Function>
void WithBool(bool value, const Function& f) {
  if (value) {
    f(std::true_type());
  } else {
    f(std::false_type());
  }
}

// Calls f with the std::type_identity of a dtype's element: kBF16, kF8E4M3, or else float.
template <typename Function>
void WithElement(DType dtype, const Function& f) {
  if (dtype == DType::kBF16) {
    f(std::type_identity<BF16>());
  } else if (dtype == DType::kF8E4M3) {
    f(std::type_identity<E4M3>());
  } else {
    f(std::type_identity<float>());
  }
}

// Whether each row of elements T can be accessed in vectors of kCount from a multiple of kCount on.
template <int kCount, typename T>
bool IsAligned(const T* rows, int64_t stride) {
  constexpr int64_t kBytes = alignof(Words<kCount * sizeof(T)>);
  return reinterpret_cast<uintptr_t>(rows) % kBytes == 0 && stride * static_cast<int64_t>(sizeof(T)) % kBytes == 0;
}

inline int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace swiftkv::kernels::cuda

#endif  // SWIFTKV_KERNELS_CUDA_DEVICE_INL_H_
