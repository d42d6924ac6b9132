// The oracle and the documentation of every operation: plain loops, one thread. Sums run in double, so that the
// distance of a twin from these results is the twin's own rounding error.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "kernels/ops.h"
#include "kernels/ref/ref_attention.h"
#include "kernels/ref/ref_backward.h"
#include "kernels/ref/ref_int8.h"
#include "kernels/ref/ref_math.h"
#include "kernels/ref/ref_quantized.h"

namespace swiftkv::kernels {
namespace {

using ref::Load;
using ref::Store;

// log(sum_i exp(x_i)), and the maximum that keeps it from overflowing.
double LogSumExp(const float* x, int64_t size) {
  const double max = *std::max_element(x, x + size);
  double sum = 0;
  for (int64_t i = 0; i < size; ++i) sum += std::exp(x[i] - max);
  return max + std::log(sum);
}

class Ref final : public Backend {
 public:
  std::string_view name() const override { return "ref"; }

  // Packed is row-major [n, k] here.
  Result<PackedMatrix> AllocatePacked(int64_t n, int64_t k, DType dtype) const override {
    if (IsQuantized(dtype)) return ref::AllocateQuantized(n, k, dtype);
    PackedMatrix w{.n = n, .k = k, .dtype = dtype};
    SWIFTKV_ASSIGN_OR_RETURN(w.data, AlignedBuffer::Allocate(n * k * ref::ElementBytes(dtype), "packed weights"));
    return w;
  }

  Result<PackedMatrix> AllocateInt8(int64_t n, int64_t k, std::vector<int32_t> exact_features) const override {
    return ref::AllocateInt8(n, k, std::move(exact_features));
  }

  void PackRows(const float* rows, int64_t row_begin, int64_t row_count, PackedMatrix* w) const override {
    if (w->dtype == DType::kI8) return ref::PackInt8Rows(rows, row_begin, row_count, w);
    for (int64_t i = 0; i < row_count * w->k; ++i) Store(w->data.data(), row_begin * w->k + i, w->dtype, rows[i]);
  }

  void PackQuantizedRows(const QuantizedRows& rows, int64_t row_begin, int64_t row_count,
                         PackedMatrix* w) const override {
    ref::PackQuantizedRows(rows, row_begin, row_count, w);
  }

  void RepackInt8Rows(const PackedMatrix& from, int64_t row_begin, int64_t row_count, PackedMatrix* w) const override {
    ref::RepackInt8Rows(from, row_begin, row_count, w);
  }

  void UnpackRows(const PackedMatrix& w, const int32_t* ids, int64_t count, float* out) const override {
    for (int64_t r = 0; r < count; ++r) {
      if (w.dtype == DType::kI8) {
        ref::UnpackInt8Row(w, ids[r], out + r * w.k);
        continue;
      }
      for (int64_t i = 0; i < w.k; ++i) out[r * w.k + i] = Weight(w, ids[r], i);
    }
  }

  void Gemm(const GemmArgs& args) const override {
    const PackedMatrix& w = *args.w;
    if (w.dtype == DType::kI8) return ref::GemmInt8(args);
    if (w.int8_inputs) return ref::GemmQuantized(args);
    for (int64_t r = 0; r < args.m; ++r) {
      for (int64_t j = 0; j < w.n; ++j) {
        double sum = 0;
        for (int64_t i = 0; i < w.k; ++i) {
          sum += static_cast<double>(Load(args.x, r * args.x_stride + i, w.activation_dtype())) * Weight(w, j, i);
        }
        if (args.bias != nullptr) sum += args.bias[j];
        const int64_t y = r * args.y_stride + j;
        if (args.accumulate) sum += Load(args.y, y, args.y_dtype);
        Store(args.y, y, args.y_dtype, static_cast<float>(sum));
      }
    }
  }

  void RmsNorm(const RmsNormArgs& args) const override {
    for (int64_t r = 0; r < args.rows; ++r) {
      const float* x = args.x + r * args.x_stride;
      double squares = 0;
      for (int64_t i = 0; i < args.size; ++i) squares += static_cast<double>(x[i]) * x[i];
      const double scale = 1.0 / std::sqrt(squares / static_cast<double>(args.size) + args.eps);
      for (int64_t i = 0; i < args.size; ++i) {
        Store(args.out, r * args.out_stride + i, args.out_dtype, static_cast<float>(x[i] * scale * args.weight[i]));
      }
    }
  }

  void Rope(const RopeArgs& args) const override {
    const int64_t half = args.head_dim / 2;
    for (int64_t r = 0; r < args.rows; ++r) {
      const float* cos = args.cos + args.positions[r] * half;
      const float* sin = args.sin + args.positions[r] * half;
      for (int64_t head = 0; head < args.heads; ++head) {
        float* x = args.x + r * args.x_stride + head * args.head_dim;
        if (args.norm_weight != nullptr) {
          RmsNorm({.x = x,
                   .x_stride = 0,
                   .weight = args.norm_weight,
                   .eps = args.norm_eps,
                   .rows = 1,
                   .size = args.head_dim,
                   .out = x,
                   .out_stride = 0,
                   .out_dtype = DType::kF32});
        }
        for (int64_t i = 0; i < half; ++i) {
          const float x1 = x[i];
          const float x2 = x[i + half];
          x[i] = x1 * cos[i] - x2 * sin[i];
          x[i + half] = x2 * cos[i] + x1 * sin[i];
        }
      }
    }
  }

  void SiluMul(const SiluMulArgs& args) const override {
    for (int64_t r = 0; r < args.rows; ++r) {
      for (int64_t i = 0; i < args.size; ++i) {
        const double gate = Load(args.gate_up, r * args.gate_up_stride + i, args.dtype);
        const double up = Load(args.gate_up, r * args.gate_up_stride + args.size + i, args.dtype);
        const double silu = gate / (1.0 + std::exp(-gate));
        Store(args.out, r * args.out_stride + i, args.dtype, static_cast<float>(silu * up));
      }
    }
  }

  int64_t KvBlockBytes(int64_t kv_heads, int64_t head_dim, DType cache_dtype) const override {
    return ref::KvBlockBytes(kv_heads, head_dim, cache_dtype);
  }
  void WriteKv(const KvWriteArgs& args) const override { ref::WriteKv(args); }
  void Attention(const AttentionArgs& args) const override { ref::Attention(args); }

  void ComputeLogitStats(const float* logits, int64_t rows, int64_t vocab, LogitStats* stats) const override {
    for (int64_t r = 0; r < rows; ++r) {
      const float* row = logits + r * vocab;
      const float* max = std::max_element(row, row + vocab);  // the first of equal maxima
      stats[r] = {.argmax = static_cast<int32_t>(max - row),
                  .max = *max,
                  .log_sum_exp = static_cast<float>(LogSumExp(row, vocab))};
    }
  }

  void KlDivergence(const float* p_logits, const float* q_logits, int64_t rows, int64_t vocab,
                    float* kl) const override {
    for (int64_t r = 0; r < rows; ++r) {
      const float* p = p_logits + r * vocab;
      const float* q = q_logits + r * vocab;
      const double p_norm = LogSumExp(p, vocab);
      const double q_norm = LogSumExp(q, vocab);
      double sum = 0;
      for (int64_t i = 0; i < vocab; ++i) {
        const double log_p = p[i] - p_norm;
        const double log_q = q[i] - q_norm;
        sum += std::exp(log_p) * (log_p - log_q);
      }
      kl[r] = static_cast<float>(sum);
    }
  }

  const BackwardOps& backward() const override { return RefBackwardOps(); }

 private:
  static float Weight(const PackedMatrix& w, int64_t row, int64_t k) {
    return IsQuantized(w.dtype) ? ref::QuantizedWeight(w, row, k) : Load(w.data.data(), row * w.k + k, w.dtype);
  }
};

}  // namespace

const Backend& RefBackend() {
  static const Ref backend;
  return backend;
}

}  // namespace swiftkv::kernels
