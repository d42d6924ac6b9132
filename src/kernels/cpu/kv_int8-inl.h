// An INT8 cache (kv_layout.h) is read through copies of its blocks in bf16, made once for all queries of a tile: what
// follows is attention over a bf16 cache.
namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE {

// Bytes of one partition's copies for one K/V head.
inline int64_t DequantizedBytes(int64_t head_dim) {
  return kPartitionBlocks * 2 * HeadBlockElements(head_dim) * static_cast<int64_t>(sizeof(BFloat16));
}

// K of one block: [dim / 2, 16 tokens, 2], a scale a token.
inline void DequantizeK(const int8_t* k, const float* scales, int64_t elements, BFloat16* out) {
  constexpr int64_t kRow = 2 * kBlockTokens;
  float pairs[kRow];
  for (int64_t token = 0; token < kBlockTokens; ++token) pairs[2 * token] = pairs[2 * token + 1] = scales[token];
  for (int64_t row = 0; row < elements; row += kRow) {
    SWIFTKV_UNROLL
    for (int64_t i = 0; i < kRow; i += kLanes) Store(out + row + i, Load(k + row + i) * Load(pairs + i));
  }
}

// V of one block: [16 tokens / 2, dim, 2].
inline void DequantizeV(const int8_t* v, const float* scales, int64_t elements, BFloat16* out) {
  const int64_t row = elements / (kBlockTokens / 2);
  for (int64_t pair = 0; pair < kBlockTokens / 2; ++pair) {
    float lanes[kLanes];
    for (int64_t i = 0; i < kLanes; ++i) lanes[i] = scales[2 * pair + i % 2];
    const Vec scale = Load(lanes);
    for (int64_t i = pair * row; i < (pair + 1) * row; i += kLanes) Store(out + i, Load(v + i) * scale);
  }
}

// The blocks that a tile needs of one partition, as bf16 in `copies`.
inline PartitionBlocks<BFloat16> DequantizeBlocks(const AttentionArgs& args, const AttentionTile& tile,
                                                  const PartitionBlocks<int8_t>& blocks, BFloat16* copies) {
  const int64_t elements = HeadBlockElements(args.head_dim);
  PartitionBlocks<BFloat16> out;
  out.first_token = blocks.first_token;
  out.count = blocks.count;
  for (int64_t b = 0; b < blocks.count; ++b) {
    const int8_t* block = blocks.k[b] - tile.kv_head * elements;
    const float* scales = Int8Scales(block, args.kv_heads, args.head_dim) + tile.kv_head * kBlockTokens;
    BFloat16* k = copies + 2 * b * elements;
    BFloat16* v = k + elements;
    const int64_t next = std::min(b + kBlocksAhead, blocks.count - 1);
    FetchLines(blocks.k[next], elements);
    FetchLines(blocks.v[next], elements);
    DequantizeK(blocks.k[b], scales, elements, k);
    DequantizeV(blocks.v[b], scales + args.kv_heads * kBlockTokens, elements, v);
    out.k[b] = k;
    out.v[b] = v;
  }
  // GCC's tile loads are not known to the compiler as reads of memory.
  __asm__ volatile("" ::: "memory");
  return out;
}

}  // namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE
