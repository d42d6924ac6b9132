// y = x wᵀ + bias on packed weights (packed_layout.h).
//
// A work item is one panel of 64 output features for a block of rows. Tiles of kTileRows rows keep their sums in
// registers over a whole section of K; between sections the sums wait in scratch, exactly as they were.
namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE {

inline constexpr int64_t kMaxRowBlock = 192;
// Up to this many rows a product waits for its weights.
inline constexpr int64_t kFewRows = 64;
inline constexpr int64_t kRunsPerThread = 2;

// Bias, accumulation and the store of one vector of finished sums; columns beyond n vanish.
inline void FinishVector(const GemmArgs& args, int64_t row, int64_t column, Vec sum) {
  const int64_t columns = args.w->n - column;
  if (columns <= 0) return;
  if (args.bias != nullptr) sum = sum + LoadUpTo(args.bias + column, columns);
  const int64_t offset = row * args.y_stride + column;
  if (args.y_dtype == DType::kBF16) return StoreUpTo(static_cast<BFloat16*>(args.y) + offset, sum, columns);
  float* y = static_cast<float*>(args.y) + offset;
  if (args.accumulate) sum = sum + LoadUpTo(y, columns);
  StoreUpTo(y, sum, columns);
}

// As FinishVector, for a tile that has nothing but real columns.
template <class T, bool kAccumulate, int kRows, int kVectors>
void FinishWholeTile(const GemmArgs& args, int64_t row, int64_t column, const Vec (&sums)[kRows][kVectors]) {
  Vec bias[kVectors];
  for (int j = 0; j < kVectors; ++j) {
    bias[j] = args.bias != nullptr ? Load(args.bias + column + j * kLanes) : Set(-0.0f);  // x + -0 = x for every x
  }
  T* y = static_cast<T*>(args.y) + row * args.y_stride + column;
  SWIFTKV_UNROLL
  for (int i = 0; i < kRows; ++i, y += args.y_stride) {
    SWIFTKV_UNROLL
    for (int j = 0; j < kVectors; ++j) {
      Vec sum = sums[i][j] + bias[j];
      if (kAccumulate) sum = sum + Load(y + j * kLanes);
      Store(y + j * kLanes, sum);
    }
  }
}
template <int kRows, int kVectors>
void FinishTile(const GemmArgs& args, int64_t row, int64_t column, const Vec (&sums)[kRows][kVectors]) {
  if (column + kVectors * kLanes > args.w->n) {
    for (int i = 0; i < kRows; ++i) {
      for (int j = 0; j < kVectors; ++j) FinishVector(args, row + i, column + j * kLanes, sums[i][j]);
    }
  } else if (args.y_dtype == DType::kBF16) {
    FinishWholeTile<BFloat16, false>(args, row, column, sums);
  } else if (args.accumulate) {
    FinishWholeTile<float, true>(args, row, column, sums);
  } else {
    FinishWholeTile<float, false>(args, row, column, sums);
  }
}
inline void FetchFinish(const GemmArgs& /*args*/, int64_t /*panel*/) {}  // what FinishTile reads: nothing
inline void LoadSum(const float* p, Vec* sum) { *sum = Load(p); }
inline void StoreSum(float* p, Vec sum) { Store(p, sum); }

// Adds a section's products to kRows x (kVectors * kLanes) sums. They start from zero in the first section and from
// `carry` [row, 64] in the others, and end in args.y after the last section, else in carry.
template <class Dot, int kRows, int kVectors>
void GemmTile(const typename Dot::Args& args, const typename Dot::Input* x, int64_t x_stride,
              const typename Dot::Weight* w, int64_t steps, int64_t row, int64_t column, bool first, bool last,
              float* carry) {
  typename Dot::Sum sums[kRows][kVectors];
  if (first) {
    SetZero(sums);
  } else {
    SWIFTKV_UNROLL
    for (int i = 0; i < kRows; ++i) {
      SWIFTKV_UNROLL
      for (int j = 0; j < kVectors; ++j) LoadSum(carry + i * kPanelColumns + j * kLanes, &sums[i][j]);
    }
  }
  const typename Dot::Weight* columns[kVectors];
  SWIFTKV_UNROLL
  for (int j = 0; j < kVectors; ++j) columns[j] = w + j * kLanes * Dot::kDepth;
  for (int64_t step = 0; step < steps; ++step) {
    TileStep<Dot>(x + step * Dot::kDepth, x_stride, columns, step * kPanelColumns * Dot::kDepth, sums);
  }
  if (!last) {
    SWIFTKV_UNROLL
    for (int i = 0; i < kRows; ++i) {
      SWIFTKV_UNROLL
      for (int j = 0; j < kVectors; ++j) StoreSum(carry + i * kPanelColumns + j * kLanes, sums[i][j]);
    }
    return;
  }
  // GCC 12 keeps an array in memory, stored in every step, whose address another function gets.
  typename Dot::Sum finished[kRows][kVectors];
  SWIFTKV_UNROLL
  for (int i = 0; i < kRows; ++i) {
    SWIFTKV_UNROLL
    for (int j = 0; j < kVectors; ++j) finished[i][j] = sums[i][j];
  }
  FinishTile(args, row, column, finished);
}

// All 64 columns of kRows rows.
template <class Dot, int kRows>
void GemmRows(const typename Dot::Args& args, const typename Dot::Input* x, int64_t x_stride,
              const typename Dot::Weight* w, int64_t steps, int64_t row, int64_t panel, bool first, bool last,
              float* carry) {
  // Few rows leave registers for more columns, and with them more loads in flight.
  constexpr int kVectors = kRows <= 2 ? 4 : kTileVectors;
  for (int64_t j = 0; j < kPanelColumns; j += kVectors * kLanes) {
    GemmTile<Dot, kRows, kVectors>(args, x, x_stride, w + j * Dot::kDepth, steps, row, panel * kPanelColumns + j, first,
                                   last, carry + j);
  }
}

// The inputs of a tile as Dot reads them: in place where types and sizes fit, else converted into `copy`. Quantized
// ones fit: zeros stand behind them.
template <class Dot>
const typename Dot::Input* TileInputs(const typename Dot::Args& args, int64_t row, int64_t rows, int64_t k_begin,
                                      int64_t k_size, typename Dot::Input* copy, int64_t* stride) {
  const auto* x = static_cast<const typename Dot::Weight*>(args.x) + row * args.x_stride + k_begin;
  if constexpr (std::is_same_v<typename Dot::Input, typename Dot::Weight>) {
    if (k_size % Dot::kDepth == 0 || std::is_same_v<typename Dot::Input, int8_t>) {
      *stride = args.x_stride;
      return x;
    }
  }
  if constexpr (!std::is_same_v<typename Dot::Input, int8_t>) {
    *stride = kMaxSectionK;
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t padded = RoundUp(k_size, Dot::kDepth);
      for (int64_t k = 0; k < padded; k += kLanes) {
        Store(copy + i * kMaxSectionK + k, LoadUpTo(x + i * args.x_stride + k, k_size - k));
      }
    }
  }
  return copy;
}

// All rows of an item, kRows, times a panel of block-quantized weights, each of which is multiplied as soon as it is
// converted: so few rows would spend more time on storing and loading bf16 than on products.
template <class Unit, int kRows>
void ComputeConverted(const GemmArgs& args, const PackedLayout& layout, int64_t row, int64_t panel) {
  using Input = DotBf16::Input;
  constexpr int kVectors = kPanelColumns / kLanes;
  auto* copy = reinterpret_cast<Input*>(ThreadScratch(kRows * kMaxSectionK * static_cast<int64_t>(sizeof(Input))));
  Vec sums[kRows][kVectors];
  SetZero(sums);
  for (int64_t section = 0; section < layout.sections(); ++section) {
    const std::byte* unit = args.w->data.data() + layout.Offset(section, panel) / kUnitElements * Unit::kBytes;
    const int64_t k_size = layout.SectionSize(section);
    int64_t stride = 0;
    const Input* x = TileInputs<DotBf16>(args, row, kRows, layout.SectionBegin(section), k_size, copy, &stride);
    for (int64_t k = 0; k < k_size; k += kQuantizedBlock, unit += Unit::kBytes) {
      for (int j = 0; j < kVectors; ++j) {
        Vec block_sums[kRows];
        for (int i = 0; i < kRows; ++i) block_sums[i] = sums[i][j];
        ForPairs<Unit>(unit, j * kLanes, [&](int64_t pair, Vec even, Vec odd) {
          const DotBf16::Step w = DotBf16::RoundStep(even, odd);
          SWIFTKV_UNROLL
          for (int i = 0; i < kRows; ++i) {
            block_sums[i] = DotBf16::AccumulateStep(x + i * stride + k + pair, w, block_sums[i]);
          }
        });
        for (int i = 0; i < kRows; ++i) sums[i][j] = block_sums[i];
      }
    }
  }
  FinishTile(args, row, panel * kPanelColumns, sums);
}
inline constexpr int64_t kConvertedRows = 4;
inline void ComputeConverted(const GemmArgs& args, const PackedLayout& layout, int64_t row, int64_t rows,
                             int64_t panel) {
  VisitUnit(args.w->dtype, [&](auto type) {
    using Unit = decltype(type);
    if (rows == 1) return ComputeConverted<Unit, 1>(args, layout, row, panel);
    if (rows == 2) return ComputeConverted<Unit, 2>(args, layout, row, panel);
    if (rows == 3) return ComputeConverted<Unit, 3>(args, layout, row, panel);
    ComputeConverted<Unit, 4>(args, layout, row, panel);
  });
}

template <class Dot>
void ComputeItem(const typename Dot::Args& args, const PackedLayout& layout, int64_t row_begin, int64_t row_count,
                 int64_t panel) {
  using Input = typename Dot::Input;
  if constexpr (std::is_same_v<Dot, DotBf16>) {
    if (IsQuantized(args.w->dtype) && row_count <= kConvertedRows) {
      return ComputeConverted(args, layout, row_begin, row_count, panel);
    }
  }
  constexpr int64_t kCarryBytes = kMaxRowBlock * kPanelColumns * static_cast<int64_t>(sizeof(float));
  constexpr int64_t kCopyBytes = kTileRows * kMaxSectionK * static_cast<int64_t>(sizeof(Input));
  constexpr int64_t kPanelBytes = kMaxSectionK * kPanelColumns * static_cast<int64_t>(sizeof(BFloat16));
  std::byte* scratch = ThreadScratch(kCarryBytes + kCopyBytes + kPanelBytes);
  float* carry = reinterpret_cast<float*>(scratch);
  Input* copy = reinterpret_cast<Input*>(scratch + kCarryBytes);
  for (int64_t section = 0; section < layout.sections(); ++section) {
    const PackedMatrix& matrix = *args.w;
    const auto* w = matrix.data.as<typename Dot::Weight>() + layout.Offset(section, panel);
    if constexpr (std::is_same_v<typename Dot::Weight, BFloat16>) {
      if (IsQuantized(args.w->dtype)) {
        auto* dequantized = reinterpret_cast<BFloat16*>(scratch + kCarryBytes + kCopyBytes);
        DequantizePanel(*args.w, layout, section, panel, dequantized);
        w = dequantized;
      }
    }
    const int64_t k_size = layout.SectionSize(section);
    const int64_t steps = (k_size + Dot::kDepth - 1) / Dot::kDepth;
    const bool first = section == 0;
    const bool last = section + 1 == layout.sections();
    if (last) FetchFinish(args, panel);
    for (int64_t r = 0; r < row_count; r += kTileRows) {
      const int64_t row = row_begin + r;
      const int64_t rows = std::min<int64_t>(kTileRows, row_count - r);
      int64_t stride = 0;
      const Input* x = TileInputs<Dot>(args, row, rows, layout.SectionBegin(section), k_size, copy, &stride);
      float* tile_carry = carry + r * kPanelColumns;
      const auto run = [&](auto tile_rows) {
        GemmRows<Dot, decltype(tile_rows)::value>(args, x, stride, w, steps, row, panel, first, last, tile_carry);
      };
      switch (rows) {
        case 1:
          run(std::integral_constant<int, 1>());
          break;
        case 2:
          run(std::integral_constant<int, 2>());
          break;
        case 3:
          run(std::integral_constant<int, 3>());
          break;
        case 4:
          run(std::integral_constant<int, 4>());
          break;
        case 5:
          run(std::integral_constant<int, 5>());
          break;
        default:
          run(std::integral_constant<int, 6>());
          break;
      }
    }
  }
}

// `parts` of w that lie one behind another, as many panels each: an item has a panel of all. Then finish_item(first
// row, rows, panel of the first part).
template <class Dot, class FinishItem>
void RunGemm(const typename Dot::Args& args, int64_t parts, const FinishItem& finish_item) {
  const PackedLayout layout(*args.w);
  const int64_t panels = layout.panels() / parts;
  // Enough items to balance the load, yet rows enough per item to use a panel while the cache holds it.
  const int64_t wanted_blocks = (4 * Threads() + panels - 1) / panels;
  const int64_t row_block =
      std::clamp(RoundUp((args.m + wanted_blocks - 1) / wanted_blocks, kTileRows), int64_t{kTileRows}, kMaxRowBlock);
  const int64_t row_blocks = (args.m + row_block - 1) / row_block;
  // Memory is quicker the fewer places it is read at.
  const int64_t runs = args.m <= kFewRows ? std::min(panels, kRunsPerThread * Threads()) : panels;
  ParallelFor(row_blocks * runs, [&](int64_t index) {
    const int64_t row = index / runs * row_block;
    const int64_t rows = std::min(row_block, args.m - row);
    const int64_t run = index % runs;
    for (int64_t panel = run * panels / runs; panel < (run + 1) * panels / runs; ++panel) {
      for (int64_t part = 0; part < parts; ++part) ComputeItem<Dot>(args, layout, row, rows, part * panels + panel);
      finish_item(row, rows, panel);
    }
  });
}
template <class Dot>
void RunGemm(const typename Dot::Args& args) {
  RunGemm<Dot>(args, 1, [](int64_t /*row*/, int64_t /*rows*/, int64_t /*panel*/) {});
}

}  // namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE
