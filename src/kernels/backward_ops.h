// The backward twins of ops.h: what distillation needs to carry gradients from the loss to the trainable q/k/v. Same
// rules: raw pointers and plain structs, callers have checked shapes, one implementation per instruction set, results
// that do not depend on the number of threads.
//
//   const kernels::BackwardOps& ops = backend.backward();
//   ops.RmsNorm({.x = x, ..., .dy = dy, .dx = dx, .accumulate = true});
//
// Names: dy is the loss's gradient with respect to an operation's output y, dx to its input x. There is no twin of
// Gemm: dx = dy w is the forward Gemm on weights packed the other way round (TransposePacked), dw = dyᵀ x is the
// forward Gemm with x in the place of the weights. For these and for the optimizer there is what moves and sums
// gradients where they lie: Transpose, AddColumnSums, ScatterRows, SumOfSquares, AdamW.
//
// Of a device's twin all pointers but AttentionBackwardArgs::documents are the device's, those of results too.
#ifndef SWIFTKV_KERNELS_BACKWARD_OPS_H_
#define SWIFTKV_KERNELS_BACKWARD_OPS_H_

#include <cstdint>
#include <span>

#include "base/dtype.h"

namespace swiftkv::kernels {

// Of y = x / sqrt(mean(x²) + eps) * weight, for `heads` adjacent vectors of `size` in each row:
//   g = dy * weight, x̂ = x / rms: dx = (g - x̂ mean(g x̂)) / rms, dweight = sum over rows and heads of dy x̂.
struct RmsNormBackwardArgs {
  const float* x = nullptr;  // [rows, heads, size], the forward's input
  int64_t x_stride = 0;
  const float* weight = nullptr;  // [size]
  float eps = 0;
  int64_t rows = 0;
  int64_t heads = 1;
  int64_t size = 0;
  const float* dy = nullptr;  // [rows, heads, size]
  int64_t dy_stride = 0;
  float* dx = nullptr;  // [rows, heads, size] or null: not wanted; may be dy
  int64_t dx_stride = 0;
  bool accumulate = false;   // dx +=
  float* dweight = nullptr;  // [size] or null: not wanted; added to
};

// Of the rotation in RopeArgs, in place: (d1, d2) -> (d1 cos + d2 sin, d2 cos - d1 sin). Norms of heads come apart.
struct RopeBackwardArgs {
  float* dx = nullptr;  // [rows, heads, head_dim]; heads are adjacent
  int64_t dx_stride = 0;
  int64_t rows = 0;
  int64_t heads = 0;
  int64_t head_dim = 0;
  const int32_t* positions = nullptr;  // [rows]
  const float* cos = nullptr;          // [max position + 1, head_dim / 2]
  const float* sin = nullptr;          // [max position + 1, head_dim / 2]
};

// Of y = silu(gate) * up: dgate = dy up σ(gate) (1 + gate (1 - σ(gate))), dup = dy silu(gate).
struct SiluMulBackwardArgs {
  const void* gate_up = nullptr;  // [rows, 2 * size], dtype
  int64_t gate_up_stride = 0;
  int64_t rows = 0;
  int64_t size = 0;
  const void* dy = nullptr;  // [rows, size], dtype
  int64_t dy_stride = 0;
  void* dgate_up = nullptr;  // [rows, 2 * size], dtype
  int64_t dgate_up_stride = 0;
  DType dtype = DType::kF32;
};

// Adjacent rows that attend to one another: row r to rows begin .. r.
struct AttentionDocument {
  int64_t row_begin = 0;
  int64_t rows = 0;
};

// Of out = softmax(scale q Kᵀ) V with K and V in rows instead of cache blocks (Dao, FlashAttention-2, algorithm 2):
//   P = exp(scale q Kᵀ - log_sum_exp), dV = Pᵀ dout, dS = P (dout Vᵀ - rowsum(dout out)), dq = scale dS K,
//   dK = scale dSᵀ q. No [T, T] matrix is held.
struct AttentionBackwardArgs {
  const float* q = nullptr;  // [rows, heads, head_dim], rotated
  int64_t q_stride = 0;
  const float* k = nullptr;  // [rows, kv_heads, head_dim], rotated
  const float* v = nullptr;  // [rows, kv_heads, head_dim]
  int64_t kv_stride = 0;
  int64_t rows = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  float scale = 0;
  int64_t window = 0;  // as in AttentionArgs
  std::span<const AttentionDocument> documents;
  const void* out = nullptr;           // [rows, heads, head_dim], dtype
  const void* dout = nullptr;          // [rows, heads, head_dim], dtype
  int64_t out_stride = 0;              // of out and dout
  DType dtype = DType::kF32;           // kBF16: products take bf16 inputs
  const float* log_sum_exp = nullptr;  // [rows, heads], from the forward (AttentionArgs)
  float* dq = nullptr;                 // [rows, heads, head_dim]
  int64_t dq_stride = 0;
  float* dk = nullptr;  // [rows, kv_heads, head_dim]; added to, so that layers of a KV group share it
  float* dv = nullptr;  // the same
  int64_t dkv_stride = 0;
};

// Of the distillation loss at one row, T² KL(teacher ‖ student) at temperature T, with both sides through log-softmax
// (Hinton; swiftkv.md section 4.2): dlogits = row_scale T (softmax(student / T) - softmax(teacher / T)).
struct KlLossRow {
  double loss = 0;     // T² KL at temperature T, in nats
  bool agree = false;  // both have the same most likely token
};
struct KlLossArgs {
  float* teacher = nullptr;  // [rows, vocab] logits; overwritten
  float* student = nullptr;  // [rows, vocab] logits; overwritten
  int64_t rows = 0;
  int64_t vocab = 0;
  float temperature = 1;
  float row_scale = 0;      // what each row counts in the mean: 1 / positions in the loss
  void* dlogits = nullptr;  // [rows, vocab], dtype
  DType dtype = DType::kF32;
  KlLossRow* stats = nullptr;  // [rows]
};

// Gradients in the type that products take: out = x, rounded to `dtype`.
struct RoundArgs {
  const float* x = nullptr;  // [rows, size]
  int64_t x_stride = 0;
  int64_t rows = 0;
  int64_t size = 0;
  void* out = nullptr;  // [rows, size], dtype
  int64_t out_stride = 0;
  DType dtype = DType::kF32;
};

// out = xᵀ.
struct TransposeArgs {
  const void* x = nullptr;  // [rows, columns], dtype
  int64_t x_stride = 0;
  int64_t rows = 0;
  int64_t columns = 0;
  void* out = nullptr;  // [columns, rows], dtype; not x
  int64_t out_stride = 0;
  DType dtype = DType::kF32;  // kF32 or kBF16
};

// sums[i] += sum over rows of x[r, i], in a fixed order.
struct ColumnSumsArgs {
  const float* x = nullptr;  // [rows, size]
  int64_t x_stride = 0;
  int64_t rows = 0;
  int64_t size = 0;
  float* sums = nullptr;  // [size]
};

// out[rows[i], :] = x[i, :], the inverse of Backend::GatherRows; other rows of out stay.
struct ScatterRowsArgs {
  const float* x = nullptr;       // [count, size]
  const int32_t* rows = nullptr;  // [count], no two the same
  int64_t count = 0;
  int64_t size = 0;
  float* out = nullptr;  // [all rows, size]; not x
};

// The distance of hidden states (swiftkv.md section 4.2), each row's |student - teacher|² over its unit and `tokens`:
//   loss += sum over rows of weight |s - t|², weight = 1 / (tokens unit), dhidden += 2 scale weight (s - t).
struct HiddenLossArgs {
  const float* student = nullptr;  // [rows, size], rows adjacent
  const float* teacher = nullptr;  // [rows, size], the same
  int64_t rows = 0;
  int64_t size = 0;
  bool relative = false;     // unit: the teacher's |t|², at least 1e-30; else `size`, which is the mean square error
  int64_t tokens = 0;        // that the mean is over
  double scale = 0;          // of the gradient
  double* loss = nullptr;    // [1]; added to
  float* dhidden = nullptr;  // [rows, size], rows adjacent; added to
};

// sum += sum of x², in double and in a fixed order.
struct SumOfSquaresArgs {
  const float* x = nullptr;  // [size]
  int64_t size = 0;
  double* sum = nullptr;  // [1]; added to
};

// One step of AdamW, rounded after each operation:
//   g = gradient gradient_scale, m = beta1 m + rest1 g, v = beta2 v + rest2 g g,
//   value = value keep - step_size m / (sqrt(v) root + epsilon).
struct AdamWArgs {
  float* value = nullptr;           // [size], the master
  float* first_moment = nullptr;    // [size], m
  float* second_moment = nullptr;   // [size], v
  const float* gradient = nullptr;  // [size]
  int64_t size = 0;
  void* rounded = nullptr;  // [size] bf16 or null: not wanted; the new value
  float gradient_scale = 1;
  float beta1 = 0;
  float beta2 = 0;
  float rest1 = 0;      // 1 - beta1
  float rest2 = 0;      // 1 - beta2
  float keep = 1;       // 1 - learning rate * weight decay
  float step_size = 0;  // learning rate / (1 - beta1^step)
  float root = 1;       // 1 / sqrt(1 - beta2^step)
  float epsilon = 0;
};

class BackwardOps {
 public:
  virtual ~BackwardOps() = default;
  virtual void RmsNorm(const RmsNormBackwardArgs& args) const = 0;
  virtual void Rope(const RopeBackwardArgs& args) const = 0;
  virtual void SiluMul(const SiluMulBackwardArgs& args) const = 0;
  virtual void Attention(const AttentionBackwardArgs& args) const = 0;
  virtual void KlLoss(const KlLossArgs& args) const = 0;
  virtual void Round(const RoundArgs& args) const = 0;

  // CPUs' twins have these in common.
  virtual void Transpose(const TransposeArgs& args) const;
  virtual void AddColumnSums(const ColumnSumsArgs& args) const;
  virtual void ScatterRows(const ScatterRowsArgs& args) const;
  virtual void HiddenLoss(const HiddenLossArgs& args) const;
  virtual void SumOfSquares(const SumOfSquaresArgs& args) const;
  virtual void AdamW(const AdamWArgs& args) const;
};

}  // namespace swiftkv::kernels

#endif  // SWIFTKV_KERNELS_BACKWARD_OPS_H_
