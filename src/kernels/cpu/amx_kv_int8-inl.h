// The products of kv_int8_fours-inl.h on AMX tiles: a block of K is tiles as it lies.
namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE {

static_assert(kInt8Queries == kTileSize && kInt8Depth == kTileRowBytes);

// Tiles 0 to 3: sums, of the upper eight bits in 0 and 2; 4 and 5: upper and lower queries or weights; 6 and 7: K or V.
inline void ConfigureInt8Tiles(int64_t queries) {
  TileConfig config;
  std::fill_n(config.row_bytes, 8, uint16_t{kTileRowBytes});
  std::fill_n(config.rows, 6, static_cast<uint8_t>(queries));
  config.rows[6] = config.rows[7] = kTileSize;
  LoadTileConfig(config);
}

// The sums of q[i] . k[t] for all queries of the tiles and the first `count` blocks, two blocks at a time; what
// overshoots is never read. Where `next` is given, K and then the first V of the next partition are fetched ahead.
inline void Int8ScoresOnTiles(const int8_t* q_upper, const int8_t* q_lower, int64_t dim,
                              const PartitionBlocks<int8_t>& blocks, int64_t count, const PartitionBlocks<int8_t>* next,
                              int32_t* upper, int32_t* lower) {
  constexpr int64_t kSumBytes = kScoreStride * 4;
  for (int64_t b = 0; b < count; b += 2) {
    const int8_t* first = blocks.k[b];
    const int8_t* second = blocks.k[std::min(b + 1, count - 1)];
    ZeroSumTiles();
    for (int64_t i = 0; i < dim; i += kInt8Depth) {
      if (b == 0 || dim > kInt8Depth) {
        _tile_loadd(4, q_upper + i, dim);
        _tile_loadd(5, q_lower + i, dim);
      }
      _tile_loadd(6, first + i * kBlockTokens, kTileRowBytes);
      _tile_dpbssd(0, 4, 6);
      _tile_dpbssd(1, 5, 6);
      _tile_loadd(7, second + i * kBlockTokens, kTileRowBytes);
      _tile_dpbssd(2, 4, 7);
      _tile_dpbssd(3, 5, 7);
    }
    if (next != nullptr) {
      for (int64_t ahead = b + kBlocksAhead; ahead < b + kBlocksAhead + 2; ++ahead) {
        FetchInOrder(PartK(blocks), PartV(*next), ahead, dim);
      }
    }
    _tile_stored(0, upper + b * kBlockTokens, kSumBytes);
    _tile_stored(1, lower + b * kBlockTokens, kSumBytes);
    _tile_stored(2, upper + (b + 1) * kBlockTokens, kSumBytes);
    _tile_stored(3, lower + (b + 1) * kBlockTokens, kSumBytes);
  }
}

// The sums of weights[i, t] v[t, d] over the first `groups` tiles of V, 32 dimensions at a time.
inline void WeighInt8ValuesOnTiles(const uint8_t* upper_weights, const uint8_t* lower_weights, const int8_t* values,
                                   int64_t groups, int64_t dim, int32_t* upper, int32_t* lower) {
  for (int64_t d = 0; d < dim; d += 2 * kTileSize) {
    ZeroSumTiles();
    for (int64_t g = 0; g < groups; ++g) {
      const int8_t* v = values + g * dim * kInt8Depth + d / kTileSize * kInt8TileBytes;
      _tile_loadd(4, upper_weights + g * kInt8Depth, kInt8WeightStride);
      _tile_loadd(5, lower_weights + g * kInt8Depth, kInt8WeightStride);
      _tile_loadd(6, v, kTileRowBytes);
      _tile_dpbusd(0, 4, 6);
      _tile_dpbusd(1, 5, 6);
      _tile_loadd(7, v + kInt8TileBytes, kTileRowBytes);
      _tile_dpbusd(2, 4, 7);
      _tile_dpbusd(3, 5, 7);
    }
    _tile_stored(0, upper + d, dim * 4);
    _tile_stored(1, lower + d, dim * 4);
    _tile_stored(2, upper + d + kTileSize, dim * 4);
    _tile_stored(3, lower + d + kTileSize, dim * 4);
  }
}

// The products of up to kInt8Queries queries. GCC's tile loads and stores are not known to it as uses of memory.
struct Int8TileProducts {
  int64_t queries;

  static constexpr bool kGathersValues = true;
  void Scores(const Int8Buffers& buffers, int64_t query, int64_t dim, const PartitionBlocks<int8_t>& blocks,
              int64_t count, const PartitionBlocks<int8_t>* next) const {
    ConfigureInt8Tiles(queries);
    __asm__ volatile("" ::: "memory");
    Int8ScoresOnTiles(buffers.q_upper + query * dim, buffers.q_lower + query * dim, dim, blocks, count, next,
                      buffers.upper_sums, buffers.lower_sums);
    __asm__ volatile("" ::: "memory");
  }
  void Values(const Int8Buffers& buffers, int64_t dim, const PartitionBlocks<int8_t>& /*blocks*/, int64_t count,
              const PartitionBlocks<int8_t>* /*next*/) const {
    __asm__ volatile("" ::: "memory");
    WeighInt8ValuesOnTiles(buffers.upper_weights, buffers.lower_weights, buffers.values,
                           (count + kGroupBlocks - 1) / kGroupBlocks, dim, buffers.upper_sums, buffers.lower_sums);
    __asm__ volatile("" ::: "memory");
  }
};

inline void AmxAttend(const AttentionArgs& args, const AttentionTile& tile, float* states) {
  if (args.cache_dtype == DType::kI8 && Int8Adjacent(true, args.head_dim) == 4) {
    AttendInt8Tile<Int8TileProducts>(args, tile, states);
    _tile_release();
  } else {
    Attend(args, tile, states);
  }
}

}  // namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE
