// Attention over an INT8 cache in fours (kv_layout.h), for head dimensions that are multiples of 64: products of the
// cache's own bytes, on AMX tiles (amx_kv_int8-inl.h) or in vectors (vnni_kv_int8-inl.h).
//
// What meets the cache has 16 bits, its upper and its lower eight apart: a query is a whole multiple of its
// largest magnitude / 32512, a weight (a softmax numerator times the scale of its V) one of the query's largest in the
// partition / 65535. So products are sums of whole numbers, exact in any order; the scales of K multiply the scores.
namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE {

inline constexpr int64_t kInt8Queries = 16;                         // that meet a partition together
inline constexpr int64_t kInt8Depth = 64;                           // tokens of a tile of V
inline constexpr int64_t kGroupBlocks = kInt8Depth / kBlockTokens;  // whose V fill a tile
inline constexpr int64_t kInt8TileBytes = 16 * kInt8Depth;          // 16 rows of 16 dimensions, 4 tokens each
inline constexpr int64_t kInt8WeightStride = kAttentionPartition + 64;
inline constexpr float kQueryLevels = 127 * 256;
inline constexpr float kWeightLevels = 65535;

// What a tile needs beside its states, in thread scratch. Queries are padded to whole tiles.
struct Int8Buffers {
  int8_t* q_upper;         // [queries, dim]
  int8_t* q_lower;         // [queries, dim]
  float* q_scales;         // [queries]
  int32_t* upper_sums;     // [16, kScoreStride], then [16, dim]
  int32_t* lower_sums;     // as upper_sums
  float* scores;           // of one query: [kScoreStride], then its values [dim]
  uint8_t* upper_weights;  // [16, kInt8WeightStride]
  uint8_t* lower_weights;  // [16, kInt8WeightStride]
  int8_t* values;          // [partition / 64 tokens, dim / 16, 64 tokens / 4, 16, 4]

  Int8Buffers(int64_t queries, int64_t dim) {
    const int64_t padded = RoundUp(queries, kInt8Queries);
    const int64_t sums = kInt8Queries * std::max(kScoreStride, dim);
    PlaceInThreadScratch([&](auto place) {
      place(&q_upper, padded * dim);
      place(&q_lower, padded * dim);
      place(&q_scales, padded);
      place(&upper_sums, sums);
      place(&lower_sums, sums);
      place(&scores, std::max(kScoreStride, dim));
      place(&upper_weights, kInt8Queries * kInt8WeightStride);
      place(&lower_weights, kInt8Queries * kInt8WeightStride);
      place(&values, kAttentionPartition * dim);
    });
  }
};

// One query as 256 * upper + lower times the scale that is returned: above 0, or NaN if a value is NaN or infinite.
inline float SplitQuery(const float* q, int64_t head_dim, int64_t dim, int8_t* upper, int8_t* lower) {
  Vec largest = Zero();
  Vec finite = Zero();  // or NaN
  for (int64_t i = 0; i < head_dim; i += kLanes) {
    const Vec v = LoadUpTo(q + i, head_dim - i);
    largest = Max(Max(v, Zero() - v), largest);
    finite = MulAdd(v, Zero(), finite);
  }
  const float magnitude = ReduceMax(largest);
  const float check = ReduceAdd(finite);
  const bool is_zero = std::isnan(check) || magnitude < kLeastMagnitude;
  const Vec inverse = Set(is_zero ? 0.0f : kQueryLevels / magnitude);
  for (int64_t i = 0; i < dim; i += kLanes) {
    const Vec v = is_zero || head_dim <= i ? Zero() : LoadUpTo(q + i, head_dim - i) * inverse;
    const __m512i whole = _mm512_cvtps_epi32(v.v);
    const __m512i up = _mm512_srai_epi32(_mm512_add_epi32(whole, _mm512_set1_epi32(128)), 8);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(upper + i), _mm512_cvtepi32_epi8(up));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(lower + i), _mm512_cvtepi32_epi8(whole));  // its lowest eight bits
  }
  return is_zero ? check + 1 : magnitude / kQueryLevels;
}

// K or V of a partition's blocks.
struct Int8Part {
  const int8_t* const* codes;
  const float* const* scales;
  int64_t count;
};
inline Int8Part PartK(const PartitionBlocks<int8_t>& blocks) { return {blocks.k, blocks.k_scales, blocks.count}; }
inline Int8Part PartV(const PartitionBlocks<int8_t>& blocks) { return {blocks.v, blocks.v_scales, blocks.count}; }

// Fetches block b of what is read now, or if it is beyond the last, the block as far from the first of what is read
// then.
inline void FetchInOrder(const Int8Part& now, const Int8Part& then, int64_t b, int64_t dim) {
  const Int8Part& part = b < now.count ? now : then;
  const int64_t i = b < now.count ? b : b - now.count;
  if (i >= part.count) return;
  FetchLines(part.codes[i], dim * kBlockTokens);
  FetchLines(part.scales[i], kCacheLineBytes);
}

// V of a partition as tiles of 64 tokens, ending with its first K on their way. Rows of blocks that are not there keep
// what they held: their weights are 0.
inline void GatherValues(const PartitionBlocks<int8_t>& blocks, int64_t dim, int8_t* tiles) {
  constexpr int64_t kBlockRows = kBlockTokens / 4;
  for (int64_t b = 0; b < blocks.count; ++b) {
    FetchInOrder(PartV(blocks), PartK(blocks), b + kBlocksAhead, dim);
    int8_t* out = tiles + b / kGroupBlocks * dim * kInt8Depth + b % kGroupBlocks * kBlockRows * kInt8Depth;
    for (int64_t row = 0; row < kBlockRows; ++row) {
      const int8_t* v = blocks.v[b] + row * dim * 4;
      for (int64_t d = 0; d < dim; d += kLanes) {
        std::memcpy(out + d / kLanes * kInt8TileBytes + row * kInt8Depth, v + d * 4, kInt8Depth);
      }
    }
  }
}

inline Vec JoinSums(const int32_t* upper, const int32_t* lower) {
  return MulAdd(ToFloat(LoadInts(upper)), Set(256.0f), ToFloat(LoadInts(lower)));
}

// One query's scores but for its own scale.
inline void JoinScores(const int32_t* upper, const int32_t* lower, const float* const* k_scales, int64_t count,
                       float* scores) {
  static_assert(kLanes == kBlockTokens);
  for (int64_t b = 0; b < count; ++b) {
    const int64_t t = b * kBlockTokens;
    Store(scores + t, JoinSums(upper + t, lower + t) * Load(k_scales[b]));
  }
}

// What one query's weights are: 256 * upper + lower times the scale.
struct Int8Weights {
  uint8_t* upper;  // [tokens, and up to the next multiple of 64]
  uint8_t* lower;
  float scale = 0;
};

// Whole numbers below 2^16 of 64 tokens, given as float32, by their bytes.
inline void SplitWeights(const float* values, Vec factor, uint8_t* upper, uint8_t* lower) {
  const auto whole = [&](int64_t i) { return _mm512_cvtps_epi32((Load(values + i * kLanes) * factor).v); };
  // Packing works within each quarter of a vector and leaves the bytes of tokens 0 to 3, 16 to 19, 32 to 35, ...
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i low_byte = _mm512_set1_epi16(0xff);
  const __m512i first = _mm512_packus_epi32(whole(0), whole(1));
  const __m512i second = _mm512_packus_epi32(whole(2), whole(3));
  const __m512i up = _mm512_packus_epi16(_mm512_srli_epi16(first, 8), _mm512_srli_epi16(second, 8));
  const __m512i low = _mm512_packus_epi16(_mm512_and_si512(first, low_byte), _mm512_and_si512(second, low_byte));
  _mm512_storeu_si512(upper, _mm512_permutexvar_epi32(order, up));
  _mm512_storeu_si512(lower, _mm512_permutexvar_epi32(order, low));
}

// As ScoresToWeights, of weights that hold the scales of V. What `scores` has from `tokens` to the next multiple of 64
// is overwritten.
inline Softmax ScoresToInt8Weights(float* scores, int64_t first_token, int64_t tokens, float scale,
                                   VisibleRange visible, const float* const* v_scales, Int8Weights* weights) {
  __m512i largest = _mm512_setzero_si512();  // as bits: of what is not negative they have the numbers' order, NaN last
  const auto keep = [&](int64_t t, Vec numerator) {
    // The scale of a masked token may be anything.
    const __mmask16 seen = _mm512_cmp_ps_mask(numerator.v, _mm512_setzero_ps(), _CMP_NEQ_UQ);
    const Vec weight{_mm512_maskz_mul_ps(seen, numerator.v, Load(v_scales[t / kBlockTokens]).v)};
    largest = _mm512_max_epu32(largest, _mm512_castps_si512(weight.v));
    Store(scores + t, weight);
  };
  const Softmax result = ScoresToWeights<BFloat16>(scores, first_token, tokens, scale, visible, keep);
  const float magnitude = std::bit_cast<float>(_mm512_reduce_max_epu32(largest));
  weights->scale = magnitude / kWeightLevels;
  const bool is_zero = !std::isfinite(magnitude) || magnitude < kLeastMagnitude;
  const Vec inverse = Set(is_zero ? 0.0f : kWeightLevels / magnitude);
  for (int64_t t = tokens; t < RoundUp(tokens, kInt8Depth); t += kLanes) Store(scores + t, Zero());
  for (int64_t t = 0; t < tokens; t += kInt8Depth) {
    SplitWeights(scores + t, inverse, weights->upper + t, weights->lower + t);
  }
  return result;
}

// Up to 16 queries against one partition, whose V is in buffers.values if Products wants it there. `next` is null but
// for the first of them: what comes after this partition is fetched once.
template <class Products>
void AttendInt8Partition(const AttentionArgs& args, const AttentionTile& tile, int64_t query, int64_t rows,
                         const PartitionBlocks<int8_t>& blocks, const PartitionBlocks<int8_t>* next,
                         const Int8Buffers& buffers, float* states) {
  const int64_t group = args.heads / args.kv_heads;
  const int64_t dim = PaddedHeadDim(args.head_dim);
  const int32_t* positions = tile.sequence->positions + tile.row;
  const int64_t count = NeededBlocks(blocks, positions[(query + rows - 1) / group]);
  if (count <= 0) return;
  const Products products{rows};
  products.Scores(buffers, query, dim, blocks, count, next);
  Softmax parts[kInt8Queries];
  float weight_scales[kInt8Queries];
  for (int64_t i = 0; i < rows; ++i) {
    JoinScores(buffers.upper_sums + i * kScoreStride, buffers.lower_sums + i * kScoreStride, blocks.k_scales, count,
               buffers.scores);
    Int8Weights weights{buffers.upper_weights + i * kInt8WeightStride, buffers.lower_weights + i * kInt8WeightStride};
    parts[i] = ScoresToInt8Weights(buffers.scores, blocks.first_token, count * kBlockTokens,
                                   args.scale * buffers.q_scales[query + i],
                                   Visible(args, positions[(query + i) / group]), blocks.v_scales, &weights);
    weight_scales[i] = weights.scale;
  }
  products.Values(buffers, dim, blocks, count, next);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t d = 0; d < dim; d += kLanes) {
      const Vec sums = JoinSums(buffers.upper_sums + i * dim + d, buffers.lower_sums + i * dim + d);
      Store(buffers.scores + d, sums * Set(weight_scales[i]));
    }
    MergeState(states + (query + i) * AttentionStateFloats(args.head_dim), parts[i], buffers.scores, dim);
  }
}

template <class Products>
void AttendInt8Tile(const AttentionArgs& args, const AttentionTile& tile, float* states) {
  const int64_t queries = tile.rows * (args.heads / args.kv_heads);
  const int64_t dim = PaddedHeadDim(args.head_dim);
  ClearStates(args, queries, states);
  const Int8Buffers buffers(queries, dim);
  for (int64_t query = 0; query < queries; ++query) {
    buffers.q_scales[query] = SplitQuery(QueryOf(args, tile, query), args.head_dim, dim, buffers.q_upper + query * dim,
                                         buffers.q_lower + query * dim);
  }
  const VisibleRange visible = VisibleOf(args, tile);
  auto blocks = FindBlocks<int8_t>(args, tile, tile.partition_begin, visible);
  for (int64_t partition = tile.partition_begin; partition < tile.partition_end; ++partition) {
    PartitionBlocks<int8_t> next;
    if (partition + 1 < tile.partition_end) next = FindBlocks<int8_t>(args, tile, partition + 1, visible);
    if (Products::kGathersValues) GatherValues(blocks, dim, buffers.values);
    for (int64_t query = 0; query < queries; query += kInt8Queries) {
      AttendInt8Partition<Products>(args, tile, query, std::min(kInt8Queries, queries - query), blocks,
                                    query == 0 ? &next : nullptr, buffers, states);
    }
    blocks = next;
  }
}

}  // namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE
