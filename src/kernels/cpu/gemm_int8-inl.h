// Products with weights in int8 (int8_layout.h): each row of inputs is quantized, sums of products are exact in int32.
// The few exact features are a second product, in bf16, of one step of 32.
namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE {

// The product with quantized inputs: x is int8 [m, k] with zeros behind each row up to the end of its section, all
// moved up by 128 where kMovesInputsUp.
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

// `x` as DotBf16 reads it: in place, or widened into `copy`.
inline const BFloat16* ExactInputs(const BFloat16* x, int64_t /*size*/, BFloat16* /*copy*/) { return x; }
inline const float* ExactInputs(const BFloat16* x, int64_t size, float* copy) {
  for (int64_t i = 0; i < size; i += kLanes) Store(copy + i, Load(x + i));
  return copy;
}

// sum * column scale * row scale + exact, rounded in one order on every instruction set.
inline Vec ScaledSum(IntVec sum, Vec column_scale, Vec row_scale, Vec exact) {
  return MulAdd(ToFloat(sum) * column_scale, row_scale, exact);
}

// The products of the exact features with one tile of outputs are added to its sums before it is finished.
template <int kRows, int kVectors>
void FinishTile(const Int8Args& args, int64_t row, int64_t column, const IntVec (&sums)[kRows][kVectors]) {
  Vec values[kRows][kVectors];
  SetZero(values);
  if (args.exact_x != nullptr) {
    DotBf16::Input copy[kRows * kMaxExactFeatures];
    const DotBf16::Input* x = ExactInputs(args.exact_x + row * kMaxExactFeatures, kRows * kMaxExactFeatures, copy);
    const BFloat16* columns[kVectors];
    for (int j = 0; j < kVectors; ++j) {
      columns[j] = args.exact_w + column / kPanelColumns * kExactPanelElements +
                   (column % kPanelColumns + j * kLanes) * DotBf16::kDepth;
    }
    for (int64_t k = 0; k < kMaxExactFeatures; k += DotBf16::kDepth) {
      TileStep<DotBf16>(x + k, kMaxExactFeatures, columns, k * kPanelColumns, values);
    }
  }
  SWIFTKV_UNROLL
  for (int j = 0; j < kVectors; ++j) {
    const Vec scale = Load(args.column_scales + column + j * kLanes);
    SWIFTKV_UNROLL
    for (int i = 0; i < kRows; ++i) {
      IntVec sum = sums[i][j];
      if (kMovesInputsUp) sum = sum - LoadInts(args.excess + column + j * kLanes);
      values[i][j] = ScaledSum(sum, scale, Set(args.row_scales[row + i]), values[i][j]);
    }
  }
  FinishTile(static_cast<const GemmArgs&>(args), row, column, values);
}

inline void FetchFinish(const Int8Args& args, int64_t panel) {
  constexpr int64_t kBytes = kPanelColumns * static_cast<int64_t>(sizeof(float));
  FetchLines(args.column_scales + panel * kPanelColumns, kBytes);
  FetchLines(args.excess + panel * kPanelColumns, kBytes);
  if (args.exact_x == nullptr) return;
  FetchLines(args.exact_w + panel * kExactPanelElements, kExactPanelElements * static_cast<int64_t>(sizeof(BFloat16)));
}

// As QuantizeVector, the codes moved up by 128 on request; `size` is a multiple of 32.
inline float QuantizeRow(const BFloat16* x, int64_t size, bool move_up, int8_t* out) {
  const int8_t zero = move_up ? -128 : 0;
  const float max = ToFloat(LargestMagnitude(x, size));
  if (!std::isfinite(max) || max < kLeastMagnitude) {
    std::memset(out, zero, static_cast<size_t>(size));
    return std::isfinite(max) ? 0 : std::numeric_limits<float>::quiet_NaN();
  }
  const Vec inverse = Set(127 / max);
  for (int64_t k = 0; k < size; k += kLanes) StoreRounded(out + k, Load(x + k) * inverse, zero);
  return max / 127;
}

// out[k] = x[k] & keep[k]. Zeroing a few of `out` by themselves would make the vector loads that follow wait for them.
inline void KeepBits(const BFloat16* x, const uint16_t* keep, int64_t size, BFloat16* __restrict out) {
  for (int64_t k = 0; k < size; ++k) out[k].bits = static_cast<uint16_t>(x[k].bits & keep[k]);
}

inline Int8Args QuantizeInputs(const GemmArgs& args) {
  constexpr int64_t kTaskRows = 16;
  const PackedLayout layout(*args.w);
  const Int8Parts parts(args.w->data.data(), layout);
  const int64_t stride = layout.padded_k() | 64;  // an odd number of cache lines: rows share no sets of the L1 cache
  const int64_t code_bytes = args.m * stride;
  const int64_t exact_bytes = args.m * kMaxExactFeatures * static_cast<int64_t>(sizeof(BFloat16));
  const int64_t scale_bytes = args.m * static_cast<int64_t>(sizeof(float));
  const int64_t keep_bytes = args.w->k * static_cast<int64_t>(sizeof(uint16_t));
  std::byte* scratch = CallScratch(code_bytes + exact_bytes + scale_bytes + keep_bytes);
  auto* codes = reinterpret_cast<int8_t*>(scratch);
  auto* exact = reinterpret_cast<BFloat16*>(scratch + code_bytes);
  auto* scales = reinterpret_cast<float*>(scratch + code_bytes + exact_bytes);
  const std::vector<int32_t>& features = args.w->exact_features;
  const int64_t size = layout.padded_k();
  auto* keep = reinterpret_cast<uint16_t*>(scratch + code_bytes + exact_bytes + scale_bytes);
  std::fill_n(keep, args.w->k, uint16_t{0xffff});  // all bits of the features that are not exact
  for (const int32_t feature : features) keep[feature] = 0;
  ParallelFor((args.m + kTaskRows - 1) / kTaskRows, [&](int64_t task) {
    auto* values = reinterpret_cast<BFloat16*>(ThreadScratch(size * static_cast<int64_t>(sizeof(BFloat16))));
    std::fill(values + args.w->k, values + size, BFloat16{});
    for (int64_t row = task * kTaskRows; row < std::min((task + 1) * kTaskRows, args.m); ++row) {
      const BFloat16* x = static_cast<const BFloat16*>(args.x) + row * args.x_stride;
      KeepBits(x, keep, args.w->k, values);
      BFloat16* exact_row = exact + row * kMaxExactFeatures;
      std::fill_n(exact_row, kMaxExactFeatures, BFloat16{});
      for (size_t i = 0; i < features.size(); ++i) {
        exact_row[i] = x[features[i]];
      }
      scales[row] = QuantizeRow(values, size, kMovesInputsUp, codes + row * stride);
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
