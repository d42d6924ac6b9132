// Attention over the paged cache (kv_layout.h), with neither a [T, T] matrix nor a copy of K or V.
//
// A tile is some rows times the query heads of one K/V head ("queries"), so that they share every load of the cache.
// It walks the cache in partitions of kAttentionPartition tokens. Within a partition: scores of kMaxQueries queries,
// then their softmax numerators under the partition's own maximum, then the weighted sum of values; the result is
// merged into the query's running state. Masked tokens have weight 0 and add exactly nothing, and merging depends on
// the query's own partitions alone: the bytes do not depend on which queries share a tile or how a sequence was cut.
namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE {

// Tokens [begin, end) that the row at `position` attends to.
struct VisibleRange {
  int64_t begin;
  int64_t end;
};
inline VisibleRange Visible(const AttentionArgs& args, int64_t position) {
  return {args.window > 0 ? std::max<int64_t>(0, position - args.window + 1) : 0, position + 1};
}

// What any of the tile's rows attends to.
inline VisibleRange VisibleOf(const AttentionArgs& args, const AttentionTile& tile) {
  const int32_t* positions = tile.sequence->positions + tile.row;
  return {Visible(args, positions[0]).begin, Visible(args, positions[tile.rows - 1]).end};
}

inline const float* QueryOf(const AttentionArgs& args, const AttentionTile& tile, int64_t query) {
  const int64_t group = args.heads / args.kv_heads;
  const int64_t row = tile.sequence->row_begin + tile.row + query / group;
  return args.q + row * args.q_stride + (tile.kv_head * group + query % group) * args.head_dim;
}

template <class T>
PartitionBlocks<T> FindBlocks(const AttentionArgs& args, const AttentionTile& tile, int64_t partition,
                              VisibleRange visible) {
  const int64_t begin = std::max(partition * kPartitionBlocks, visible.begin / kBlockTokens);
  const int64_t end = std::min((partition + 1) * kPartitionBlocks, (visible.end - 1) / kBlockTokens + 1);
  PartitionBlocks<T> blocks;
  blocks.first_token = begin * kBlockTokens;
  blocks.count = std::max<int64_t>(0, end - begin);
  const int64_t head_elements = HeadBlockElements(args.head_dim);
  const int64_t block_bytes = KvBlockBytes(args.kv_heads, args.head_dim, args.cache_dtype);
  for (int64_t b = 0; b < blocks.count; ++b) {
    const T* base = reinterpret_cast<const T*>(args.cache + tile.sequence->block_table[begin + b] * block_bytes);
    blocks.k[b] = base + tile.kv_head * head_elements;
    blocks.v[b] = base + (args.kv_heads + tile.kv_head) * head_elements;
    if constexpr (std::is_same_v<T, int8_t>) {
      blocks.k_scales[b] = Int8Scales(base, args.kv_heads, args.head_dim) + tile.kv_head * kBlockTokens;
      blocks.v_scales[b] = blocks.k_scales[b] + args.kv_heads * kBlockTokens;
    }
  }
  return blocks;
}

// Of the partition's blocks, how many the query at `position` may see.
template <class T>
int64_t NeededBlocks(const PartitionBlocks<T>& blocks, int64_t position) {
  return std::min(blocks.count, position / kBlockTokens + 1 - blocks.first_token / kBlockTokens);
}

// scores[i, t] = q[i] . k[t] for kRows queries and the first `count` blocks.
template <class Dot, int kRows>
void ScoreTile(const typename Dot::Input* q, int64_t dim, const PartitionBlocks<typename Dot::Weight>& blocks,
               int64_t count, float* scores) {
  for (int64_t b = 0; b < count; b += kScoreBlocks) {
    const typename Dot::Weight* columns[kTileVectors];
    const typename Dot::Weight* next[kTileVectors];
    for (int j = 0; j < kTileVectors; ++j) {
      const int64_t block = std::min(b + j / kVectorsPerBlock, count - 1);  // an overshoot's scores are never read
      const int64_t offset = j % kVectorsPerBlock * kLanes * Dot::kDepth;
      columns[j] = blocks.k[block] + offset;
      next[j] = blocks.k[std::min(block + kScoreBlocks, count - 1)] + offset;
    }
    Vec sums[kRows][kTileVectors];
    SetZero(sums);
    for (int64_t i = 0; i < dim; i += Dot::kDepth) {
      SWIFTKV_UNROLL
      for (int j = 0; j < kTileVectors; ++j) Prefetch(next[j] + i * kBlockTokens);
      TileStep<Dot>(q + i, dim, columns, i * kBlockTokens, sums);
    }
    for (int i = 0; i < kRows; ++i) {
      for (int j = 0; j < kTileVectors; ++j) {
        Store(scores + i * kScoreStride + b * kBlockTokens + j * kLanes, sums[i][j]);
      }
    }
  }
}

// out[i, d] = sum_t weights[i, t] v[t, d] for kRows queries and kVectors vectors of dimensions from `d`.
template <class Dot, int kRows, int kVectors>
void ValueTile(const typename Dot::Input* weights, const PartitionBlocks<typename Dot::Weight>& blocks, int64_t count,
               int64_t dim, int64_t d, float* out) {
  Vec sums[kRows][kVectors];
  SetZero(sums);
  for (int64_t b = 0; b < count; ++b) {
    const typename Dot::Weight* columns[kVectors];
    SWIFTKV_UNROLL
    for (int j = 0; j < kVectors; ++j) columns[j] = blocks.v[b] + (d + j * kLanes) * Dot::kDepth;
    const typename Dot::Weight* next = blocks.v[std::min(b + 1, count - 1)] + d * Dot::kDepth;
    for (int64_t t = 0; t < kBlockTokens; t += Dot::kDepth) {
      SWIFTKV_UNROLL
      for (int j = 0; j < kVectors; ++j) Prefetch(next + t * dim + j * kLanes * Dot::kDepth);
      TileStep<Dot>(weights + b * kBlockTokens + t, kWeightStride, columns, t * dim, sums);
    }
  }
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kVectors; ++j) Store(out + i * dim + d + j * kLanes, sums[i][j]);
  }
}

template <class Dot, int kRows>
void WeighValues(const typename Dot::Input* weights, const PartitionBlocks<typename Dot::Weight>& blocks, int64_t count,
                 int64_t dim, float* out) {
  int64_t d = 0;
  for (; d + kTileVectors * kLanes <= dim; d += kTileVectors * kLanes) {
    ValueTile<Dot, kRows, kTileVectors>(weights, blocks, count, dim, d, out);
  }
  for (; d < dim; d += kLanes) ValueTile<Dot, kRows, 1>(weights, blocks, count, dim, d, out);
}

inline constexpr float kLn2 = 0.693147180559945309f;

struct Softmax {
  float max;  // of the scores, as a power of 2
  float sum;
};

// 2^x to about 2e-7 relative; 0 below -150, NaN stays NaN. The polynomial is Cephes' exp2f.
inline Vec Exp2(Vec x) {
  x = Max(Set(-150.0f), x);
  const Vec n = RoundToInt(x);
  const Vec r = x - n;
  Vec p = Set(1.535336188319500e-4f);
  p = MulAdd(p, r, Set(1.339887440266574e-3f));
  p = MulAdd(p, r, Set(9.618437357674640e-3f));
  p = MulAdd(p, r, Set(5.550332471162809e-2f));
  p = MulAdd(p, r, Set(2.402264791363012e-1f));
  p = MulAdd(p, r, Set(6.931472028550421e-1f));
  return ScaleByPowerOf2(MulAdd(p, r, Set(1.0f)), n);
}

inline Vec WeightOf(Vec exponent, const BFloat16* /*type*/) { return Exp2ForBf16(exponent); }
inline Vec WeightOf(Vec exponent, const float* /*type*/) { return Exp2(exponent); }

// -infinity for tokens before `begin` and from `end` on.
inline void MaskScores(float* scores, int64_t tokens, int64_t begin, int64_t end) {
  for (int64_t t = 0; t < std::min(begin, tokens); t += kLanes) {
    Store(scores + t, KeepLanes(Load(scores + t), begin - t, end - t));
  }
  for (int64_t t = std::max<int64_t>(0, end / kLanes * kLanes); t < tokens; t += kLanes) {
    Store(scores + t, KeepLanes(Load(scores + t), begin - t, end - t));
  }
}

inline float LargestOf(const float* values, int64_t count) {
  constexpr int kChains = 4;  // a maximum takes as long as four begin
  Vec max[kChains];
  for (Vec& chain : max) chain = Set(-std::numeric_limits<float>::infinity());
  int64_t t = 0;
  for (; t + kChains * kLanes <= count; t += kChains * kLanes) {
    SWIFTKV_UNROLL
    for (int i = 0; i < kChains; ++i) max[i] = Max(max[i], Load(values + t + i * kLanes));
  }
  for (; t < count; t += kLanes) max[0] = Max(max[0], Load(values + t));
  return ReduceMax(Max(Max(max[0], max[1]), Max(max[2], max[3])));
}

// Turns one query's raw scores of tokens [first_token, first_token + tokens) into softmax numerators
// e^(scale * score - max), as 2^(scale * log2(e) * score - log2(e) * max), exact enough for Input. `keep` gets a vector
// of them and the first's place, unless the query sees nothing of the partition.
template <class Input, class Keep>
Softmax ScoresToWeights(float* scores, int64_t first_token, int64_t tokens, float scale, VisibleRange visible,
                        const Keep& keep) {
  constexpr float kLog2E = 1.44269504088896341f;
  MaskScores(scores, tokens, visible.begin - first_token, visible.end - first_token);
  const float max_log2 = LargestOf(scores, tokens) * (scale * kLog2E);
  Softmax result{max_log2, 0};
  if (max_log2 == -std::numeric_limits<float>::infinity()) return result;
  const Vec factor = Set(scale * kLog2E);
  const Vec offset = Set(max_log2);
  Vec sum = Zero();
  for (int64_t t = 0; t < tokens; t += kLanes) {
    const Vec weight = WeightOf(MulSub(Load(scores + t), factor, offset), static_cast<const Input*>(nullptr));
    sum = sum + weight;
    keep(t, weight);
  }
  result.sum = ReduceAdd(sum);
  return result;
}

// state = state merged with a later partition's (softmax, values). Into an empty state (max -infinity, zeros) this
// copies exactly, so that partitions computed apart and merged later give the same bytes.
inline void MergeState(float* state, Softmax part, const float* values, int64_t dim) {
  if (part.max == -std::numeric_limits<float>::infinity()) return;
  const float max = std::max(state[0], part.max);
  const float old_factor = std::exp2(state[0] - max);
  const float new_factor = std::exp2(part.max - max);
  state[0] = max;
  state[1] = state[1] * old_factor + part.sum * new_factor;
  for (int64_t i = 0; i < dim; i += kLanes) {
    const Vec old_values = Load(state + 2 + i) * Set(old_factor);
    Store(state + 2 + i, MulAdd(Load(values + i), Set(new_factor), old_values));
  }
}

// What a tile needs beside its states, in thread scratch.
template <class Dot>
struct AttendBuffers {
  typename Dot::Input* q;        // [queries, dim]
  float* scores;                 // [kMaxQueries, kScoreStride]
  typename Dot::Input* weights;  // [kMaxQueries, kWeightStride]
  float* values;                 // [kMaxQueries, dim]
  BFloat16* copies;              // copy_bytes, for an INT8 cache

  AttendBuffers(int64_t queries, int64_t dim, int64_t copy_bytes) {
    const int64_t q_bytes = RoundUp(queries * dim * static_cast<int64_t>(sizeof(*q)), 64);
    const int64_t score_bytes = RoundUp(kMaxQueries * kScoreStride * static_cast<int64_t>(sizeof(float)), 64);
    const int64_t weight_bytes = RoundUp(kMaxQueries * kWeightStride * static_cast<int64_t>(sizeof(*q)), 64);
    const int64_t value_bytes = RoundUp(kMaxQueries * dim * static_cast<int64_t>(sizeof(float)), 64);
    std::byte* base = ThreadScratch(q_bytes + score_bytes + weight_bytes + value_bytes + copy_bytes);
    q = reinterpret_cast<typename Dot::Input*>(base);
    scores = reinterpret_cast<float*>(base + q_bytes);
    weights = reinterpret_cast<typename Dot::Input*>(base + q_bytes + score_bytes);
    values = reinterpret_cast<float*>(base + q_bytes + score_bytes + weight_bytes);
    copies = reinterpret_cast<BFloat16*>(base + q_bytes + score_bytes + weight_bytes + value_bytes);
  }
};

// `rows` queries from `query` against one partition. `products` makes the scores and weighs the values. `cached` is
// what the cache has; its values as they are multiplied are in `blocks`, without their scales if they have any.
template <class Dot, class Products, class CacheType>
void AttendPartition(const AttentionArgs& args, const AttentionTile& tile, int64_t query, int64_t rows,
                     const PartitionBlocks<typename Dot::Weight>& blocks, const PartitionBlocks<CacheType>& cached,
                     const AttendBuffers<Dot>& buffers, const Products& products, float* states) {
  using Input = typename Dot::Input;
  const int64_t group = args.heads / args.kv_heads;
  const int64_t dim = PaddedHeadDim(args.head_dim);
  const int32_t* positions = tile.sequence->positions + tile.row;
  // Positions ascend: the last query sees farthest.
  const int64_t count = NeededBlocks(blocks, positions[(query + rows - 1) / group]);
  if (count <= 0) return;
  products.Scores(buffers.q + query * dim, dim, blocks, count, buffers.scores);
  Softmax parts[kMaxQueries];
  for (int64_t i = 0; i < rows; ++i) {
    float* scores = buffers.scores + i * kScoreStride;
    Input* weights = buffers.weights + i * kWeightStride;
    if constexpr (std::is_same_v<CacheType, int8_t>) ScaleScores(cached, count, scores);
    parts[i] = ScoresToWeights<Input>(
        scores, blocks.first_token, count * kBlockTokens, args.scale, Visible(args, positions[(query + i) / group]),
        [&](int64_t t, Vec weight) { Store(weights + t, ScaledWeight(cached, t, weight)); });
  }
  products.Values(buffers.weights, blocks, count, dim, buffers.values);
  for (int64_t i = 0; i < rows; ++i) {
    MergeState(states + (query + i) * AttentionStateFloats(args.head_dim), parts[i], buffers.values + i * dim, dim);
  }
}

// Queries in the cache's type, zero-padded: [rows * group, dim].
template <class Input, class CacheType>
void ConvertQueries(const AttentionArgs& args, const AttentionTile& tile, Input* out) {
  const int64_t group = args.heads / args.kv_heads;
  const int64_t dim = PaddedHeadDim(args.head_dim);
  for (int64_t query = 0; query < tile.rows * group; ++query) {
    const float* q = QueryOf(args, tile, query);
    for (int64_t i = 0; i < dim; i += kLanes) {
      Vec v = args.head_dim > i ? LoadUpTo(q + i, args.head_dim - i) : Zero();
      if constexpr (std::is_same_v<CacheType, BFloat16> && std::is_same_v<Input, float>) {
        v = WidenBits(NarrowBits(v));
      }
      Store(out + query * dim + i, v);
    }
  }
}

// The products of kRows queries in vector registers.
template <class Dot, int kRows>
struct VectorProducts {
  using Blocks = PartitionBlocks<typename Dot::Weight>;
  static void Scores(const typename Dot::Input* q, int64_t dim, const Blocks& blocks, int64_t count, float* scores) {
    ScoreTile<Dot, kRows>(q, dim, blocks, count, scores);
  }
  static void Values(const typename Dot::Input* weights, const Blocks& blocks, int64_t count, int64_t dim, float* out) {
    WeighValues<Dot, kRows>(weights, blocks, count, dim, out);
  }
};

// Calls run(first query, how many as an integral_constant) for all of them, as many at a time as registers hold.
template <class Run>
void ForQueryGroups(int64_t queries, const Run& run) {
  const auto run_and_pass = [&](int64_t query, auto rows) {
    run(query, rows);
    return query + rows.value;
  };
  for (int64_t query = 0; query < queries;) {
    const int64_t left = queries - query;
    if (left >= kTileRows) {
      query = run_and_pass(query, std::integral_constant<int, kTileRows>());
    } else if (left >= 4) {
      query = run_and_pass(query, std::integral_constant<int, 4>());
    } else if (left == 3) {
      query = run_and_pass(query, std::integral_constant<int, 3>());
    } else {
      query = run_and_pass(query, std::integral_constant<int, 1>());
    }
  }
}

// All queries of a tile against one partition, a few at a time.
template <class Dot, class CacheType>
void AttendInVectors(const AttentionArgs& args, const AttentionTile& tile, int64_t queries,
                     const PartitionBlocks<typename Dot::Weight>& blocks, const PartitionBlocks<CacheType>& cached,
                     const AttendBuffers<Dot>& buffers, float* states) {
  ForQueryGroups(queries, [&](int64_t query, auto rows) {
    constexpr int kRows = decltype(rows)::value;
    AttendPartition<Dot>(args, tile, query, kRows, blocks, cached, buffers, VectorProducts<Dot, kRows>(), states);
  });
}

#if defined(SWIFTKV_HAS_AMX)
// The products of up to kMaxQueries queries on tiles. GCC's tile loads and stores are not known to it as uses of
// memory.
struct TileProducts {
  using Blocks = PartitionBlocks<BFloat16>;
  int64_t queries;

  bool IsWide() const { return queries > kTileSize; }
  void Scores(const BFloat16* q, int64_t dim, const Blocks& blocks, int64_t count, float* scores) const {
    __asm__ volatile("" ::: "memory");
    if (IsWide()) {
      ConfigureWideTiles(queries, kTileSize);
      WideScoresOnTiles(q, dim, blocks, count, scores);
    } else {
      ScoresOnTiles(q, dim, blocks, count, scores);
    }
    __asm__ volatile("" ::: "memory");
  }
  void Values(const BFloat16* weights, const Blocks& blocks, int64_t count, int64_t dim, float* out) const {
    __asm__ volatile("" ::: "memory");
    if (IsWide()) {
      ConfigureWideTiles(queries, kBlockTokens / 2);
      WeighWideValuesOnTiles(weights, blocks, count, dim, out);
    } else {
      WeighValuesOnTiles(weights, blocks, count, dim, out);
    }
    __asm__ volatile("" ::: "memory");
  }
};

template <class CacheType>
void AttendOnTiles(const AttentionArgs& args, const AttentionTile& tile, int64_t queries,
                   const PartitionBlocks<BFloat16>& blocks, const PartitionBlocks<CacheType>& cached,
                   const AttendBuffers<DotBf16>& buffers, float* states) {
  for (int64_t query = 0; query < queries; query += kMaxQueries) {
    const TileProducts products{std::min(kMaxQueries, queries - query)};
    if (!products.IsWide()) ConfigureAttentionTiles(products.queries);
    AttendPartition<DotBf16>(args, tile, query, products.queries, blocks, cached, buffers, products, states);
  }
  _tile_release();
}
#endif

inline void ClearStates(const AttentionArgs& args, int64_t queries, float* states) {
  const int64_t state_floats = AttentionStateFloats(args.head_dim);
  for (int64_t query = 0; query < queries; ++query) {
    float* state = states + query * state_floats;
    std::fill(state, state + state_floats, 0.0f);
    state[0] = -std::numeric_limits<float>::infinity();
  }
}

template <class Dot, class CacheType>
void AttendTile(const AttentionArgs& args, const AttentionTile& tile, float* states) {
  const int64_t queries = tile.rows * (args.heads / args.kv_heads);
  const int64_t dim = PaddedHeadDim(args.head_dim);
  ClearStates(args, queries, states);
  constexpr bool kInt8 = std::is_same_v<CacheType, int8_t>;
  const AttendBuffers<Dot> buffers(queries, dim, kInt8 ? WidenedBytes(args.head_dim) : 0);
  ConvertQueries<typename Dot::Input, typename Dot::Weight>(args, tile, buffers.q);
  const VisibleRange visible = VisibleOf(args, tile);
  for (int64_t partition = tile.partition_begin; partition < tile.partition_end; ++partition) {
    const auto cached = FindBlocks<CacheType>(args, tile, partition, visible);
    const PartitionBlocks<typename Dot::Weight> blocks = [&] {
      if constexpr (kInt8) {
        return WidenBlocks(cached, HeadBlockElements(args.head_dim), buffers.copies);
      } else {
        return cached;
      }
    }();
#if defined(SWIFTKV_HAS_AMX)
    if constexpr (std::is_same_v<typename Dot::Weight, BFloat16>) {
      if (dim % kTileDepth == 0) {
        AttendOnTiles(args, tile, queries, blocks, cached, buffers, states);
        continue;
      }
    }
#endif
    AttendInVectors<Dot>(args, tile, queries, blocks, cached, buffers, states);
  }
}

inline void Attend(const AttentionArgs& args, const AttentionTile& tile, float* states) {
  if (args.cache_dtype == DType::kI8) {
    AttendTile<DotBf16, int8_t>(args, tile, states);
  } else if (args.cache_dtype == DType::kBF16) {
    AttendTile<DotBf16, BFloat16>(args, tile, states);
  } else {
    AttendTile<DotF32, float>(args, tile, states);
  }
}

template <class T>
void WriteState(const float* state, int64_t head_dim, T* out) {
  const Vec sum = Set(state[1]);
  for (int64_t i = 0; i < head_dim; i += kLanes) StoreUpTo(out + i, Load(state + 2 + i) / sum, head_dim - i);
}

inline void FinishAttention(const AttentionArgs& args, const AttentionTile& tile, float* states, int64_t count) {
  const int64_t group = args.heads / args.kv_heads;
  const int64_t queries = tile.rows * group;
  const int64_t state_floats = AttentionStateFloats(args.head_dim);
  for (int64_t query = 0; query < queries; ++query) {
    float* state = states + query * state_floats;
    for (int64_t part = 1; part < count; ++part) {
      const float* later = state + part * queries * state_floats;
      MergeState(state, {later[0], later[1]}, later + 2, PaddedHeadDim(args.head_dim));
    }
    const int64_t row = tile.sequence->row_begin + tile.row + query / group;
    const int64_t head = tile.kv_head * group + query % group;
    if (args.log_sum_exp != nullptr) {
      args.log_sum_exp[row * args.heads + head] = state[0] * kLn2 + std::log(state[1]);
    }
    const int64_t offset = row * args.out_stride + head * args.head_dim;
    if (args.out_dtype == DType::kBF16) {
      WriteState(state, args.head_dim, static_cast<BFloat16*>(args.out) + offset);
    } else {
      WriteState(state, args.head_dim, static_cast<float*>(args.out) + offset);
    }
  }
}

}  // namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE
