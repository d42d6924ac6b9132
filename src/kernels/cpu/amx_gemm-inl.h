// y = x wᵀ + bias in bf16 or int8 on AMX tiles: registers of 16 rows of 64 bytes, of which TDPBF16PS or TDPBSSD
// multiplies two into a third.
//
// The packed panels (packed_layout.h) are tiles of weights as they lie: 32 input features of bf16, or 64 of int8, x 16
// output features are 16 rows of 64 bytes, 256 bytes apart. A work item is some rows times some panels and goes through
// K section by section. In each section it takes strips of 32 rows, whose inputs stay in the L1 cache, and lets the
// panels stream past them from the L2 cache, one block of sums at a time. Meanwhile it fetches what comes next: the L3
// cache is too slow to be waited for. Between sections the sums wait in scratch, exactly as they were.
//
// Every output element is one chain of products over K in steps of a tile, whatever the shape of its block; of int8 the
// sums are exact, and the exact features (gemm_int8-inl.h) one more step from zero.
//
// Of a matrix of gate rows, then up rows, an item can take panels of both: each block of gates is followed by the block
// of their ups, and silu(gate) * up is stored while the tiles are at work on the next ones.
namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE {

inline constexpr int64_t kTileSize = 16;      // rows of a tile, and its columns of float32 or int32
inline constexpr int64_t kTileRowBytes = 64;  // also a cache line
inline constexpr int64_t kBlockSums = 1024;   // in four tiles
// Of one row of a tile of weights, in which each column has four bytes, to the next; and of a panel's whole step.
inline constexpr int64_t kColumnBytes = 4;
inline constexpr int64_t kWeightRowBytes = kPanelColumns * kColumnBytes;
inline constexpr int64_t kPanelStepBytes = kTileSize * kWeightRowBytes;

// What is multiplied.
struct AmxBf16 {
  using Args = GemmArgs;
  using Element = BFloat16;
  static constexpr bool kIsInt8 = false;
};
struct AmxInt8 {
  using Args = Int8Args;
  using Element = int8_t;
  static constexpr bool kIsInt8 = true;
};
inline constexpr int64_t kElementBytes = sizeof(BFloat16);
inline constexpr int64_t kTileDepth = kTileRowBytes / kElementBytes;  // a tile's columns of bf16

// What LDTILECFG reads.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

inline void LoadTileConfig(const TileConfig& config) {
  // Not the intrinsic: GCC's tells the compiler of a read of the first eight bytes only.
  __asm__ volatile("ldtilecfg %0" ::"m"(config));
}

// Tiles 0 to 3, which hold sums everywhere.
inline void ZeroSumTiles() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

// A strip's inputs in one section.
struct StripInputs {
  const std::byte* x;
  int64_t row_bytes;  // from row to row
};

// Takes the finished sums in tile i to `before` and starts it from `sums`, or from zero. Between two products a store
// takes no time, because tile registers are renamed.
#define SWIFTKV_TURN_TILE(i)                              \
  _tile_stored(i, before + kSumOffsets[i], kSumRowBytes); \
  if (sums != nullptr) {                                  \
    _tile_loadd(i, sums + kSumOffsets[i], kSumRowBytes);  \
  } else {                                                \
    _tile_zero(i);                                        \
  }

#define SWIFTKV_TILE_PRODUCT(sums, x, w) \
  if constexpr (Op::kIsInt8) {           \
    _tile_dpbssd(sums, x, w);            \
  } else {                               \
    _tile_dpbf16ps(sums, x, w);          \
  }

// Sums of 32 rows x 32 columns in tiles 0 to 3; inputs in 4 and 5, weights in 6 and 7. For strips of 17 to 32 rows.
template <class Op>
struct SquareBlock {
  static constexpr int64_t kRows = 32;
  static constexpr int64_t kColumns = 32;
  static constexpr int64_t kSumRowBytes = kColumns * sizeof(float);
  static constexpr int64_t kSumOffsets[4] = {0, kTileSize, kTileSize* kColumns, kTileSize* kColumns + kTileSize};

  static void SetTileRows(int64_t rows, uint8_t* tile_rows) {
    tile_rows[2] = tile_rows[3] = tile_rows[5] = static_cast<uint8_t>(rows - kTileSize);
  }

  // The order of the loads matters to the speed. Weights pass by and should not drive the inputs out of the L1 cache:
  // "stream" says so.
  static void Load(const StripInputs& in, int64_t step, const std::byte* w) {
    const std::byte* x = in.x + step * kTileRowBytes;
    _tile_stream_loadd(6, w, kWeightRowBytes);
    _tile_loadd(4, x, in.row_bytes);
    _tile_stream_loadd(7, w + kTileSize * kColumnBytes, kWeightRowBytes);
    _tile_loadd(5, x + kTileSize * in.row_bytes, in.row_bytes);
  }
  static void FirstStep(const StripInputs& in, const std::byte* w, const float* sums, float* before) {
    Load(in, 0, w);
    SWIFTKV_TURN_TILE(0);
    SWIFTKV_TILE_PRODUCT(0, 4, 6)
    SWIFTKV_TURN_TILE(2);
    SWIFTKV_TILE_PRODUCT(2, 5, 6)
    SWIFTKV_TURN_TILE(1);
    SWIFTKV_TILE_PRODUCT(1, 4, 7)
    SWIFTKV_TURN_TILE(3);
    SWIFTKV_TILE_PRODUCT(3, 5, 7)
  }
  static void Step(const StripInputs& in, int64_t step, const std::byte* w) {
    Load(in, step, w);
    SWIFTKV_TILE_PRODUCT(0, 4, 6)
    SWIFTKV_TILE_PRODUCT(2, 5, 6)
    SWIFTKV_TILE_PRODUCT(1, 4, 7)
    SWIFTKV_TILE_PRODUCT(3, 5, 7)
  }
};

// Sums of 16 rows x 64 columns in tiles 0 to 3; inputs in 4, weights in 5 to 7. For strips of 1 to 16 rows: it reads
// weights in the order of memory, which the hardware fetches best by itself.
template <class Op>
struct FlatBlock {
  static constexpr int64_t kRows = 16;
  static constexpr int64_t kColumns = 64;
  static constexpr int64_t kSumRowBytes = kColumns * sizeof(float);
  static constexpr int64_t kSumOffsets[4] = {0, kTileSize, 2 * kTileSize, 3 * kTileSize};

  static void SetTileRows(int64_t rows, uint8_t* tile_rows) { std::fill_n(tile_rows, 5, static_cast<uint8_t>(rows)); }

  static void FirstStep(const StripInputs& in, const std::byte* w, const float* sums, float* before) {
    _tile_loadd(4, in.x, in.row_bytes);
    _tile_stream_loadd(5, w, kWeightRowBytes);
    SWIFTKV_TURN_TILE(0);
    SWIFTKV_TILE_PRODUCT(0, 4, 5)
    _tile_stream_loadd(6, w + kTileSize * kColumnBytes, kWeightRowBytes);
    SWIFTKV_TURN_TILE(1);
    SWIFTKV_TILE_PRODUCT(1, 4, 6)
    _tile_stream_loadd(7, w + 2 * kTileSize * kColumnBytes, kWeightRowBytes);
    SWIFTKV_TURN_TILE(2);
    SWIFTKV_TILE_PRODUCT(2, 4, 7)
    _tile_stream_loadd(5, w + 3 * kTileSize * kColumnBytes, kWeightRowBytes);
    SWIFTKV_TURN_TILE(3);
    SWIFTKV_TILE_PRODUCT(3, 4, 5)
  }
  static void Step(const StripInputs& in, int64_t step, const std::byte* w) {
    _tile_loadd(4, in.x + step * kTileRowBytes, in.row_bytes);
    _tile_stream_loadd(5, w, kWeightRowBytes);
    SWIFTKV_TILE_PRODUCT(0, 4, 5)
    _tile_stream_loadd(6, w + kTileSize * kColumnBytes, kWeightRowBytes);
    SWIFTKV_TILE_PRODUCT(1, 4, 6)
    _tile_stream_loadd(7, w + 2 * kTileSize * kColumnBytes, kWeightRowBytes);
    SWIFTKV_TILE_PRODUCT(2, 4, 7)
    _tile_stream_loadd(5, w + 3 * kTileSize * kColumnBytes, kWeightRowBytes);
    SWIFTKV_TILE_PRODUCT(3, 4, 5)
  }
};
using Bf16SquareBlock = SquareBlock<AmxBf16>;

#undef SWIFTKV_TURN_TILE
#undef SWIFTKV_TILE_PRODUCT

template <class Block>
void StoreSums(float* sums) {
  _tile_stored(0, sums + Block::kSumOffsets[0], Block::kSumRowBytes);
  _tile_stored(1, sums + Block::kSumOffsets[1], Block::kSumRowBytes);
  _tile_stored(2, sums + Block::kSumOffsets[2], Block::kSumRowBytes);
  _tile_stored(3, sums + Block::kSumOffsets[3], Block::kSumRowBytes);
}

template <class Block>
void ConfigureTiles(int64_t strip_rows) {
  TileConfig config;
  std::fill_n(config.row_bytes, 8, uint16_t{kTileRowBytes});
  std::fill_n(config.rows, 8, uint8_t{kTileSize});
  Block::SetTileRows(strip_rows, config.rows);
  LoadTileConfig(config);
}

// Rows of memory on their way into the L2 cache while the tiles work.
class Fetch {
 public:
  Fetch() = default;
  Fetch(const void* data, int64_t rows, int64_t row_bytes, int64_t stride_bytes, int64_t lines_per_step)
      : row_(static_cast<const char*>(data)),
        rows_(rows),
        row_bytes_(row_bytes),
        stride_bytes_(stride_bytes),
        lines_per_step_(lines_per_step) {}

  void Step() {
    for (int64_t i = 0; i < lines_per_step_ && rows_ > 0; ++i) {
      _mm_prefetch(row_ + offset_, _MM_HINT_T1);
      offset_ += kTileRowBytes;
      if (offset_ >= row_bytes_) {
        offset_ = 0;
        row_ += stride_bytes_;
        --rows_;
      }
    }
  }

 private:
  const char* row_ = nullptr;
  int64_t rows_ = 0;
  int64_t row_bytes_ = 0;
  int64_t stride_bytes_ = 0;
  int64_t lines_per_step_ = 0;
  int64_t offset_ = 0;
};

// Copies inputs, with zeros up to a multiple of a tile's depth.
inline constexpr int64_t kCopyStride = kMaxSectionK + kTileDepth;  // an odd number of cache lines
inline void CopyInputs(const BFloat16* x, int64_t x_stride, int64_t rows, int64_t k_size, BFloat16* copy) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t k = 0; k < k_size; k += kTileDepth) {
      const __mmask32 real = k_size - k >= kTileDepth ? ~__mmask32{0} : (__mmask32{1} << (k_size - k)) - 1;
      _mm512_storeu_si512(copy + i * kCopyStride + k, _mm512_maskz_loadu_epi16(real, x + i * x_stride + k));
    }
  }
  // GCC's tile loads are not known to the compiler as reads of memory.
  __asm__ volatile("" ::: "memory");
}

// A vector of finished sums before bias and accumulation; `exact` as `sums`, or null.
inline Vec ValueOf(const GemmArgs& /*args*/, int64_t /*row*/, int64_t /*column*/, const float* sums,
                   const float* /*exact*/) {
  return Load(sums);
}
inline Vec ValueOf(const Int8Args& args, int64_t row, int64_t column, const float* sums, const float* exact) {
  const IntVec ints = LoadInts(reinterpret_cast<const int32_t*>(sums));
  return ScaledSum(ints, Load(args.column_scales + column), Set(args.row_scales[row]),
                   exact == nullptr ? Zero() : Load(exact));
}

// Bias, accumulation and store for rows of kColumns sums, all of them real columns. The same sums in the same order as
// FinishVector.
template <int64_t kColumns, class T, class Args>
void FinishWholeRows(const Args& args, int64_t row, int64_t rows, int64_t column, const float* sums,
                     const float* exact) {
  constexpr int kVectors = kColumns / kLanes;
  Vec bias[kVectors];
  for (int j = 0; j < kVectors; ++j) {
    bias[j] = args.bias != nullptr ? Load(args.bias + column + j * kLanes) : Set(-0.0f);  // x + -0 = x for every x
  }
  T* y = static_cast<T*>(args.y) + row * args.y_stride + column;
  for (int64_t i = 0; i < rows; ++i, y += args.y_stride) {
    SWIFTKV_UNROLL
    for (int j = 0; j < kVectors; ++j) {
      const int64_t offset = i * kColumns + j * kLanes;
      Vec sum = ValueOf(args, row + i, column + j * kLanes, sums + offset, exact == nullptr ? nullptr : exact + offset);
      sum = sum + bias[j];
      if (std::is_same_v<T, float> && args.accumulate) sum = sum + Load(y + j * kLanes);
      Store(y + j * kLanes, sum);
    }
  }
}

template <int64_t kColumns, class Args>
void FinishBlock(const Args& args, int64_t row, int64_t rows, int64_t column, const float* sums, const float* exact) {
  if (column + kColumns > args.w->n) {
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < kColumns; j += kLanes) {
        const int64_t offset = i * kColumns + j;
        const float* exact_sums = exact == nullptr ? nullptr : exact + offset;
        FinishVector(args, row + i, column + j, ValueOf(args, row + i, column + j, sums + offset, exact_sums));
      }
    }
  } else if (args.y_dtype == DType::kBF16) {
    FinishWholeRows<kColumns, BFloat16>(args, row, rows, column, sums, exact);
  } else {
    FinishWholeRows<kColumns, float>(args, row, rows, column, sums, exact);
  }
}

// Gates of rows of kColumns sums, as Gemm would have stored them.
template <int64_t kColumns, class Args>
void FinishGates(const Args& args, int64_t row, int64_t rows, int64_t column, const float* sums, const float* exact,
                 BFloat16* gates) {
  for (int64_t i = 0; i < rows; ++i) {
    SWIFTKV_UNROLL
    for (int64_t j = 0; j < kColumns; j += kLanes) {
      const int64_t offset = i * kColumns + j;
      Vec gate = ValueOf(args, row + i, column + j, sums + offset, exact == nullptr ? nullptr : exact + offset);
      if (args.bias != nullptr) gate = gate + Load(args.bias + column + j);
      Store(gates + offset, gate);
    }
  }
}

// y = silu(gate) * up in bf16 for rows of kColumns sums: `gates` are a block's as Gemm would have stored them, `sums`
// those of their ups.
template <int64_t kColumns, class Args>
void FinishGatedBlock(const Args& args, int64_t row, int64_t rows, int64_t gate_column, int64_t up_column,
                      const BFloat16* gates, const float* sums, const float* exact) {
  BFloat16* y = static_cast<BFloat16*>(args.y) + row * args.y_stride + gate_column;
  for (int64_t i = 0; i < rows; ++i, y += args.y_stride) {
    SWIFTKV_UNROLL
    for (int64_t j = 0; j < kColumns; j += kLanes) {
      const int64_t offset = i * kColumns + j;
      Vec up = ValueOf(args, row + i, up_column + j, sums + offset, exact == nullptr ? nullptr : exact + offset);
      if (args.bias != nullptr) up = up + Load(args.bias + up_column + j);
      Store(y + j, Silu(Load(gates + offset), y) * WidenBits(NarrowBits(up)));
    }
  }
}

// Rows [row, row + rows) times panels [panel, panel + panels). This thread will probably go on with next_panel.
struct AmxItem {
  int64_t row, rows, panel, panels, next_panel;
  int64_t up = 0;  // how far behind a panel of gates that of their ups lies; 0: y is the product itself
};

// Computes one item in blocks of one kind.
template <class Op, template <class> class BlockOf>
class AmxWorker {
 public:
  using Args = typename Op::Args;
  using Element = typename Op::Element;
  using Block = BlockOf<Op>;
  using ExactBlock = BlockOf<AmxBf16>;

  AmxWorker(const Args& args, const PackedLayout& layout, const AmxItem& item)
      : args_(args),
        layout_(layout),
        item_(item),
        strips_((item.rows + Block::kRows - 1) / Block::kRows),
        strip_blocks_(Panels() * kPanelColumns / Block::kColumns) {
    const int64_t blocks = 1 + (SumsWait() ? strips_ * strip_blocks_ : 2) + (HasExact() ? 2 : 0);
    const int64_t gate_bytes = IsGated() ? kBlockSums * static_cast<int64_t>(sizeof(BFloat16)) : 0;
    const int64_t sum_bytes = blocks * kBlockSums * static_cast<int64_t>(sizeof(float));
    const int64_t copy_bytes = Op::kIsInt8 ? 0 : Block::kRows * kCopyStride * kBytes;
    // Block-quantized weights: a few rows of inputs use each weight once, so that one step's are enough.
    const int64_t panel_bytes = kMaxSectionK * kPanelColumns * kBytes;
    const bool dequantizes = IsQuantized(args.w->dtype);
    const int64_t weight_bytes = !dequantizes ? 0 : kIsFlat ? 2 * kPanelStepBytes : Panels() * panel_bytes;
    std::byte* scratch = ThreadScratch(sum_bytes + gate_bytes + copy_bytes + weight_bytes);
    sums_ = reinterpret_cast<float*>(scratch);
    exact_sums_ = HasExact() ? sums_ + (blocks - 2) * kBlockSums : nullptr;
    gates_ = reinterpret_cast<BFloat16*>(scratch + sum_bytes);
    copy_ = reinterpret_cast<BFloat16*>(scratch + sum_bytes + gate_bytes);
    if (dequantizes) dequantized_ = scratch + sum_bytes + gate_bytes + copy_bytes;
  }

  void Run() {
    int64_t configured_rows = 0;
    for (int64_t section = 0; section < layout_.sections(); ++section) {
      if (dequantized_ != nullptr && !kIsFlat) Dequantize(section);
      Fetch weights = WeightsToFetch(section);
      for (int64_t strip = 0; strip < strips_; ++strip) {
        if (StripRows(strip) != configured_rows) {
          configured_rows = StripRows(strip);
          ConfigureTiles<Block>(configured_rows);
        }
        weights = ComputeStrip(section, strip, weights);
      }
    }
    _tile_release();
  }

 private:
  static constexpr bool kIsFlat = std::is_same_v<Block, FlatBlock<Op>>;
  static constexpr int64_t kBytes = sizeof(Element);
  static constexpr int64_t kDepth = kTileRowBytes / kBytes;
  // Of a flat block, which is done with weights sooner than memory sends them: its tiles go through a step's 4 KiB four
  // times, which hides from the processor that they are read in order.
  static constexpr int64_t kStepsAhead = 3;

  bool IsGated() const { return item_.up > 0; }
  int64_t Panels() const { return IsGated() ? 2 * item_.panels : item_.panels; }
  // The item's panel i of all, and the inverse.
  int64_t PanelAt(int64_t i) const { return item_.panel + (i < item_.panels ? i : i - item_.panels + item_.up); }
  int64_t IndexOf(int64_t panel) const {
    const int64_t i = panel - item_.panel;
    return i < item_.panels ? i : i - item_.up + item_.panels;
  }
  // First column of a block; if gated, blocks of gates and of ups take turns.
  int64_t Column(int64_t block) const {
    if (!IsGated()) return item_.panel * kPanelColumns + block * Block::kColumns;
    return (item_.panel + block % 2 * item_.up) * kPanelColumns + block / 2 * Block::kColumns;
  }
  bool SumsWait() const { return layout_.sections() > 1; }
  bool HasExact() const {
    if constexpr (Op::kIsInt8) return args_.exact_x != nullptr;
    return false;
  }
  int64_t StripRow(int64_t strip) const { return item_.row + strip * Block::kRows; }
  int64_t StripRows(int64_t strip) const { return std::min(Block::kRows, item_.row + item_.rows - StripRow(strip)); }
  const std::byte* Weights(int64_t section, int64_t panel) const {
    if (dequantized_ != nullptr && !kIsFlat) {
      return dequantized_ + IndexOf(panel) * layout_.PaddedSectionSize(section) * kPanelColumns * kBytes;
    }
    return args_.w->data.data() + layout_.Offset(section, panel) * kBytes;
  }
  const std::byte* Inputs(int64_t section, int64_t strip) const {
    return static_cast<const std::byte*>(args_.x) +
           (StripRow(strip) * args_.x_stride + layout_.SectionBegin(section)) * kBytes;
  }

  // In place, unless tiles would read beyond the rows or all rows would share a few sets of the L1 cache.
  StripInputs ReadyInputs(int64_t section, int64_t strip) const {
    const std::byte* x = Inputs(section, strip);
    const int64_t k_size = layout_.SectionSize(section);
    if (Op::kIsInt8 || (k_size % kDepth == 0 && args_.x_stride % 1024 != 0)) return {x, args_.x_stride * kBytes};
    CopyInputs(reinterpret_cast<const BFloat16*>(x), args_.x_stride, StripRows(strip), k_size, copy_);
    return {reinterpret_cast<const std::byte*>(copy_), kCopyStride * kBytes};
  }

  // The weights after these: of the next section, else of the next item. All of them by the end of the last strip.
  Fetch WeightsToFetch(int64_t section) const {
    if (kIsFlat || dequantized_ != nullptr) return {};
    const int64_t next_section = (section + 1) % layout_.sections();
    const int64_t panel = next_section > 0 ? item_.panel : item_.next_panel;
    const int64_t end = IsGated() ? item_.up : layout_.panels();
    if (panel >= end) return {};
    const int64_t panel_bytes = layout_.PaddedSectionSize(next_section) * kPanelColumns * kBytes;
    const int64_t bytes = std::min(item_.panels, end - panel) * panel_bytes;
    const int64_t lines_per_block_step = kPanelStepBytes * Block::kColumns / kPanelColumns / kTileRowBytes;
    return {Weights(next_section, panel), IsGated() ? 2 : 1, bytes, item_.up * panel_bytes,
            (lines_per_block_step + strips_ - 1) / strips_};
  }

  Fetch InputsToFetch(int64_t section, int64_t strip) const {
    if (strip == strips_) return {};
    return {Inputs(section, strip), StripRows(strip), layout_.SectionSize(section) * kBytes, args_.x_stride * kBytes,
            2};
  }

  // Returns what is left to fetch of the weights.
  Fetch ComputeStrip(int64_t section, int64_t strip, Fetch weights) const {
    const StripInputs in = ReadyInputs(section, strip);
    Fetch inputs = InputsToFetch(section, strip + 1);
    const int64_t steps = layout_.PaddedSectionSize(section) / kDepth;
    const bool last = section + 1 == layout_.sections();
    float* before = sums_;              // where the first block leaves what was in the tiles
    float* before_exact = exact_sums_;  // the same of the exact products, which come last in each block
    for (int64_t block = 0; block < strip_blocks_; ++block) {
      const int64_t column = Column(block);
      const std::byte* w = Weights(section, column / kPanelColumns) + column % kPanelColumns * kColumnBytes;
      float* sums = sums_ + (1 + (SumsWait() ? strip * strip_blocks_ + block : block % 2)) * kBlockSums;
      const bool in_exact = last && HasExact() && block > 0;  // what the tiles hold
      Block::FirstStep(in, StepWeights(section, block, 0, w), section > 0 ? sums : nullptr,
                       in_exact ? before_exact : before);
      for (int64_t step = 1; step < steps; ++step) {
        Block::Step(in, step, StepWeights(section, block, step, w));
        weights.Step();
        inputs.Step();
      }
      if (last && block > 0) Finish(strip, block - 1, before, before_exact);
      before = sums;
      if (last && HasExact()) {
        before_exact = exact_sums_ + block % 2 * kBlockSums;
        ExactStep(strip, block, sums);
      }
    }
    if (last && HasExact()) {
      StoreSums<Block>(before_exact);
    } else {
      StoreSums<Block>(before);
    }
    if (last) Finish(strip, strip_blocks_ - 1, before, before_exact);
    return weights;
  }

  // Takes the block's sums out of the tiles and starts them with the products of the exact features.
  void ExactStep(int64_t strip, int64_t block, float* sums) const {
    if constexpr (Op::kIsInt8) {
      const int64_t column = Column(block);
      const auto* x = reinterpret_cast<const std::byte*>(args_.exact_x) + StripRow(strip) * kTileRowBytes;
      const auto* w = reinterpret_cast<const std::byte*>(args_.exact_w + column / kPanelColumns * kExactPanelElements) +
                      column % kPanelColumns * kColumnBytes;
      ExactBlock::FirstStep({x, kTileRowBytes}, w, nullptr, sums);
    }
  }

  // The weights of one step of a block, where `w` are those of the block's first step.
  const std::byte* StepWeights(int64_t section, int64_t block, int64_t step, const std::byte* w) const {
    if (!kIsFlat || dequantized_ == nullptr) {
      const std::byte* weights = w + step * kPanelStepBytes;
      if (kIsFlat) FetchLines(weights + kStepsAhead * kPanelStepBytes, kPanelStepBytes);
      return weights;
    }
    std::byte* out = dequantized_ + step % 2 * kPanelStepBytes;
    const int64_t panel = Column(block) / kPanelColumns;
    DequantizeStep(*args_.w, layout_, section, panel, step * kDepth, reinterpret_cast<BFloat16*>(out));
    __asm__ volatile("" ::: "memory");
    return out;
  }

  // All of the item's panels in one section.
  void Dequantize(int64_t section) {
    const int64_t panel_elements = layout_.PaddedSectionSize(section) * kPanelColumns;
    auto* out = reinterpret_cast<BFloat16*>(dequantized_);
    for (int64_t i = 0; i < Panels(); ++i) {
      DequantizePanel(*args_.w, layout_, section, PanelAt(i), out + i * panel_elements);
    }
    // GCC's tile loads are not known to the compiler as reads of memory.
    __asm__ volatile("" ::: "memory");
  }

  void Finish(int64_t strip, int64_t block, const float* sums, const float* exact) const {
    const int64_t row = StripRow(strip);
    const int64_t rows = StripRows(strip);
    const int64_t column = Column(block);
    if (!IsGated()) {
      FinishBlock<Block::kColumns>(args_, row, rows, column, sums, exact);
    } else if (block % 2 == 0) {
      FinishGates<Block::kColumns>(args_, row, rows, column, sums, exact, gates_);
    } else {
      FinishGatedBlock<Block::kColumns>(args_, row, rows, column - item_.up * kPanelColumns, column, gates_, sums,
                                        exact);
    }
  }

  const Args& args_;
  const PackedLayout& layout_;
  const AmxItem& item_;
  int64_t strips_;
  int64_t strip_blocks_;
  float* sums_;        // [1 + blocks] of kBlockSums
  float* exact_sums_;  // [2] of kBlockSums; null: none
  BFloat16* gates_;    // a block's, if gated
  BFloat16* copy_;     // [Block::kRows, kCopyStride]
  // If block-quantized: bf16 [panels, section / 2, 64, 2] of the running section; in flat blocks two steps.
  std::byte* dequantized_ = nullptr;
};

// Full strips in square blocks, and a rest of at most 16 rows in flat ones.
template <class Op>
void ComputeAmxItem(const typename Op::Args& args, const PackedLayout& layout, const AmxItem& item) {
  constexpr int64_t kStripRows = SquareBlock<Op>::kRows;
  const int64_t rest = item.rows % kStripRows;
  AmxItem square = item;
  AmxItem flat = item;
  flat.rows = rest <= kTileSize ? rest : 0;
  square.rows -= flat.rows;
  flat.row += square.rows;
  if (square.rows > 0) AmxWorker<Op, SquareBlock>(args, layout, square).Run();
  if (flat.rows > 0) AmxWorker<Op, FlatBlock>(args, layout, flat).Run();
}

// `gated`: w holds as many whole panels of gates as of ups, and y [m, n / 2] in bf16 gets silu(gate) * up.
template <class Op>
void RunAmxGemm(const typename Op::Args& args, bool gated) {
  constexpr int64_t kStripRows = SquareBlock<Op>::kRows;
  const PackedLayout layout(*args.w);
  const int64_t parts = gated ? 2 : 1;
  const int64_t all_panels = layout.panels() / parts;
  // At most what keeps an item's weights of a section and its waiting sums in an L2 cache of 2 MiB; less, until there
  // is work for all cores. With fewer than four panels a strip's inputs would not be used enough.
  const int64_t least_panels = args.m > kStripRows ? 4 / parts : 1;
  int64_t panels = 8 / parts;
  int64_t rows = std::min<int64_t>(512, RoundUp(args.m, kStripRows));
  const auto group_count = [&] { return (all_panels + panels - 1) / panels; };
  const auto row_count = [&] { return (args.m + rows - 1) / rows; };
  while (group_count() * row_count() < 4 * Threads()) {
    if (panels > least_panels) {
      panels /= 2;
    } else if (rows > 2 * kStripRows) {
      rows = RoundUp(rows / 2, kStripRows);
    } else {
      break;
    }
  }
  const int64_t groups = group_count();
  const int64_t row_blocks = row_count();
  const auto first_panel = [&](int64_t index) { return index / row_blocks * all_panels / groups; };
  ParallelFor(groups * row_blocks, [&](int64_t index) {
    const int64_t row = index % row_blocks * rows;
    const int64_t panel = first_panel(index);
    ComputeAmxItem<Op>(args, layout,
                       {.row = row,
                        .rows = std::min(rows, args.m - row),
                        .panel = panel,
                        .panels = first_panel(index + row_blocks) - panel,
                        .next_panel = first_panel(index + Threads()),
                        .up = gated ? all_panels : 0});
  });
}

}  // namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE
