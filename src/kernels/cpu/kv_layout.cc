#include "kernels/cpu/kv_layout.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/bfloat16.h"
#include "base/parallel.h"
#include "kernels/quantize.h"

namespace swiftkv::kernels::cpu {
namespace {

constexpr int64_t kChunk = 128;  // elements converted together

void Convert(NarrowKernel /*narrow*/, const float* values, int64_t size, float* out) { std::copy_n(values, size, out); }
void Convert(NarrowKernel narrow, const float* values, int64_t size, BFloat16* out) { narrow(values, size, out); }

template <int64_t kAdjacent>
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
    int8_t* k_out = block + head * elements + token * kAdjacent;
    int8_t* v_out = block + (args.kv_heads + head) * elements + token / kAdjacent * kAdjacent * dim + token % kAdjacent;
    k_scales[head * kBlockTokens] =
        QuantizeVector(args.k + row * args.k_stride + head * args.head_dim, args.head_dim, values.data());
    for (int64_t i = 0; i < args.head_dim; ++i) {
      k_out[i / kAdjacent * kAdjacent * kBlockTokens + i % kAdjacent] = values[static_cast<size_t>(i)];
    }
    v_scales[head * kBlockTokens] =
        QuantizeVector(args.v + row * args.v_stride + head * args.head_dim, args.head_dim, values.data());
    for (int64_t i = 0; i < args.head_dim; ++i) v_out[i * kAdjacent] = values[static_cast<size_t>(i)];
  }
}

template <class T>
void WriteRow(const KvWriteArgs& args, NarrowKernel narrow, int64_t row) {
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
      Convert(narrow, k + i, size, values);
      for (int64_t j = 0; j < size; ++j) k_out[(i + j) / kPair * kPair * kBlockTokens + j % kPair] = values[j];
      Convert(narrow, v + i, size, values);
      for (int64_t j = 0; j < size; ++j) v_out[(i + j) * kPair] = values[j];
    }
  }
}

// Whether this row and the next are the two tokens of one bf16 pair of V.
bool BeginsPair(const KvWriteArgs& args, int64_t row, int64_t end) {
  return args.cache_dtype == DType::kBF16 && row + 1 < end && args.slots[row] % 2 == 0 &&
         args.slots[row + 1] == args.slots[row] + 1;
}

// As WriteRow of both, in stores four and two times as wide.
void WriteBf16Pair(const KvWriteArgs& args, NarrowKernel narrow, int64_t row) {
  const int64_t dim = PaddedHeadDim(args.head_dim);
  const int64_t elements = HeadBlockElements(args.head_dim);
  const int64_t token = args.slots[row] % kBlockTokens;
  auto* k_block =
      reinterpret_cast<BFloat16*>(args.cache) + args.slots[row] / kBlockTokens * 2 * args.kv_heads * elements;
  for (int64_t head = 0; head < args.kv_heads; ++head) {
    const float* k = args.k + row * args.k_stride + head * args.head_dim;
    const float* v = args.v + row * args.v_stride + head * args.head_dim;
    BFloat16* k_out = k_block + head * elements + token * 2;
    BFloat16* v_out = k_block + (args.kv_heads + head) * elements + token * dim;
    for (int64_t i = 0; i < args.head_dim; i += kChunk) {
      const int64_t size = std::min(kChunk, args.head_dim - i);
      BFloat16 first[kChunk + 1] = {};  // and what makes an odd size even
      BFloat16 second[kChunk + 1] = {};
      Convert(narrow, k + i, size, first);
      Convert(narrow, k + args.k_stride + i, size, second);
      for (int64_t j = 0; j < size; j += 2) {
        const BFloat16 four[4] = {first[j], first[j + 1], second[j], second[j + 1]};
        std::memcpy(k_out + (i + j) * kBlockTokens, four, sizeof(four));
      }
      Convert(narrow, v + i, size, first);
      Convert(narrow, v + args.v_stride + i, size, second);
      for (int64_t j = 0; j < size; ++j) {
        v_out[(i + j) * 2] = first[j];
        v_out[(i + j) * 2 + 1] = second[j];
      }
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

void WriteKv(const KvWriteArgs& args, NarrowKernel narrow, bool multiplies_int8_cache) {
  constexpr int64_t kRowsPerItem = 16;
  const int64_t int8_adjacent = Int8Adjacent(multiplies_int8_cache, args.head_dim);
  ParallelFor((args.rows + kRowsPerItem - 1) / kRowsPerItem, [&](int64_t item) {
    const int64_t end = std::min(args.rows, (item + 1) * kRowsPerItem);
    for (int64_t row = item * kRowsPerItem; row < end; ++row) {
      if (BeginsPair(args, row, end)) {
        WriteBf16Pair(args, narrow, row++);
      } else if (args.cache_dtype == DType::kI8) {
        int8_adjacent == 4 ? WriteInt8Row<4>(args, row) : WriteInt8Row<2>(args, row);
      } else if (args.cache_dtype == DType::kBF16) {
        WriteRow<BFloat16>(args, narrow, row);
      } else {
        WriteRow<float>(args, narrow, row);
      }
    }
  });
}

}  // namespace swiftkv::kernels::cpu
