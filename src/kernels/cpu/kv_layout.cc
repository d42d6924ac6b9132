#include "kernels/cpu/kv_layout.h"

#include <algorithm>

#include "base/bfloat16.h"
#include "base/parallel.h"

namespace swiftkv::kernels::cpu {
namespace {

constexpr int64_t kChunk = 16;  // elements converted together, in a loop of their own that the compiler vectorizes

void Convert(const float* values, int64_t size, float* out) { std::copy_n(values, size, out); }
void Convert(const float* values, int64_t size, BFloat16* out) {
  for (int64_t i = 0; i < size; ++i) out[i] = ToBFloat16(values[i]);
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
  const int64_t element_bytes = cache_dtype == DType::kBF16 ? sizeof(BFloat16) : sizeof(float);
  return 2 * kv_heads * HeadBlockElements(head_dim) * element_bytes;
}

void WriteKv(const KvWriteArgs& args) {
  constexpr int64_t kRowsPerItem = 16;
  ParallelFor((args.rows + kRowsPerItem - 1) / kRowsPerItem, [&](int64_t item) {
    const int64_t end = std::min(args.rows, (item + 1) * kRowsPerItem);
    for (int64_t row = item * kRowsPerItem; row < end; ++row) {
      if (args.cache_dtype == DType::kBF16) {
        WriteRow<BFloat16>(args, row);
      } else {
        WriteRow<float>(args, row);
      }
    }
  });
}

}  // namespace swiftkv::kernels::cpu
