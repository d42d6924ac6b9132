// Products with weights in int8 (int8_layout.h): each row of inputs is quantized, sums of products are exact in int32.
// The few exact features are a second product, in bf16, of one step of 32.
namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE {

// The product with quantized inputs: x is int8 [m, k] with zeros behind each row up to the end of its section.
struct Int8Args : GemmArgs {
  const float* row_scales = nullptr;     // [m]
  const BFloat16* exact_x = nullptr;     // [m, kMaxExactFeatures], zeros behind those that there are; null: none
  const float* column_scales = nullptr;  // [padded n]
  const int32_t* excess = nullptr;       // [padded n]
  const BFloat16* exact_w = nullptr;
};

struct DotInt8 {
  using Args = Int8Args;
  using Sum = IntVec;
  using Input = int8_t;
  using Weight = int8_t;
  static constexpr int kDepth = 4;
  static constexpr int kPasses = 1;
  using InputVec = FourVec;
  using WeightVec = FourVec;
  static InputVec Broadcast(const Input* x, int /*pass*/) { return BroadcastFour(x); }
  static WeightVec LoadWeights(const Weight* w, int /*pass*/) { return LoadFours(w); }
  static Sum Accumulate(InputVec x, WeightVec w, Sum sum) { return DotFours(x, w, sum); }
};

inline void LoadSum(const float* p, IntVec* sum) { *sum = LoadInts(reinterpret_cast<const int32_t*>(p)); }
inline void StoreSum(float* p, IntVec sum) { StoreInts(reinterpret_cast<int32_t*>(p), sum); }

// The products of the exact features with one tile of outputs.
template <int kRows, int kVectors>
struct ExactTile {
  Vec sums[kRows][kVectors];
};
template <int kRows, int kVectors>
ExactTile<kRows, kVectors> ExactSums(const Int8Args& args, int64_t row, int64_t column) {
  ExactTile<kRows, kVectors> tile = {};
  if (args.exact_x == nullptr) return tile;
  DotBf16::Input x[kRows * kMaxExactFeatures];
  for (int64_t i = 0; i < kRows * kMaxExactFeatures; i += kLanes) {
    Store(x + i, Load(args.exact_x + row * kMaxExactFeatures + i));
  }
  const BFloat16* columns[kVectors];
  for (int j = 0; j < kVectors; ++j) {
    columns[j] = args.exact_w + column / kPanelColumns * kExactPanelElements +
                 (column % kPanelColumns + j * kLanes) * DotBf16::kDepth;
  }
  for (int64_t k = 0; k < kMaxExactFeatures; k += DotBf16::kDepth) {
    TileStep<DotBf16>(x + k, kMaxExactFeatures, columns, k * kPanelColumns, tile.sums);
  }
  return tile;
}

// sum * column scale * row scale + exact, rounded in one order on every instruction set.
inline Vec ScaledSum(const Int8Args& args, int64_t row, int64_t column, IntVec sum, Vec exact) {
  return MulAdd(ToFloat(sum) * Load(args.column_scales + column), Set(args.row_scales[row]), exact);
}
template <int kRows, int kVectors>
void FinishSum(const Int8Args& args, int64_t row, int64_t column, IntVec sum, const ExactTile<kRows, kVectors>& exact,
               int i, int j) {
  if (kMovesInputsUp) sum = sum - LoadInts(args.excess + column);
  FinishVector(args, row, column, ScaledSum(args, row, column, sum, exact.sums[i][j]));
}

// As QuantizeVector; `size` is a multiple of 32.
inline float QuantizeRow(const BFloat16* x, int64_t size, int8_t* out) {
  const BFloat16 largest = LargestMagnitude(x, size);
  const float max = ToFloat(largest);
  if (!std::isfinite(max) || max < kLeastMagnitude) {
    std::memset(out, 0, static_cast<size_t>(size));
    return std::isfinite(max) ? 0 : std::numeric_limits<float>::quiet_NaN();
  }
  const Vec inverse = Set(127 / max);
  for (int64_t k = 0; k < size; k += kLanes) StoreRounded(out + k, Load(x + k) * inverse);
  return max / 127;
}

inline Int8Args QuantizeInputs(const GemmArgs& args) {
  constexpr int64_t kTaskRows = 16;
  const PackedLayout layout(*args.w);
  const Int8Parts parts(args.w->data.data(), layout);
  const int64_t stride = layout.padded_k() | 64;  // an odd number of cache lines: rows share no sets of the L1 cache
  const int64_t code_bytes = args.m * stride;
  const int64_t exact_bytes = args.m * kMaxExactFeatures * static_cast<int64_t>(sizeof(BFloat16));
  std::byte* scratch = CallScratch(code_bytes + exact_bytes + args.m * static_cast<int64_t>(sizeof(float)));
  auto* codes = reinterpret_cast<int8_t*>(scratch);
  auto* exact = reinterpret_cast<BFloat16*>(scratch + code_bytes);
  auto* scales = reinterpret_cast<float*>(scratch + code_bytes + exact_bytes);
  const std::vector<int32_t>& features = args.w->exact_features;
  const int64_t size = layout.padded_k();
  ParallelFor((args.m + kTaskRows - 1) / kTaskRows, [&](int64_t task) {
    auto* values = reinterpret_cast<BFloat16*>(ThreadScratch(size * static_cast<int64_t>(sizeof(BFloat16))));
    std::fill(values + args.w->k, values + size, BFloat16{});
    for (int64_t row = task * kTaskRows; row < std::min((task + 1) * kTaskRows, args.m); ++row) {
      const BFloat16* x = static_cast<const BFloat16*>(args.x) + row * args.x_stride;
      std::memcpy(values, x, static_cast<size_t>(args.w->k) * sizeof(BFloat16));
      BFloat16* exact_row = exact + row * kMaxExactFeatures;
      std::fill_n(exact_row, kMaxExactFeatures, BFloat16{});
      for (size_t i = 0; i < features.size(); ++i) {
        exact_row[i] = x[features[i]];
        values[features[i]] = BFloat16{};
      }
      scales[row] = QuantizeRow(values, size, codes + row * stride);
    }
  });
  Int8Args out;
  static_cast<GemmArgs&>(out) = args;
  out.x = codes;
  out.x_stride = stride;
  out.row_scales = scales;
  out.exact_x = features.empty() ? nullptr : exact;
  out.column_scales = parts.scales;
  out.excess = parts.excess;
  out.exact_w = parts.exact;
  return out;
}

}  // namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE
