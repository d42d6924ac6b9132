// Small dense products for kernels that make their own operands: c [rows, columns] (+)= a [rows, depth] b, with b in
// pairs along the summed axis as packed weights have it: [depth / Dot::kDepth, columns, Dot::kDepth].
// rows, columns and depth are multiples of 32.
namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE {

// Around the products of one piece of work, on its own thread.
inline void BeginBlockProducts() {
#if defined(SWIFTKV_HAS_AMX)
  ConfigureTiles<Bf16SquareBlock>(Bf16SquareBlock::kRows);
#endif
}
inline void EndBlockProducts() {
#if defined(SWIFTKV_HAS_AMX)
  _tile_release();
#endif
}

template <class Dot, int kRows>
void BlockProductRows(const typename Dot::Input* a, int64_t a_stride, const typename Dot::Weight* b, int64_t columns,
                      int64_t depth, float* c, bool add) {
  constexpr int kVectors = 32 / kLanes < kTileVectors ? 32 / kLanes : kTileVectors;
  for (int64_t column = 0; column < columns; column += kVectors * kLanes) {
    const typename Dot::Weight* panels[kVectors];
    Vec sums[kRows][kVectors];
    SWIFTKV_UNROLL
    for (int j = 0; j < kVectors; ++j) panels[j] = b + (column + j * kLanes) * Dot::kDepth;
    SetZero(sums);
    for (int64_t step = 0; step < depth; step += Dot::kDepth) {
      TileStep<Dot>(a + step, a_stride, panels, step * columns, sums);
    }
    for (int i = 0; i < kRows; ++i) {
      for (int j = 0; j < kVectors; ++j) {
        float* out = c + i * columns + column + j * kLanes;
        Store(out, add ? Load(out) + sums[i][j] : sums[i][j]);
      }
    }
  }
}

template <class Dot>
void BlockProduct(const typename Dot::Input* a, int64_t rows, const typename Dot::Weight* b, int64_t columns,
                  int64_t depth, float* c, bool add) {
#if defined(SWIFTKV_HAS_AMX)
  if constexpr (std::is_same_v<typename Dot::Weight, BFloat16>)
    return TileBlockProduct(a, rows, b, columns, depth, c, add);
#endif
  constexpr int64_t kRows = 4;
  for (int64_t row = 0; row < rows; row += kRows) {
    BlockProductRows<Dot, kRows>(a + row * depth, depth, b, columns, depth, c + row * columns, add);
  }
}

}  // namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE
