// How a tile of a matrix product multiplies, for each type of weight (or cache). All matrix products of this room -
// weights, attention scores, weighted values - are: broadcast one input, multiply a few vectors of columns, accumulate.
//
// A step consumes kDepth adjacent elements of the summed axis, in kPasses passes. Every output element is one chain of
// accumulations in the order of the summed axis, whatever the shape of the tile: batch invariance rests on this.
namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE {

struct DotF32 {
  using Args = GemmArgs;
  using Sum = Vec;
  using Input = float;
  using Weight = float;
  static constexpr int kDepth = 1;
  static constexpr int kPasses = 1;
  using InputVec = Vec;
  using WeightVec = Vec;
  static InputVec Broadcast(const Input* x, int /*pass*/) { return Set(*x); }
  static WeightVec LoadWeights(const Weight* w, int /*pass*/) { return Load(w); }
  static Vec Accumulate(InputVec x, WeightVec w, Vec sum) { return MulAdd(x, w, sum); }
};

#if defined(SWIFTKV_HAS_DPBF16)
struct DotBf16 {
  using Args = GemmArgs;
  using Sum = Vec;
  using Input = BFloat16;
  using Weight = BFloat16;
  static constexpr int kDepth = 2;
  static constexpr int kPasses = 1;
  using InputVec = PairVec;
  using WeightVec = PairVec;
  static InputVec Broadcast(const Input* x, int /*pass*/) { return BroadcastPair(x); }
  static WeightVec LoadWeights(const Weight* w, int /*pass*/) { return LoadPairs(w); }
  static Vec Accumulate(InputVec x, WeightVec w, Vec sum) { return DotPairs(x, w, sum); }
  // A step of float32 weights that are rounded here, finite ones.
  using Step = PairVec;
  static Step RoundStep(Vec even, Vec odd) { return PairsOf(even, odd); }
  static Vec AccumulateStep(const Input* x, Step w, Vec sum) { return DotPairs(BroadcastPair(x), w, sum); }
};
#else
// Without BF16 instructions: weights widen in registers, inputs (rounded to bf16) were widened beforehand.
struct DotBf16 {
  using Args = GemmArgs;
  using Sum = Vec;
  using Input = float;
  using Weight = BFloat16;
  static constexpr int kDepth = 2;
  static constexpr int kPasses = 2;
  using InputVec = Vec;
  using WeightVec = Vec;
  static InputVec Broadcast(const Input* x, int pass) { return Set(x[pass]); }
  static WeightVec LoadWeights(const Weight* w, int pass) { return pass == 0 ? EvenOfPairs(w) : OddOfPairs(w); }
  static Vec Accumulate(InputVec x, WeightVec w, Vec sum) { return MulAdd(x, w, sum); }
  struct Step {
    Vec even, odd;
  };
  static Step RoundStep(Vec even, Vec odd) { return {RoundToBf16(even), RoundToBf16(odd)}; }
  static Vec AccumulateStep(const Input* x, const Step& w, Vec sum) {
    return MulAdd(Set(x[1]), w.odd, MulAdd(Set(x[0]), w.even, sum));
  }
};
#endif

// Blocks of the cache are short and scattered, which hardware prefetchers don't follow.
inline void Prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }

// Into the L2 cache, or with _MM_HINT_T0 into the L1 cache.
inline constexpr int64_t kCacheLineBytes = 64;
template <auto kLevel = _MM_HINT_T1>  // an enum for GCC, an int for Clang
inline void FetchLines(const void* data, int64_t bytes) {
  const auto* line = static_cast<const char*>(data);
  for (int64_t i = 0; i < bytes; i += kCacheLineBytes) _mm_prefetch(line + i, kLevel);
  // GCC takes a function that does nothing but prefetch for one without effect, and drops the calls.
  __asm__ volatile("");
}

// One step of a tile: sums[i][j] += x[i] * w[j].
template <class Dot, int kRows, int kVectors>
inline void TileStep(const typename Dot::Input* x, int64_t x_stride, const typename Dot::Weight* const (&w)[kVectors],
                     int64_t w_offset, typename Dot::Sum (&sums)[kRows][kVectors]) {
  SWIFTKV_UNROLL
  for (int pass = 0; pass < Dot::kPasses; ++pass) {
    typename Dot::WeightVec columns[kVectors];
    SWIFTKV_UNROLL
    for (int j = 0; j < kVectors; ++j) columns[j] = Dot::LoadWeights(w[j] + w_offset, pass);
    SWIFTKV_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const typename Dot::InputVec input = Dot::Broadcast(x + i * x_stride, pass);
      SWIFTKV_UNROLL
      for (int j = 0; j < kVectors; ++j) sums[i][j] = Dot::Accumulate(input, columns[j], sums[i][j]);
      if constexpr (Dot::kPasses > 1 && kRows > 2) {
        // Else GCC 12 broadcasts the next pass's inputs early and spills sums for them.
        SWIFTKV_UNROLL
        for (int j = 0; j < kVectors; ++j) __asm__("" : "+v"(sums[i][j].v));
      }
    }
  }
}

template <class Sum, int kRows, int kVectors>
inline void SetZero(Sum (&sums)[kRows][kVectors]) {
  SWIFTKV_UNROLL
  for (int i = 0; i < kRows; ++i) {
    SWIFTKV_UNROLL
    for (int j = 0; j < kVectors; ++j) sums[i][j] = Sum{};
  }
}

}  // namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE
