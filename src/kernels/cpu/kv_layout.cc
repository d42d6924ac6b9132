#include "kernels/cpu/kv_layout.h"

#include <algorithm>

#include "base/bfloat16.h"
#include "base/parallel.h"

namespace swiftkv::kernels::cpu {
namespace {

void Assign(float value, float* out) { *out = value; }
void Assign(float value, BFloat16* out) { *out = ToBFloat16(value); }

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
    for (int64_t i = 0; i < args.head_dim; ++i) {
      Assign(k[i], k_out + i / kPair * kPair * kBlockTokens + i % kPair);
      Assign(v[i], v_out + i * kPair);
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
