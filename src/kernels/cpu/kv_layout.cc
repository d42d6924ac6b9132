#include "kernels/cpu/kv_layout.h"

#include <algorithm>
#include <vector>

#include "base/bfloat16.h"
#include "base/parallel.h"
#include "kernels/quantize.h"

namespace swiftkv::kernels::cpu {
namespace {

constexpr int64_t kChunk = 16;  // elements converted together, in a loop of their own that the compiler vectorizes

void Convert(const float* values, int64_t size, float* out) { std::copy_n(values, size, out); }
void Convert(const float* values, int64_t size, BFloat16* out) {
  for (int64_t i = 0; i < size; ++i) out[i] = ToBFloat16(values[i]);
}

void WriteInt8Row(const KvWriteArgs& args, int64_t row) {
  const int64_t dim = PaddedHeadDim(args.head_dim);
  const int64_t elements = HeadBlockElements(args.head_dim);
  const int64_t token = args.slots[row] % kBlockTokens;
  auto* block = reinterpret_cast<int8_t*>(args.cache) +
                args.slots[row] / kBlockTokens * KvBlockBytes(args.kv_heads, args.head_dim, DType::kI8);
  float* k_scales = Int8Scales(block, args.kv_heads, args.head_dim) + token;
  float* v_scales = k_scales + args.kv_heads * kBlockTokens;
  thread_local std::vector<int8_t> values;
  values.resize(static_cast<size_t>(args.head_dim));
  for (int64_t head = 0; head < args.kv_heads; ++head) {
    int8_t* k_out = block + head * elements + token * 2;
    int8_t* v_out = block + (args.kv_heads + head) * elements + token / 2 * 2 * dim + token % 2;
    k_scales[head * kBlockTokens] =
        QuantizeVector(args.k + row * args.k_stride + head * args.head_dim, args.head_dim, values.data());
    for (int64_t i = 0; i < args.head_dim; ++i) {
      k_out[i / 2 * 2 * kBlockTokens + i % 2] = values[static_cast<size_t>(i)];
    }
    v_scales[head * kBlockTokens] =
        QuantizeVector(args.v + row * args.v_stride + head * args.head_dim, args.head_dim, values.data());
    for (int64_t i = 0; i < args.head_dim; ++i) v_out[i * 2] = values[static_cast<size_t>(i)];
  }
}

template <class T>
void WriteRow(const KvWriteArgs& args, int64_t row) {
  constexpr int64_t kPair = sizeof(T) == 2 ? 2 : 1;
  const int64_t dim = PaddedHeadDim(args.head_dim);
  const int64_t block = args.slots[row] / kBlockTokens;
  const int64_t token = args.slots[row] % kBlockTokens;
  T* k_block = reinterpret_cast<T*>(args.cache) + block * 2 * args.kv_heads * HeadBlockElements(args.head_dim);
  T* v_block = k_block + args.kv_heads * HeadBlockElements(args.head_dim);
  for (int64_t head = 0; head < args.kv_heads; ++head) {
    const float* k = args.k + row * args.k_stride + head * args.head_dim;
    const float* v = args.v + row * args.v_stride + head * args.head_dim;
    T* k_out = k_block + head * HeadBlockElements(args.head_dim) + token * kPair;
    T* v_out = v_block + head * HeadBlockElements(args.head_dim) + token / kPair * kPair * dim + token % kPair;
    for (int64_t i = 0; i < args.head_dim; i += kChunk) {
      const int64_t size = std::min(kChunk, args.head_dim - i);
      T values[kChunk];
      Convert(k + i, size, values);
      for (int64_t j = 0; j < size; ++j) k_out[(i + j) / kPair * kPair * kBlockTokens + j % kPair] = values[j];
      Convert(v + i, size, values);
      for (int64_t j = 0; j < size; ++j) v_out[(i + j) * kPair] = values[j];
    }
  }
}

}  // namespace

int64_t KvBlockBytes(int64_t kv_heads, int64_t head_dim, DType cache_dtype) {
  if (cache_dtype == DType::kI8) {
    return 2 * kv_heads * (HeadBlockElements(head_dim) + kBlockTokens * static_cast<int64_t>(sizeof(float)));
  }
  const int64_t element_bytes = cache_dtype == DType::kBF16 ? sizeof(BFloat16) : sizeof(float);
  return 2 * kv_heads * HeadBlockElements(head_dim) * element_bytes;
}

void WriteKv(const KvWriteArgs& args) {
  constexpr int64_t kRowsPerItem = 16;
  ParallelFor((args.rows + kRowsPerItem - 1) / kRowsPerItem, [&](int64_t item) {
    const int64_t end = std::min(args.rows, (item + 1) * kRowsPerItem);
    for (int64_t row = item * kRowsPerItem; row < end; ++row) {
      if (args.cache_dtype == DType::kI8) {
        WriteInt8Row(args, row);
      } else if (args.cache_dtype == DType::kBF16) {
        WriteRow<BFloat16>(args, row);
      } else {
        WriteRow<float>(args, row);
      }
    }
  });
}

}  // namespace swiftkv::kernels::cpu
