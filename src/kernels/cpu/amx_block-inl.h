// block_product-inl.h's products of bf16 on AMX tiles.
namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE {

inline void TileBlockProduct(const BFloat16* a, int64_t rows, const BFloat16* b, int64_t columns, int64_t depth,
                             float* c, bool add) {
  // GCC's tile loads and stores are not known to it as uses of memory.
  __asm__ volatile("" ::: "memory");
  const int64_t a_bytes = depth * 2;
  const int64_t b_bytes = columns * 4;  // pairs of rows
  const int64_t c_bytes = columns * 4;
  for (int64_t row = 0; row < rows; row += Bf16SquareBlock::kRows) {
    const BFloat16* upper = a + row * depth;
    const BFloat16* lower = upper + kTileSize * depth;
    for (int64_t column = 0; column < columns; column += Bf16SquareBlock::kColumns) {
      float* out = c + row * columns + column;
      float* out_lower = out + kTileSize * columns;
      if (add) {
        _tile_loadd(0, out, c_bytes);
        _tile_loadd(1, out + kTileSize, c_bytes);
        _tile_loadd(2, out_lower, c_bytes);
        _tile_loadd(3, out_lower + kTileSize, c_bytes);
      } else {
        ZeroSumTiles();
      }
      const BFloat16* panel = b + column * 2;
      for (int64_t k = 0; k < depth; k += kTileDepth) {
        _tile_loadd(4, upper + k, a_bytes);
        _tile_loadd(6, panel + k * columns, b_bytes);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, panel + k * columns + 2 * kTileSize, b_bytes);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, lower + k, a_bytes);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
      _tile_stored(0, out, c_bytes);
      _tile_stored(1, out + kTileSize, c_bytes);
      _tile_stored(2, out_lower, c_bytes);
      _tile_stored(3, out_lower + kTileSize, c_bytes);
    }
  }
  __asm__ volatile("" ::: "memory");
}

}  // namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE
