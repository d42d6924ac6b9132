// The gradients of the operations that walk over rows, and of the loss (backward_ops.h).
namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE {

// One vector: dx, and its share of dweight.
inline void RmsNormBackwardVector(const RmsNormBackwardArgs& args, const float* x, const float* dy, float* dx,
                                  float* dweight) {
  const int64_t size = args.size;
  Vec squares = Zero();
  Vec products = Zero();
  for (int64_t i = 0; i < size; i += kLanes) {
    const Vec xi = LoadUpTo(x + i, size - i);
    squares = MulAdd(xi, xi, squares);
    products = MulAdd(LoadUpTo(dy + i, size - i) * LoadUpTo(args.weight + i, size - i), xi, products);
  }
  const auto count = static_cast<float>(size);
  const float scale = 1.0f / std::sqrt(ReduceAdd(squares) / count + args.eps);
  const Vec s = Set(scale);
  const Vec along_x = Set(scale * scale * ReduceAdd(products) / count);
  for (int64_t i = 0; i < size; i += kLanes) {
    const int64_t lanes = size - i;
    const Vec xi = LoadUpTo(x + i, lanes);
    const Vec dyi = LoadUpTo(dy + i, lanes);
    if (dweight != nullptr) StoreUpTo(dweight + i, MulAdd(dyi, xi * s, LoadUpTo(dweight + i, lanes)), lanes);
    if (dx == nullptr) continue;
    const Vec gradient = s * NegMulAdd(along_x, xi, dyi * LoadUpTo(args.weight + i, lanes));
    StoreUpTo(dx + i, args.accumulate ? LoadUpTo(dx + i, lanes) + gradient : gradient, lanes);
  }
}

inline void RmsNormBackward(const RmsNormBackwardArgs& args, float* shares) {
  const int64_t pieces = GradientPieces(args.rows);
  ParallelFor(pieces, [&](int64_t piece) {
    float* dweight = shares == nullptr ? nullptr : shares + piece * args.size;
    const int64_t end = std::min(args.rows, (piece + 1) * kGradientRows);
    for (int64_t row = piece * kGradientRows; row < end; ++row) {
      for (int64_t head = 0; head < args.heads; ++head) {
        float* dx = args.dx == nullptr ? nullptr : args.dx + row * args.dx_stride + head * args.size;
        RmsNormBackwardVector(args, args.x + row * args.x_stride + head * args.size,
                              args.dy + row * args.dy_stride + head * args.size, dx, dweight);
      }
    }
  });
  if (shares == nullptr) return;
  for (int64_t piece = 0; piece < pieces; ++piece) {
    for (int64_t i = 0; i < args.size; ++i) args.dweight[i] += shares[piece * args.size + i];
  }
}

inline void RopeBackward(const RopeBackwardArgs& args) {
  const int64_t half = args.head_dim / 2;
  ForEachRow(args.rows, args.heads * args.head_dim, [&](int64_t row) {
    const float* cos = args.cos + args.positions[row] * half;
    const float* sin = args.sin + args.positions[row] * half;
    for (int64_t head = 0; head < args.heads; ++head) {
      float* d = args.dx + row * args.dx_stride + head * args.head_dim;
      for (int64_t i = 0; i < half; i += kLanes) {
        const int64_t lanes = half - i;
        const Vec d1 = LoadUpTo(d + i, lanes);
        const Vec d2 = LoadUpTo(d + half + i, lanes);
        const Vec c = LoadUpTo(cos + i, lanes);
        const Vec s = LoadUpTo(sin + i, lanes);
        StoreUpTo(d + i, MulAdd(d1, c, d2 * s), lanes);
        StoreUpTo(d + half + i, MulSub(d2, c, d1 * s), lanes);
      }
    }
  });
}

template <class T>
void RunSiluMulBackward(const SiluMulBackwardArgs& args) {
  ForEachRow(args.rows, 8 * args.size, [&](int64_t row) {
    const T* gate_row = static_cast<const T*>(args.gate_up) + row * args.gate_up_stride;
    const T* dy_row = static_cast<const T*>(args.dy) + row * args.dy_stride;
    T* out = static_cast<T*>(args.dgate_up) + row * args.dgate_up_stride;
    for (int64_t i = 0; i < args.size; i += kLanes) {
      const int64_t lanes = args.size - i;
      const Vec gate = LoadUpTo(gate_row + i, lanes);
      const Vec up = LoadUpTo(gate_row + args.size + i, lanes);
      const Vec dy = LoadUpTo(dy_row + i, lanes);
      const Vec one = Set(1.0f);
      const Vec sigmoid = one / (one + Exp(Zero() - gate));
      const Vec silu = gate * sigmoid;
      StoreUpTo(out + i, dy * up * MulAdd(silu, one - sigmoid, sigmoid), lanes);
      StoreUpTo(out + args.size + i, dy * silu, lanes);
    }
  });
}

inline void SiluMulBackward(const SiluMulBackwardArgs& args) {
  if (args.dtype == DType::kBF16) {
    RunSiluMulBackward<BFloat16>(args);
  } else {
    RunSiluMulBackward<float>(args);
  }
}

template <class T>
void RunRound(const RoundArgs& args) {
  ForEachRow(args.rows, args.size, [&](int64_t row) {
    const float* x = args.x + row * args.x_stride;
    T* out = static_cast<T*>(args.out) + row * args.out_stride;
    for (int64_t i = 0; i < args.size; i += kLanes) StoreUpTo(out + i, LoadUpTo(x + i, args.size - i), args.size - i);
  });
}

inline void Round(const RoundArgs& args) {
  if (args.dtype == DType::kBF16) {
    RunRound<BFloat16>(args);
  } else {
    RunRound<float>(args);
  }
}

struct KlSums {
  double teacher = 0;     // sum of exp((t - max t) / T)
  double student = 0;     // the same for s
  double difference = 0;  // sum of exp((t - max t) / T) ((t - max t) - (s - max s)) / T
};

// Replaces both rows by their softmax numerators. Sums run in float32 within 4096 elements, in double beyond.
inline KlSums ExponentiateRow(float* teacher, float* student, int64_t vocab, float temperature) {
  constexpr int64_t kChunk = 4096;
  const Vec teacher_max = Set(MaxOf(teacher, vocab));
  const Vec student_max = Set(MaxOf(student, vocab));
  const Vec scale = Set(1.0f / temperature);
  KlSums sums;
  for (int64_t begin = 0; begin < vocab; begin += kChunk) {
    Vec teacher_sum = Zero(), student_sum = Zero(), difference_sum = Zero();
    for (int64_t i = begin; i < std::min(vocab, begin + kChunk); i += kLanes) {
      const int64_t lanes = vocab - i;
      const Vec t = (LoadUpTo(teacher + i, lanes) - teacher_max) * scale;
      const Vec s = (LoadUpTo(student + i, lanes) - student_max) * scale;
      const Vec p = lanes >= kLanes ? Exp(t) : Exp(KeepLanes(t, 0, lanes));
      const Vec q = lanes >= kLanes ? Exp(s) : Exp(KeepLanes(s, 0, lanes));
      teacher_sum = teacher_sum + p;
      student_sum = student_sum + q;
      difference_sum = MulAdd(p, t - s, difference_sum);
      StoreUpTo(teacher + i, p, lanes);
      StoreUpTo(student + i, q, lanes);
    }
    sums.teacher += ReduceAdd(teacher_sum);
    sums.student += ReduceAdd(student_sum);
    sums.difference += ReduceAdd(difference_sum);
  }
  return sums;
}

template <class T>
void RunKlLoss(const KlLossArgs& args) {
  const double temperature = args.temperature;
  ForEachRow(args.rows, args.vocab, [&](int64_t row) {
    float* teacher = args.teacher + row * args.vocab;
    float* student = args.student + row * args.vocab;
    T* dlogits = static_cast<T*>(args.dlogits) + row * args.vocab;
    const KlSums sums = ExponentiateRow(teacher, student, args.vocab, args.temperature);
    const double kl = sums.difference / sums.teacher + std::log(sums.student) - std::log(sums.teacher);
    // A numerator of 1 is the row's maximum.
    args.stats[row] = {.loss = temperature * temperature * kl,
                       .agree = IndexOf(teacher, args.vocab, 1.0f) == IndexOf(student, args.vocab, 1.0f)};
    const Vec p_scale = Set(static_cast<float>(args.row_scale * temperature / sums.teacher));
    const Vec q_scale = Set(static_cast<float>(args.row_scale * temperature / sums.student));
    for (int64_t i = 0; i < args.vocab; i += kLanes) {
      const int64_t lanes = args.vocab - i;
      const Vec p = LoadUpTo(teacher + i, lanes) * p_scale;
      StoreUpTo(dlogits + i, MulSub(LoadUpTo(student + i, lanes), q_scale, p), lanes);
    }
  });
}

inline void KlLoss(const KlLossArgs& args) {
  if (args.dtype == DType::kBF16) {
    RunKlLoss<BFloat16>(args);
  } else {
    RunKlLoss<float>(args);
  }
}

}  // namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE
