// The products of kv_int8_fours-inl.h in vectors, with VPDPBUSD.
namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE {

// As the first input of VPDPBUSD, which has no sign: moved up by 128.
inline FourVec LoadMovedUp(const int8_t* p) {
  return {_mm512_xor_si512(_mm512_loadu_si512(p), _mm512_set1_epi8(-128))};
}
// What moving K up adds to a query's products with it, taken from zero. `dim` is a multiple of 64.
inline IntVec LessExcess(const int8_t* q, int64_t dim) {
  IntVec sum = {_mm512_setzero_si512()};
  for (int64_t i = 0; i < dim; i += kInt8Depth) sum = DotFours({_mm512_set1_epi8(-128)}, LoadFours(q + i), sum);
  return {_mm512_set1_epi32(-_mm512_reduce_add_epi32(sum.v))};
}

// The sums of q[i] . k[t], as Int8ScoresOnTiles. Where `next` is given, K and then V are fetched ahead.
template <int kRows>
void Int8ScoresInVectors(const int8_t* q_upper, const int8_t* q_lower, int64_t dim,
                         const PartitionBlocks<int8_t>& blocks, int64_t count, const PartitionBlocks<int8_t>* next,
                         int32_t* upper, int32_t* lower) {
  IntVec start[kRows][2];
  for (int r = 0; r < kRows; ++r) {
    start[r][0] = LessExcess(q_upper + r * dim, dim);
    start[r][1] = LessExcess(q_lower + r * dim, dim);
  }
  for (int64_t b = 0; b < count; b += 2) {
    const int8_t* first = blocks.k[b];
    const int8_t* second = blocks.k[std::min(b + 1, count - 1)];
    IntVec sums[kRows][4];  // upper and lower of the first block, then of the second
    SWIFTKV_UNROLL
    for (int r = 0; r < kRows; ++r) {
      SWIFTKV_UNROLL
      for (int j = 0; j < 4; ++j) sums[r][j] = start[r][j % 2];
    }
    for (int64_t i = 0; i < dim; i += 4) {
      const FourVec k[2] = {LoadMovedUp(first + i * kBlockTokens), LoadMovedUp(second + i * kBlockTokens)};
      SWIFTKV_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const FourVec q[2] = {BroadcastFour(q_upper + r * dim + i), BroadcastFour(q_lower + r * dim + i)};
        SWIFTKV_UNROLL
        for (int j = 0; j < 4; ++j) sums[r][j] = DotFours(k[j / 2], q[j % 2], sums[r][j]);
      }
    }
    if (next != nullptr) {
      for (int64_t ahead = b + kBlocksAhead; ahead < b + kBlocksAhead + 2; ++ahead) {
        FetchInOrder(PartK(blocks), PartV(blocks), ahead, dim);
      }
    }
    SWIFTKV_UNROLL
    for (int r = 0; r < kRows; ++r) {
      SWIFTKV_UNROLL
      for (int j = 0; j < 4; ++j) {
        StoreInts((j % 2 == 0 ? upper : lower) + r * kScoreStride + (b + j / 2) * kBlockTokens, sums[r][j]);
      }
    }
  }
}

// The sums of weights[i, t] v[t, d] over the first `count` blocks. Where `next` is given, V and then its K are fetched
// ahead.
template <int kRows>
void WeighInt8ValuesInVectors(const uint8_t* upper_weights, const uint8_t* lower_weights, int64_t dim,
                              const PartitionBlocks<int8_t>& blocks, int64_t count, const PartitionBlocks<int8_t>* next,
                              int32_t* upper, int32_t* lower) {
  for (int64_t d = 0; d < dim; d += 2 * kLanes) {
    IntVec sums[kRows][4];  // upper and lower of the first vector of dimensions, then of the second
    SetZero(sums);
    for (int64_t b = 0; b < count; ++b) {
      if (next != nullptr && d == 0) FetchInOrder(PartV(blocks), PartK(*next), b + kBlocksAhead, dim);
      for (int64_t t = 0; t < kBlockTokens; t += 4) {
        const int8_t* row = blocks.v[b] + t * dim + d * 4;
        const FourVec v[2] = {LoadFours(row), LoadFours(row + kLanes * 4)};
        const int64_t token = b * kBlockTokens + t;
        SWIFTKV_UNROLL
        for (int r = 0; r < kRows; ++r) {
          const FourVec weights[2] = {
              BroadcastFour(reinterpret_cast<const int8_t*>(upper_weights) + r * kInt8WeightStride + token),
              BroadcastFour(reinterpret_cast<const int8_t*>(lower_weights) + r * kInt8WeightStride + token)};
          SWIFTKV_UNROLL
          for (int j = 0; j < 4; ++j) sums[r][j] = DotFours(weights[j % 2], v[j / 2], sums[r][j]);
        }
      }
    }
    SWIFTKV_UNROLL
    for (int r = 0; r < kRows; ++r) {
      SWIFTKV_UNROLL
      for (int j = 0; j < 4; ++j) StoreInts((j % 2 == 0 ? upper : lower) + r * dim + d + j / 2 * kLanes, sums[r][j]);
    }
  }
}

// The products of up to kInt8Queries queries.
struct Int8VectorProducts {
  int64_t queries;

  static constexpr bool kGathersValues = false;
  void Scores(const Int8Buffers& buffers, int64_t query, int64_t dim, const PartitionBlocks<int8_t>& blocks,
              int64_t count, const PartitionBlocks<int8_t>* next) const {
    ForQueryGroups(queries, [&](int64_t i, auto rows) {
      Int8ScoresInVectors<decltype(rows)::value>(
          buffers.q_upper + (query + i) * dim, buffers.q_lower + (query + i) * dim, dim, blocks, count,
          i == 0 ? next : nullptr, buffers.upper_sums + i * kScoreStride, buffers.lower_sums + i * kScoreStride);
    });
  }
  void Values(const Int8Buffers& buffers, int64_t dim, const PartitionBlocks<int8_t>& blocks, int64_t count,
              const PartitionBlocks<int8_t>* next) const {
    ForQueryGroups(queries, [&](int64_t i, auto rows) {
      WeighInt8ValuesInVectors<decltype(rows)::value>(
          buffers.upper_weights + i * kInt8WeightStride, buffers.lower_weights + i * kInt8WeightStride, dim, blocks,
          count, i == 0 ? next : nullptr, buffers.upper_sums + i * dim, buffers.lower_sums + i * dim);
    });
  }
};

inline void VnniAttend(const AttentionArgs& args, const AttentionTile& tile, float* states) {
  if (args.cache_dtype == DType::kI8 && Int8Adjacent(true, args.head_dim) == 4) {
    AttendInt8Tile<Int8VectorProducts>(args, tile, states);
  } else {
    Attend(args, tile, states);
  }
}

}  // namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE
