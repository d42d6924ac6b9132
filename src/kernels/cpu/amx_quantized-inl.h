// Products with block-quantized weights as they are (gemm_quantized-inl.h) for many rows: the sums of a block's 32
// products come from AMX tiles, 16 rows x 16 output features at a time; scaling and adding them up goes on beside it in
// vector registers, in the same order as there.
namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE {

inline constexpr int64_t kUnitVectors = kPanelColumns / kLanes;
inline constexpr int64_t kBlockTileBytes = kQuantizedBlock * kLanes;  // 8 rows of 64
// Tiles of sums on their way from the tile unit to the vector registers, which takes longer than a few blocks' work.
inline constexpr int64_t kTilesAhead = 3;
inline constexpr int64_t kSumTiles = kTilesAhead + 1;
inline constexpr int64_t kMaxSectionBlocks = kMaxSectionK / kQuantizedBlock;

// A section of a panel, ready for tiles.
struct alignas(64) ReadyPanel {
  int8_t codes[kUnitVectors * kMaxSectionBlocks * kBlockTileBytes];
  float scales[kUnitVectors * kMaxSectionBlocks * kLanes];
  float minima[kUnitVectors * kMaxSectionBlocks * kLanes];
};

template <int kBits>
void MakeReady(const std::byte* unit, int64_t blocks, ReadyPanel* panel) {
  using Layout = QuantizedUnit<kBits>;
  for (int64_t block = 0; block < blocks; ++block, unit += Layout::kBytes) {
    const auto* scales = reinterpret_cast<const uint16_t*>(unit + Layout::kCodeBytes);
    for (int64_t j = 0; j < kUnitVectors; ++j) {
      const int64_t at = j * kMaxSectionBlocks + block;
      const auto* words = reinterpret_cast<const uint32_t*>(unit) + Layout::WordIndex(j * kLanes, 0);
      auto* codes = panel->codes + at * kBlockTileBytes;
      if constexpr (kBits == 4) {
        const NibbleBlock nibbles = LoadNibbleBlock(words, kUnitColumns);
        SWIFTKV_UNROLL
        for (int i = 0; i < 8; ++i) _mm512_storeu_si512(codes + 64 * i, nibbles.fours[i]);
        Store(panel->minima + at * kLanes, LoadHalf(scales + kPanelColumns + j * kLanes));
      } else {
        std::memcpy(codes, words, kBlockTileBytes);
      }
      Store(panel->scales + at * kLanes, LoadHalf(scales + j * kLanes));
    }
  }
}

// A strip of 16 rows times one vector of a panel in one section: adds to sums [16, 64].
template <int kBits>
void AddStrip(const QuantizedArgs& args, const ReadyPanel& panel, int64_t row, int64_t first_block, int64_t blocks,
              int64_t vector, bool first, float* sums) {
  alignas(64) int32_t tiles[kSumTiles][kTileSize * kTileSize];
  const int8_t* x = args.Codes(row) + first_block * kQuantizedBlock;
  const int8_t* codes = panel.codes + vector * kMaxSectionBlocks * kBlockTileBytes;
  const float* scales = panel.scales + vector * kMaxSectionBlocks * kLanes;
  const float* minima = panel.minima + vector * kMaxSectionBlocks * kLanes;
  const StripBlock* strips = &args.Strip(row, first_block);
  const auto multiply = [&](int64_t block) {
    _tile_loadd(1, x + block * kQuantizedBlock, args.x_stride);
    _tile_loadd(2, codes + block * kBlockTileBytes, kTileRowBytes);
    _tile_zero(0);
    if constexpr (kBits == 4) {
      _tile_dpbsud(0, 1, 2);
    } else {
      _tile_dpbssd(0, 1, 2);
    }
    _tile_stored(0, tiles[block % kSumTiles], kTileRowBytes);
  };
  for (int64_t block = 0; block < std::min(kTilesAhead, blocks); ++block) multiply(block);
  Vec totals[kStripRows];
  SWIFTKV_UNROLL
  for (int i = 0; i < kStripRows; ++i) totals[i] = first ? Zero() : Load(sums + i * kPanelColumns);
  for (int64_t block = 0; block < blocks; ++block) {
    if (block + kTilesAhead < blocks) multiply(block + kTilesAhead);
    const int32_t* products = tiles[block % kSumTiles];
    const StripBlock& strip = strips[block];
    const Vec scale = Load(scales + block * kLanes);
    const Vec minimum = kBits == 4 ? Load(minima + block * kLanes) : Zero();
    SWIFTKV_UNROLL
    for (int i = 0; i < kStripRows; ++i) {
      const Vec scaled = ToFloat(LoadInts(products + i * kTileSize)) * scale;
      totals[i] = MulAdd(scaled, Set(strip.scales[i]), totals[i]);
      if (kBits == 4) totals[i] = MulAdd(minimum, Set(strip.totals[i]), totals[i]);
    }
  }
  SWIFTKV_UNROLL
  for (int i = 0; i < kStripRows; ++i) Store(sums + i * kPanelColumns, totals[i]);
}

inline void ConfigureBlockTiles() {
  TileConfig config;
  config.rows[0] = kTileSize;
  config.row_bytes[0] = kTileRowBytes;
  config.rows[1] = kTileSize;
  config.row_bytes[1] = kQuantizedBlock;
  config.rows[2] = kQuantizedBlock / kColumnBytes;
  config.row_bytes[2] = kTileRowBytes;
  LoadTileConfig(config);
}

inline void FinishStrip(const QuantizedArgs& args, int64_t row, int64_t panel, const float* sums) {
  for (int64_t i = 0; i < kStripRows; ++i) {
    for (int64_t column = 0; column < kPanelColumns; column += kLanes) {
      FinishVector(args, row + i, panel * kPanelColumns + column, Load(sums + i * kPanelColumns + column));
    }
  }
}

// Whole strips of rows times one panel.
template <int kBits>
void ComputeStrips(const QuantizedArgs& args, const PackedLayout& layout, int64_t row, int64_t rows, int64_t panel) {
  const bool sums_wait = layout.sections() > 1;  // between sections; else each strip uses the same ones
  const int64_t sum_rows = sums_wait ? rows : kStripRows;
  const int64_t sum_bytes = sum_rows * kPanelColumns * static_cast<int64_t>(sizeof(float));
  std::byte* scratch = ThreadScratch(static_cast<int64_t>(sizeof(ReadyPanel)) + sum_bytes);
  auto* ready = reinterpret_cast<ReadyPanel*>(scratch);
  auto* sums = reinterpret_cast<float*>(scratch + sizeof(ReadyPanel));
  ConfigureBlockTiles();
  for (int64_t section = 0; section < layout.sections(); ++section) {
    const int64_t blocks = layout.SectionSize(section) / kQuantizedBlock;
    const int64_t first_block = layout.SectionBegin(section) / kQuantizedBlock;
    const int64_t units = layout.Offset(section, panel) / kUnitElements;
    MakeReady<kBits>(args.w->data.data() + units * QuantizedUnit<kBits>::kBytes, blocks, ready);
    // GCC's tile loads are not known to the compiler as reads of memory.
    __asm__ volatile("" ::: "memory");
    for (int64_t i = 0; i < rows; i += kStripRows) {
      float* strip_sums = sums + (sums_wait ? i : 0) * kPanelColumns;
      for (int64_t vector = 0; vector < kUnitVectors; ++vector) {
        AddStrip<kBits>(args, *ready, row + i, first_block, blocks, vector, section == 0, strip_sums + vector * kLanes);
      }
      if (section + 1 == layout.sections()) FinishStrip(args, row + i, panel, strip_sums);
    }
  }
  _tile_release();
}

// Whole strips on tiles, a rest of less than 16 rows as gemm_quantized-inl.h.
template <int kBits>
void RunAmxQuantized(const QuantizedArgs& args) {
  const PackedLayout layout(*args.w);
  const int64_t strip_rows = args.m / kStripRows * kStripRows;
  // As many rows as make a panel's preparation cheap, yet enough items for all threads.
  int64_t rows = std::min<int64_t>(512, strip_rows);
  while (rows > 2 * kStripRows && layout.panels() * ((strip_rows + rows - 1) / rows) < 8 * Threads()) {
    rows = RoundUp(rows / 2, kStripRows);
  }
  if (strip_rows > 0) {
    const int64_t row_blocks = (strip_rows + rows - 1) / rows;
    ParallelFor(row_blocks * layout.panels(), [&](int64_t index) {
      const int64_t row = index % row_blocks * rows;
      ComputeStrips<kBits>(args, layout, row, std::min(rows, strip_rows - row), index / row_blocks);
    });
  }
  if (strip_rows < args.m) RunQuantizedRows<kBits>(args, strip_rows);
}

inline void AmxQuantizedGemm(const GemmArgs& args) {
  if (args.w->dtype == DType::kQ4_1) {
    RunAmxQuantized<4>(QuantizeBlocks<4>(args));
  } else {
    RunAmxQuantized<8>(QuantizeBlocks<8>(args));
  }
}

inline void AmxGemm(const GemmArgs& args) {
  if (args.m == 0 || args.w->n == 0) return;
  if (args.w->dtype == DType::kI8) {
    RunAmxGemm<AmxInt8>(QuantizeInputs(args), false);
  } else if (args.w->int8_inputs) {
    AmxQuantizedGemm(args);
  } else {
    RunAmxGemm<AmxBf16>(args, false);
  }
}

// False: not for this matrix.
inline bool AmxGatedGemm(const GatedGemmArgs& args) {
  const PackedMatrix& w = *args.gemm.w;
  if (w.activation_dtype() != DType::kBF16 || w.int8_inputs || w.n % (2 * kPanelColumns) != 0) return false;
  if (args.gemm.m == 0) return true;
  GemmArgs product = args.gemm;
  product.y = args.out;
  product.y_stride = args.out_stride;
  if (w.dtype == DType::kI8) {
    RunAmxGemm<AmxInt8>(QuantizeInputs(product), true);
  } else {
    RunAmxGemm<AmxBf16>(product, true);
  }
  return true;
}

}  // namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE
