// The two products of attention on AMX tiles, for bf16 caches whose head dimension is a multiple of 32. A block of the
// cache (kv_layout.h) is made of tiles as it lies: 32 dimensions of K x 16 tokens are 16 rows of 64 bytes; 16 tokens of
// V x 16 dimensions are 8 rows of 64 bytes.
//
// A score is one chain of TDPBF16PS over the dimensions in steps of 32, a weighted value one over the tokens in steps
// of 16, whatever the queries that share the tiles. Up to 16 queries take a row of tiles, 17 to 32 ("wide") two: each
// tile of the cache that they load serves both.
namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE {

// Tiles 0 to 3: sums; 4: queries; 5: K; 6: weights; 7: V.
inline void ConfigureAttentionTiles(int64_t queries) {
  TileConfig config;
  std::fill_n(config.row_bytes, 8, uint16_t{kTileRowBytes});
  std::fill_n(config.rows, 8, static_cast<uint8_t>(queries));
  config.rows[5] = kTileSize;
  config.row_bytes[6] = kBlockTokens * kElementBytes;
  config.rows[7] = kBlockTokens / 2;
  LoadTileConfig(config);
}

// Tiles 0 and 1: sums of the first 16 queries; 2 and 3: of the others; 4 and 5: queries or weights; 6 and 7: K or V,
// of which a tile has `depth` rows.
inline void ConfigureWideTiles(int64_t queries, int64_t depth) {
  TileConfig config;
  std::fill_n(config.row_bytes, 8, uint16_t{kTileRowBytes});
  std::fill_n(config.rows, 8, uint8_t{kTileSize});
  config.rows[2] = config.rows[3] = config.rows[5] = static_cast<uint8_t>(queries - kTileSize);
  config.row_bytes[4] = config.row_bytes[5] = static_cast<uint16_t>(depth * 2 * kElementBytes);
  config.rows[6] = config.rows[7] = static_cast<uint8_t>(depth);
  LoadTileConfig(config);
}

// scores[i, t] = q[i] . k[t] for all queries of the tiles and the first `count` blocks, four blocks at a time; what
// overshoots is never read. Ends with the first blocks of V on their way.
inline void ScoresOnTiles(const BFloat16* q, int64_t dim, const PartitionBlocks<BFloat16>& blocks, int64_t count,
                          float* scores) {
  constexpr int64_t kScoreBytes = kScoreStride * 4;
  constexpr int64_t kTileBytes = kTileSize * kTileRowBytes;
  for (int64_t b = 0; b < count; b += kScoreBlocks) {
    const BFloat16* k[kScoreBlocks];
    const BFloat16* next[kScoreBlocks];
    for (int64_t j = 0; j < kScoreBlocks; ++j) {
      const int64_t ahead = b + j + kBlocksAhead;
      k[j] = blocks.k[std::min(b + j, count - 1)];
      next[j] = ahead < count ? blocks.k[ahead] : blocks.v[std::min(ahead - count, count - 1)];
    }
    ZeroSumTiles();
    for (int64_t i = 0; i < dim; i += kTileDepth) {
      const int64_t offset = i * kBlockTokens;
      _tile_loadd(4, q + i, dim * kElementBytes);
      _tile_loadd(5, k[0] + offset, kTileRowBytes);
      _tile_dpbf16ps(0, 4, 5);
      FetchLines(next[0] + offset, kTileBytes);
      _tile_loadd(5, k[1] + offset, kTileRowBytes);
      _tile_dpbf16ps(1, 4, 5);
      FetchLines(next[1] + offset, kTileBytes);
      _tile_loadd(5, k[2] + offset, kTileRowBytes);
      _tile_dpbf16ps(2, 4, 5);
      FetchLines(next[2] + offset, kTileBytes);
      _tile_loadd(5, k[3] + offset, kTileRowBytes);
      _tile_dpbf16ps(3, 4, 5);
      FetchLines(next[3] + offset, kTileBytes);
    }
    float* out = scores + b * kBlockTokens;
    _tile_stored(0, out, kScoreBytes);
    _tile_stored(1, out + kBlockTokens, kScoreBytes);
    _tile_stored(2, out + 2 * kBlockTokens, kScoreBytes);
    _tile_stored(3, out + 3 * kBlockTokens, kScoreBytes);
  }
}

// The same of 17 to 32 queries, two blocks at a time.
inline void WideScoresOnTiles(const BFloat16* q, int64_t dim, const PartitionBlocks<BFloat16>& blocks, int64_t count,
                              float* scores) {
  constexpr int64_t kScoreBytes = kScoreStride * 4;
  const BFloat16* lower = q + kTileSize * dim;
  for (int64_t b = 0; b < count; b += 2) {
    const BFloat16* first = blocks.k[b];
    const BFloat16* second = blocks.k[std::min(b + 1, count - 1)];
    ZeroSumTiles();
    for (int64_t i = 0; i < dim; i += kTileDepth) {
      const int64_t offset = i * kBlockTokens;
      _tile_loadd(6, first + offset, kTileRowBytes);
      _tile_loadd(4, q + i, dim * kElementBytes);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(5, lower + i, dim * kElementBytes);
      _tile_dpbf16ps(2, 5, 6);
      _tile_loadd(7, second + offset, kTileRowBytes);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(3, 5, 7);
    }
    float* out = scores + b * kBlockTokens;
    _tile_stored(0, out, kScoreBytes);
    _tile_stored(1, out + kBlockTokens, kScoreBytes);
    _tile_stored(2, out + kTileSize * kScoreStride, kScoreBytes);
    _tile_stored(3, out + kTileSize * kScoreStride + kBlockTokens, kScoreBytes);
  }
}

// out[i, d] = sum_t weights[i, t] v[t, d], 64 dimensions at a time, or the last 32.
inline void WeighValuesOnTiles(const BFloat16* weights, const PartitionBlocks<BFloat16>& blocks, int64_t count,
                               int64_t dim, float* out) {
  const int64_t out_bytes = dim * 4;
  for (int64_t d = 0; d < dim; d += 4 * kTileSize) {
    const bool wide = dim - d >= 4 * kTileSize;
    ZeroSumTiles();
    for (int64_t b = 0; b < count; ++b) {
      const BFloat16* v = blocks.v[b] + 2 * d;
      if (d == 0) FetchLines(blocks.v[std::min(b + kBlocksAhead, count - 1)], dim * kBlockTokens * kElementBytes);
      _tile_loadd(6, weights + b * kBlockTokens, kWeightStride * kElementBytes);
      _tile_loadd(7, v, 2 * dim * kElementBytes);
      _tile_dpbf16ps(0, 6, 7);
      _tile_loadd(7, v + 2 * kTileSize, 2 * dim * kElementBytes);
      _tile_dpbf16ps(1, 6, 7);
      if (!wide) continue;
      _tile_loadd(7, v + 4 * kTileSize, 2 * dim * kElementBytes);
      _tile_dpbf16ps(2, 6, 7);
      _tile_loadd(7, v + 6 * kTileSize, 2 * dim * kElementBytes);
      _tile_dpbf16ps(3, 6, 7);
    }
    _tile_stored(0, out + d, out_bytes);
    _tile_stored(1, out + d + kTileSize, out_bytes);
    if (!wide) continue;
    _tile_stored(2, out + d + 2 * kTileSize, out_bytes);
    _tile_stored(3, out + d + 3 * kTileSize, out_bytes);
  }
}

// The same of 17 to 32 queries, 32 dimensions at a time.
inline void WeighWideValuesOnTiles(const BFloat16* weights, const PartitionBlocks<BFloat16>& blocks, int64_t count,
                                   int64_t dim, float* out) {
  const int64_t out_bytes = dim * 4;
  const int64_t weight_bytes = kWeightStride * kElementBytes;
  const BFloat16* lower = weights + kTileSize * kWeightStride;
  for (int64_t d = 0; d < dim; d += 2 * kTileSize) {
    ZeroSumTiles();
    for (int64_t b = 0; b < count; ++b) {
      const BFloat16* v = blocks.v[b] + 2 * d;
      _tile_loadd(6, v, 2 * dim * kElementBytes);
      _tile_loadd(4, weights + b * kBlockTokens, weight_bytes);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(5, lower + b * kBlockTokens, weight_bytes);
      _tile_dpbf16ps(2, 5, 6);
      _tile_loadd(7, v + 2 * kTileSize, 2 * dim * kElementBytes);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, out + d, out_bytes);
    _tile_stored(1, out + d + kTileSize, out_bytes);
    _tile_stored(2, out + kTileSize * dim + d, out_bytes);
    _tile_stored(3, out + kTileSize * dim + d + kTileSize, out_bytes);
  }
}

}  // namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE
