// An INT8 cache (kv_layout.h) is read through copies of its blocks in bf16, made once for all queries of a tile: what
// follows is attention over a bf16 cache. Whole numbers of eight bits are exact in bf16; their scales, one a token,
// multiply scores and weights instead.
namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE {

// Bytes of one partition's copies for one K/V head.
inline int64_t WidenedBytes(int64_t head_dim) {
  return kPartitionBlocks * 2 * HeadBlockElements(head_dim) * static_cast<int64_t>(sizeof(BFloat16));
}

inline void WidenBlock(const int8_t* values, int64_t elements, BFloat16* out) {
  for (int64_t i = 0; i < elements; i += 2 * kLanes) {
    Store(out + i, Load(values + i));
    Store(out + i + kLanes, Load(values + i + kLanes));
  }
}

// The blocks that a tile needs of one partition, as bf16 in `copies`, without their scales.
inline PartitionBlocks<BFloat16> WidenBlocks(const PartitionBlocks<int8_t>& blocks, int64_t elements,
                                             BFloat16* copies) {
  PartitionBlocks<BFloat16> out;
  out.first_token = blocks.first_token;
  out.count = blocks.count;
  for (int64_t b = 0; b < blocks.count; ++b) {
    BFloat16* k = copies + 2 * b * elements;
    BFloat16* v = k + elements;
    const int64_t next = std::min(b + kBlocksAhead, blocks.count - 1);
    FetchLines(blocks.k[next], elements);
    FetchLines(blocks.v[next], elements);
    WidenBlock(blocks.k[b], elements, k);
    WidenBlock(blocks.v[b], elements, v);
    out.k[b] = k;
    out.v[b] = v;
  }
  // GCC's tile loads are not known to the compiler as reads of memory.
  __asm__ volatile("" ::: "memory");
  return out;
}

// scores[t] times the scale of K, for the first `count` blocks.
inline void ScaleScores(const PartitionBlocks<int8_t>& blocks, int64_t count, float* scores) {
  for (int64_t b = 0; b < count; ++b) {
    for (int64_t t = 0; t < kBlockTokens; t += kLanes) {
      float* out = scores + b * kBlockTokens + t;
      Store(out, Load(out) * Load(blocks.k_scales[b] + t));
    }
  }
}

// The weights of tokens from t on of a partition as they meet the cache's values.
template <class T>
Vec ScaledWeight(const PartitionBlocks<T>& /*blocks*/, int64_t /*t*/, Vec weight) {
  return weight;
}
inline Vec ScaledWeight(const PartitionBlocks<int8_t>& blocks, int64_t t, Vec weight) {
  return weight * Load(blocks.v_scales[t / kBlockTokens] + t % kBlockTokens);
}

}  // namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE
