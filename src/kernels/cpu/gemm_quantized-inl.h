// Products with block-quantized weights (quantized_layout.h) as they are, for matrices with int8_inputs: each block of
// 32 inputs is quantized, too. Sums of 32 products are exact in int32; they are scaled and added up in float32 in the
// order of the input features, with the same two or three roundings a block on every instruction set.
namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE {

inline constexpr int64_t kStripRows = 16;
inline constexpr int64_t kUnitRows = 32;  // rows of inputs that pass over a unit of weights together

// One block of 16 rows of inputs.
struct StripBlock {
  float scales[kStripRows];
  float totals[kStripRows];    // sum of the codes, scaled: what the minimum is multiplied by
  int32_t excess[kStripRows];  // 128 times the sum of the codes
};

// The product with quantized inputs: x is int8 [m, k].
struct QuantizedArgs : GemmArgs {
  const StripBlock* strips = nullptr;  // [m / 16, rounded up, blocks]
  int64_t blocks = 0;                  // k / 32

  const int8_t* Codes(int64_t row) const { return static_cast<const int8_t*>(x) + row * x_stride; }
  const StripBlock& Strip(int64_t row, int64_t block) const {
    return strips[static_cast<uint64_t>(row) / kStripRows * static_cast<uint64_t>(blocks) +
                  static_cast<uint64_t>(block)];
  }
};

template <int kBits>
auto LoadBlock(const uint32_t* words) {
  if constexpr (kBits == 4) {
    return LoadNibbleBlock(words, kUnitColumns);
  } else {
    return LoadByteBlock(words, kUnitColumns);
  }
}

// Puts a block's codes into the order that DotBlock wants, and returns their sum.
template <int kBits>
int32_t FinishCodes(int8_t* codes) {
  auto* block = reinterpret_cast<__m256i*>(codes);
  const __m256i values = _mm256_loadu_si256(block);
  if (kBits == 4) {
    const __m256i order = _mm256_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15, 0, 2, 4, 6, 1, 3, 5, 7,
                                           8, 10, 12, 14, 9, 11, 13, 15);
    _mm256_storeu_si256(block, _mm256_shuffle_epi8(values, order));
  }
  const __m256i moved_up = _mm256_xor_si256(values, _mm256_set1_epi8(-128));
  const __m256i sums = _mm256_sad_epu8(moved_up, _mm256_setzero_si256());
  const __m128i halves = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
  return _mm_cvtsi128_si32(halves) + _mm_extract_epi32(halves, 2) - 128 * static_cast<int32_t>(kQuantizedBlock);
}

template <int kBits>
QuantizedArgs QuantizeBlocks(const GemmArgs& args) {
  QuantizedArgs out;
  static_cast<GemmArgs&>(out) = args;
  out.blocks = args.w->k / kQuantizedBlock;
  out.x_stride = RoundUp(args.w->k, 64) | 64;  // an odd number of cache lines: rows share no sets of the L1 cache
  const int64_t strips = (args.m + kStripRows - 1) / kStripRows;
  const int64_t strip_bytes = strips * out.blocks * static_cast<int64_t>(sizeof(StripBlock));
  std::byte* scratch = CallScratch(strip_bytes + args.m * out.x_stride);
  auto* blocks = reinterpret_cast<StripBlock*>(scratch);
  auto* codes = reinterpret_cast<int8_t*>(scratch + strip_bytes);
  out.strips = blocks;
  out.x = codes;
  ParallelFor(strips, [&](int64_t strip) {
    for (int64_t row = strip * kStripRows; row < std::min((strip + 1) * kStripRows, args.m); ++row) {
      const BFloat16* x = static_cast<const BFloat16*>(args.x) + row * args.x_stride;
      for (int64_t block = 0; block < out.blocks; ++block) {
        StripBlock& to = blocks[strip * out.blocks + block];
        int8_t* row_codes = codes + row * out.x_stride + block * kQuantizedBlock;
        const float scale = QuantizeRow(x + block * kQuantizedBlock, kQuantizedBlock, false, row_codes);
        const int32_t sum = FinishCodes<kBits>(row_codes);
        to.scales[row % kStripRows] = scale;
        to.totals[row % kStripRows] = static_cast<float>(sum) * scale;
        to.excess[row % kStripRows] = 128 * sum;
      }
    }
  });
  return out;
}

// How many units ahead of the products weights are fetched.
inline constexpr int64_t kProductUnitsAhead = 6;

// Fetches what the same columns of a later unit have.
template <int kBits>
void FetchUnit(const std::byte* unit, int64_t column, int64_t columns) {
  using Layout = QuantizedUnit<kBits>;
  const std::byte* ahead = unit + kProductUnitsAhead * Layout::kBytes;
  const auto fetch = [&](const std::byte* of_columns, int64_t bytes) {
    FetchLines<_MM_HINT_T0>(of_columns + column * bytes / kPanelColumns, columns * bytes / kPanelColumns);
  };
  fetch(ahead, Layout::kCodeBytes);
  fetch(ahead + Layout::kCodeBytes, Layout::kScaleBytes);
  if (kBits == 4) fetch(ahead + Layout::kCodeBytes + Layout::kScaleBytes, Layout::kScaleBytes);
}

// A vector of columns of a unit.
template <int kBits>
struct UnitVector {
  decltype(LoadBlock<kBits>(nullptr)) codes;
  Vec scale;
  Vec minimum;  // of 4 bits alone
};

template <int kBits>
UnitVector<kBits> LoadUnitVector(const std::byte* unit, int64_t column) {
  using Layout = QuantizedUnit<kBits>;
  const auto* scales = reinterpret_cast<const uint16_t*>(unit + Layout::kCodeBytes) + column;
  return {LoadBlock<kBits>(reinterpret_cast<const uint32_t*>(unit) + Layout::WordIndex(column, 0)), LoadHalf(scales),
          kBits == 4 ? LoadHalf(scales + kPanelColumns) : Zero()};
}

// Vectors of a unit that rows pass over at once: as many as registers hold.
template <int kBits>
inline constexpr int kVectorsAtOnce = kLanes == 16 && sizeof(UnitVector<kBits>::codes) == 8 * sizeof(Vec) ? 2 : 1;

// sum + the products with the block x of inputs, row i of its strip.
template <int kBits>
Vec AddProducts(const UnitVector<kBits>& w, const int8_t* x, const StripBlock& strip, int64_t i, Vec sum) {
  const Vec products = ToFloat(DotBlock(w.codes, x, strip.excess[i])) * w.scale;
  sum = MulAdd(products, Set(strip.scales[i]), sum);
  return kBits == 4 ? MulAdd(w.minimum, Set(strip.totals[i]), sum) : sum;
}

// Calls add(unit, block of inputs) for all units of a panel.
template <int kBits, class Add>
void ForUnits(const QuantizedArgs& args, const PackedLayout& layout, int64_t panel, const Add& add) {
  for (int64_t section = 0; section < layout.sections(); ++section) {
    const std::byte* unit =
        args.w->data.data() + layout.Offset(section, panel) / kUnitElements * QuantizedUnit<kBits>::kBytes;
    const int64_t first = layout.SectionBegin(section) / kQuantizedBlock;
    const int64_t blocks = layout.SectionSize(section) / kQuantizedBlock;
    for (int64_t i = 0; i < blocks; ++i, unit += QuantizedUnit<kBits>::kBytes) add(unit, first + i);
  }
}

// kRows rows from `row`, a multiple of 16, times kVectors vectors of columns from `begin`, with sums in registers: few
// rows wait for weights, and for every instruction between two loads of them.
template <int kBits, int kRows, int kVectors>
void ComputeFewRows(const QuantizedArgs& args, const PackedLayout& layout, int64_t row, int64_t panel, int64_t begin) {
  Vec sums[kRows][kVectors];
  SetZero(sums);
  ForUnits<kBits>(args, layout, panel, [&](const std::byte* unit, int64_t block) {
    const StripBlock& strip = args.Strip(row, block);
    const int8_t* x = args.Codes(row) + block * kQuantizedBlock;
    SWIFTKV_UNROLL
    for (int j = 0; j < kVectors; ++j) {
      FetchUnit<kBits>(unit, begin + j * kLanes, kLanes);
      const UnitVector<kBits> w = LoadUnitVector<kBits>(unit, begin + j * kLanes);
      SWIFTKV_UNROLL
      for (int i = 0; i < kRows; ++i) sums[i][j] = AddProducts(w, x + i * args.x_stride, strip, i, sums[i][j]);
    }
  });
  FinishTile(static_cast<const GemmArgs&>(args), row, panel * kPanelColumns + begin, sums);
}

// Adds the products of one block of inputs to sums [rows, 64], columns [begin, end), both multiples of 32. All sums of
// a row are stored after its last load, which a compiler can't know to be of other memory.
template <int kBits>
void AddUnit(const QuantizedArgs& args, const std::byte* unit, int64_t block, int64_t row, int64_t rows, int64_t begin,
             int64_t end, float* sums) {
  constexpr int kVectors = kVectorsAtOnce<kBits>;
  for (int64_t column = begin; column < end; column += kVectors * kLanes) {
    FetchUnit<kBits>(unit, column, kVectors * kLanes);
    UnitVector<kBits> w[kVectors];
    SWIFTKV_UNROLL
    for (int j = 0; j < kVectors; ++j) w[j] = LoadUnitVector<kBits>(unit, column + j * kLanes);
    const int8_t* x = args.Codes(row) + block * kQuantizedBlock;
    float* sum = sums + column;
    for (int64_t strip_row = 0; strip_row < rows; strip_row += kStripRows) {
      const StripBlock& strip = args.Strip(row + strip_row, block);
      const int64_t strip_rows = std::min(kStripRows, rows - strip_row);
      for (int64_t i = 0; i < strip_rows; ++i, x += args.x_stride, sum += kPanelColumns) {
        Vec totals[kVectors];
        SWIFTKV_UNROLL
        for (int j = 0; j < kVectors; ++j) totals[j] = AddProducts(w[j], x, strip, i, Load(sum + j * kLanes));
        SWIFTKV_UNROLL
        for (int j = 0; j < kVectors; ++j) Store(sum + j * kLanes, totals[j]);
      }
    }
  }
}

// Rows [row, row + rows), at most kUnitRows and row a multiple of 16, times columns [begin, end) of a panel.
template <int kBits>
void ComputeColumns(const QuantizedArgs& args, const PackedLayout& layout, int64_t row, int64_t rows, int64_t panel,
                    int64_t begin, int64_t end) {
  constexpr int kVectors = kPanelColumns / kLanes;
  const auto few_rows = [&](auto count) {
    if (end - begin == kPanelColumns) {
      ComputeFewRows<kBits, count.value, kVectors>(args, layout, row, panel, begin);
    } else {
      ComputeFewRows<kBits, count.value, kVectors / 2>(args, layout, row, panel, begin);
    }
  };
  if (rows == 1) return few_rows(std::integral_constant<int, 1>());
  if (rows == 2) return few_rows(std::integral_constant<int, 2>());
  if (rows == 3) return few_rows(std::integral_constant<int, 3>());
  if (rows == 4) return few_rows(std::integral_constant<int, 4>());
  alignas(64) float sums[kUnitRows * kPanelColumns];
  std::fill_n(sums, rows * kPanelColumns, 0.0f);
  ForUnits<kBits>(args, layout, panel, [&](const std::byte* unit, int64_t block) {
    AddUnit<kBits>(args, unit, block, row, rows, begin, end, sums);
  });
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t column = begin; column < end; column += kLanes) {
      FinishVector(args, row + i, panel * kPanelColumns + column, Load(sums + i * kPanelColumns + column));
    }
  }
}

// Rows from `row_begin`, a multiple of 16.
template <int kBits>
void RunQuantizedRows(const QuantizedArgs& args, int64_t row_begin) {
  constexpr int64_t kPart = kPanelColumns / 2;
  const PackedLayout layout(*args.w);
  const int64_t parts = layout.PaddedColumns() / kPart;
  // A few items for each thread, as handing them out costs as much time as a fraction of a panel, of adjacent halves of
  // panels, as these lie one behind another in memory.
  const int64_t items = std::min<int64_t>(parts, 2 * Threads());
  const int64_t row_blocks = (args.m - row_begin + kUnitRows - 1) / kUnitRows;
  ParallelFor(row_blocks * items, [&](int64_t index) {
    const int64_t row = row_begin + index / items * kUnitRows;
    const int64_t rows = std::min(kUnitRows, args.m - row);
    const int64_t item = index % items;
    const int64_t end = (item + 1) * parts / items;
    for (int64_t part = item * parts / items; part < end;) {
      const int64_t begin = part % 2 * kPart;
      const int64_t columns = begin == 0 && part + 1 < end ? kPanelColumns : kPart;
      ComputeColumns<kBits>(args, layout, row, rows, part / 2, begin, begin + columns);
      part += columns / kPart;
    }
  });
}

inline void QuantizedGemm(const GemmArgs& args) {
  if (args.w->dtype == DType::kQ4_1) {
    RunQuantizedRows<4>(QuantizeBlocks<4>(args), 0);
  } else {
    RunQuantizedRows<8>(QuantizeBlocks<8>(args), 0);
  }
}

inline void Gemm(const GemmArgs& args) {
  if (args.m == 0 || args.w->n == 0) return;
  if (args.w->dtype == DType::kI8) {
    RunGemm<DotInt8>(QuantizeInputs(args));
  } else if (args.w->int8_inputs) {
    QuantizedGemm(args);
  } else if (args.w->activation_dtype() == DType::kBF16) {
    RunGemm<DotBf16>(args);
  } else {
    RunGemm<DotF32>(args);
  }
}

}  // namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE
