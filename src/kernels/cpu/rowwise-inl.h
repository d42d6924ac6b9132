// The operations that walk over rows: norms, RoPE, SiLU, logit statistics.
namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE {

// Calls body(row) for every row, several rows of `size` elements to a piece of work.
template <class Body>
void ForEachRow(int64_t rows, int64_t size, const Body& body) {
  constexpr int64_t kElementsPerItem = 16384;  // a few microseconds
  const int64_t rows_per_item = std::max<int64_t>(1, kElementsPerItem / std::max<int64_t>(1, size));
  ParallelFor((rows + rows_per_item - 1) / rows_per_item, [&](int64_t item) {
    const int64_t end = std::min(rows, (item + 1) * rows_per_item);
    for (int64_t row = item * rows_per_item; row < end; ++row) body(row);
  });
}

inline void Narrow(const float* values, int64_t size, BFloat16* out) {
  for (int64_t i = 0; i < size; i += kLanes) StoreUpTo(out + i, LoadUpTo(values + i, size - i), size - i);
}

// e^x to about 1e-7 relative; 0 below -104, infinity above 89; NaN stays NaN. The polynomial is Cephes' expf.
inline Vec Exp(Vec x) {
  x = Min(Set(89.0f), Max(Set(-104.0f), x));
  const Vec n = RoundToInt(x * Set(1.44269504088896341f));
  Vec r = NegMulAdd(n, Set(0.693359375f), x);
  r = NegMulAdd(n, Set(-2.12194440e-4f), r);
  Vec p = Set(1.9875691500e-4f);
  p = MulAdd(p, r, Set(1.3981999507e-3f));
  p = MulAdd(p, r, Set(8.3334519073e-3f));
  p = MulAdd(p, r, Set(4.1665795894e-2f));
  p = MulAdd(p, r, Set(1.6666665459e-1f));
  p = MulAdd(p, r, Set(5.0000001201e-1f));
  p = MulAdd(p, r * r, r + Set(1.0f));
  return ScaleByPowerOf2(p, n);
}

// 2^x for x up to 126, for what is rounded to bf16: to 3e-6 relative; 0 from -126 down, NaN stays NaN. The polynomial
// is a minimax fit.
inline Vec Exp2ForBf16(Vec x) {
  Vec n;
  const Vec shift = RoundToExponent(x, &n);
  const Vec r = x - n;
  Vec p = Set(9.582852936e-3f);
  p = MulAdd(p, r, Set(5.590642482e-2f));
  p = MulAdd(p, r, Set(2.402409861e-1f));
  p = MulAdd(p, r, Set(6.931241934e-1f));
  return AddExponentAbove(x, Set(-126.0f), MulAdd(p, r, Set(1.0f)), shift);
}

template <class T>
void RmsNormRow(const float* x, const float* weight, float eps, int64_t size, T* out) {
  Vec squares[4] = {Zero(), Zero(), Zero(), Zero()};  // four chains hide the latency of an addition
  int64_t done = 0;
  for (; done + 4 * kLanes <= size; done += 4 * kLanes) {
    for (int j = 0; j < 4; ++j) {
      const Vec v = Load(x + done + j * kLanes);
      squares[j] = MulAdd(v, v, squares[j]);
    }
  }
  for (; done < size; done += kLanes) {
    const Vec v = LoadUpTo(x + done, size - done);
    squares[0] = MulAdd(v, v, squares[0]);
  }
  const float sum = ReduceAdd((squares[0] + squares[1]) + (squares[2] + squares[3]));
  const Vec scale = Set(1.0f / std::sqrt(sum / static_cast<float>(size) + eps));
  for (int64_t i = 0; i < size; i += kLanes) {
    StoreUpTo(out + i, LoadUpTo(x + i, size - i) * scale * LoadUpTo(weight + i, size - i), size - i);
  }
}

inline void RmsNorm(const RmsNormArgs& args) {
  ForEachRow(args.rows, args.size, [&](int64_t row) {
    const float* x = args.x + row * args.x_stride;
    if (args.out_dtype == DType::kBF16) {
      BFloat16* out = static_cast<BFloat16*>(args.out) + row * args.out_stride;
      RmsNormRow(x, args.weight, args.eps, args.size, out);
    } else {
      RmsNormRow(x, args.weight, args.eps, args.size, static_cast<float*>(args.out) + row * args.out_stride);
    }
  });
}

inline void RopeRow(const RopeArgs& args, int64_t row) {
  const int64_t half = args.head_dim / 2;
  const float* cos = args.cos + args.positions[row] * half;
  const float* sin = args.sin + args.positions[row] * half;
  for (int64_t head = 0; head < args.heads; ++head) {
    float* x = args.x + row * args.x_stride + head * args.head_dim;
    if (args.norm_weight != nullptr) RmsNormRow(x, args.norm_weight, args.norm_eps, args.head_dim, x);
    for (int64_t i = 0; i < half; i += kLanes) {
      const int64_t lanes = half - i;
      const Vec x1 = LoadUpTo(x + i, lanes);
      const Vec x2 = LoadUpTo(x + half + i, lanes);
      const Vec c = LoadUpTo(cos + i, lanes);
      const Vec s = LoadUpTo(sin + i, lanes);
      StoreUpTo(x + i, MulSub(x1, c, x2 * s), lanes);
      StoreUpTo(x + half + i, MulAdd(x2, c, x1 * s), lanes);
    }
  }
}

inline void Rope(const RopeArgs& args) {
  ForEachRow(args.rows, args.heads * args.head_dim, [&](int64_t row) { RopeRow(args, row); });
}

// gate / (1 + e^-gate), to what the type of the result can tell.
inline Vec Silu(Vec gate, const float* /*type*/) { return gate / (Set(1.0f) + Exp(Zero() - gate)); }
inline Vec Silu(Vec gate, const BFloat16* /*type*/) {
  constexpr float kMinusLog2E = -1.44269504088896341f;
  const Vec exponent = Min(Set(125.0f), Max(Set(-126.0f), gate * Set(kMinusLog2E)));
  return gate * Reciprocal(Set(1.0f) + Exp2ForBf16(exponent));
}

template <class T>
void SiluMulRow(const T* gate, const T* up, int64_t size, T* out) {
  for (int64_t i = 0; i < size; i += kLanes) {
    StoreUpTo(out + i, Silu(LoadUpTo(gate + i, size - i), out) * LoadUpTo(up + i, size - i), size - i);
  }
}

template <class T>
void RunSiluMul(const SiluMulArgs& args) {
  ForEachRow(args.rows, 4 * args.size, [&](int64_t row) {
    const T* gate = static_cast<const T*>(args.gate_up) + row * args.gate_up_stride;
    SiluMulRow(gate, gate + args.size, args.size, static_cast<T*>(args.out) + row * args.out_stride);
  });
}

inline void SiluMul(const SiluMulArgs& args) {
  if (args.dtype == DType::kBF16) {
    RunSiluMul<BFloat16>(args);
  } else {
    RunSiluMul<float>(args);
  }
}

inline Vec LoadLogits(const float* x, int64_t left) {
  return left >= kLanes ? Load(x) : KeepLanes(LoadUpTo(x, left), 0, left);
}

inline float MaxOf(const float* x, int64_t size) {
  Vec max = Set(-std::numeric_limits<float>::infinity());
  for (int64_t i = 0; i < size; i += kLanes) max = Max(max, LoadLogits(x + i, size - i));
  return ReduceMax(max);
}

// Sums term(i), a vector each, over [0, size): float32 within 4096 elements, double beyond.
template <class Term>
double SumOf(int64_t size, const Term& term) {
  constexpr int64_t kChunk = 4096;
  double total = 0;
  for (int64_t begin = 0; begin < size; begin += kChunk) {
    Vec sum = Zero();
    for (int64_t i = begin; i < std::min(size, begin + kChunk); i += kLanes) sum = sum + term(i);
    total += ReduceAdd(sum);
  }
  return total;
}

struct ExpOfDifference {
  const float* x;
  int64_t size;
  Vec max;
  Vec operator()(int64_t i) const { return Exp(LoadLogits(x + i, size - i) - max); }
};

inline double LogSumExp(const float* x, int64_t size, float max) {
  return max + std::log(SumOf(size, ExpOfDifference{x, size, Set(max)}));
}

inline int64_t IndexOf(const float* x, int64_t size, float value) {
  for (int64_t i = 0; i < size; i += kLanes) {
    const int lane = FirstEqual(LoadLogits(x + i, size - i), Set(value));
    if (lane >= 0) return std::min(i + lane, size - 1);
  }
  return 0;  // a row of NaN
}

inline void ComputeLogitStats(const float* logits, int64_t rows, int64_t vocab, LogitStats* stats) {
  ForEachRow(rows, vocab, [&](int64_t row) {
    const float* x = logits + row * vocab;
    const float max = MaxOf(x, vocab);
    stats[row] = {.argmax = static_cast<int32_t>(IndexOf(x, vocab, max)),
                  .max = max,
                  .log_sum_exp = static_cast<float>(LogSumExp(x, vocab, max))};
  });
}

// p_i (log p_i - log q_i), with both logarithms taken as differences of logits so that close distributions cancel
// exactly rather than after rounding.
struct KlTerm {
  const float* p;
  const float* q;
  int64_t size;
  Vec p_norm;
  Vec norm_difference;  // log-sum-exp of q less that of p
  Vec operator()(int64_t i) const {
    const Vec p_i = LoadUpTo(p + i, size - i);
    const Vec q_i = LoadUpTo(q + i, size - i);
    const Vec weight = Exp(LoadLogits(p + i, size - i) - p_norm);  // 0 beyond the row's end
    return weight * ((p_i - q_i) + norm_difference);
  }
};

inline void KlDivergence(const float* p_logits, const float* q_logits, int64_t rows, int64_t vocab, float* kl) {
  ForEachRow(rows, vocab, [&](int64_t row) {
    const float* p = p_logits + row * vocab;
    const float* q = q_logits + row * vocab;
    const double p_norm = LogSumExp(p, vocab, MaxOf(p, vocab));
    const double q_norm = LogSumExp(q, vocab, MaxOf(q, vocab));
    kl[row] = static_cast<float>(
        SumOf(vocab, KlTerm{p, q, vocab, Set(static_cast<float>(p_norm)), Set(static_cast<float>(q_norm - p_norm))}));
  });
}

}  // namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE
