// The student's layers >= n for all rows of a micro-batch, forwards with what the backward needs kept, and backwards.
//
//   SWIFTKV_RETURN_IF_ERROR(pass.Forward(batch, hidden));        // hidden: the residual stream after layer n - 1
//   ... the loss's gradient with respect to pass.Output() ...
//   SWIFTKV_RETURN_IF_ERROR(pass.Backward(batch, dhidden, {}));   // into the student's gradients
//
// Everything lives in the memory of the weights' backend, what callers hand in and get included.
// The maths is Forward's (model/forward.h), on the same kernels and weights. Layers below n are frozen and shared with
// the teacher, so no gradient goes further down than layer n.
#ifndef SWIFTKV_DISTILL_STUDENT_PASS_H_
#define SWIFTKV_DISTILL_STUDENT_PASS_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/status.h"
#include "cache/kv_cache.h"
#include "distill/batch_rows.h"
#include "distill/gradient_products.h"
#include "distill/student.h"
#include "model/resident.h"
#include "model/weights.h"

namespace swiftkv {

// Frozen weights of the layers >= n, packed the other way round for dx = dy w.
struct TransposedWeights {
  struct Layer {
    kernels::PackedMatrix o_proj;        // [q_size, hidden]
    kernels::PackedMatrix gate_up_proj;  // [hidden, 2 intermediate]
    kernels::PackedMatrix down_proj;     // [intermediate, hidden]
  };
  std::vector<Layer> layers;      // from layer n
  kernels::PackedMatrix lm_head;  // [hidden, vocab]

  static Result<TransposedWeights> Create(const Weights& weights);
};

class StudentPass {
 public:
  // All must outlive this. With `recompute` only each layer's input is kept; the rest is computed again when its
  // gradient is needed: a third more time in the student's layers, a sixth of their memory.
  StudentPass(const Weights& weights, const TransposedWeights& transposed, const Student& student, bool recompute);

  // hidden: float32 [rows, hidden]. Error kResourceExhausted.
  Status Forward(const BatchRows& batch, const float* hidden);
  // The input of layer j, n <= j <= L (L: the last layer's output, before the final norm), float32 [rows, hidden].
  const float* LayerInput(int64_t j) const;

  // dhidden: the loss's gradient with respect to LayerInput(L), float32 [rows, hidden]; overwritten. After layer j's
  // backward, at_layer(j, dhidden) may add a gradient with respect to LayerInput(j). Adds to the student's gradients.
  Status Backward(const BatchRows& batch, float* dhidden, const std::function<void(int64_t layer, float*)>& at_layer);

 private:
  struct Activations {
    AlignedBuffer q_raw;        // float32 [rows, q_size] before q_norm; only with q/k norms
    AlignedBuffer q;            // float32 [rows, q_size] rotated
    AlignedBuffer attended;     // act [rows, q_size]
    AlignedBuffer log_sum_exp;  // float32 [rows, heads]
    AlignedBuffer middle;       // float32 [rows, hidden]: after attention
    AlignedBuffer gate_up;      // act [rows, 2 intermediate]
  };

  Status Reserve(const BatchRows& batch);
  Status ReserveActivations(int64_t rows, Activations* kept) const;
  Activations& Kept(int64_t j) { return kept_[recompute_ ? 0 : static_cast<size_t>(j - n_)]; }
  float* Input(int64_t j) { return inputs_.as<float>() + (j - n_) * rows_ * config_.hidden_size; }
  float* LaterK(int64_t group, AlignedBuffer* buffer) const;
  float* LaterV(int64_t group, AlignedBuffer* buffer) const;
  int64_t later_stride() const { return 2 * groups_ * config_.kv_size(); }

  void LaterKv(const BatchRows& batch);
  void WriteCache(const BatchRows& batch, int64_t group);
  void Layer(const BatchRows& batch, int64_t j, float* out);
  void MlpBackward(int64_t j, float* dhidden);
  Status AttentionBackward(const BatchRows& batch, int64_t j, float* dhidden);
  void QueryBackward(const BatchRows& batch, int64_t j);
  Status LaterKvBackward(const BatchRows& batch);
  void KeyNormBackward(int64_t group);

  // Weights and biases in the backend's memory; null: none.
  void Norm(const float* x, const float* weight, void* out) const;
  void NormBackward(const float* x, const float* weight, const float* dy, float* dx) const;
  void Gemm(const void* x, const kernels::PackedMatrix& w, const float* bias, void* y, DType y_dtype,
            bool accumulate) const;
  void Rope(float* x, int64_t stride, int64_t heads, const BatchRows& batch, const float* norm) const;
  void RopeBackward(float* dx, int64_t stride, int64_t heads, const BatchRows& batch) const;
  void AddColumnSums(const float* x, int64_t stride, int64_t size, float* sums) const;
  Status Grow(int64_t bytes, const char* what, AlignedBuffer* buffer) const {
    return buffer->Grow(bytes, what, ops_.memory());
  }
  void CopyRows(const void* from, int64_t row_bytes, void* to) const;
  void Round(const float* x, int64_t size, void* out) const;
  int64_t act_bytes() const { return weights_.dtype == DType::kBF16 ? 2 : 4; }

  const Weights& weights_;
  const TransposedWeights& transposed_;
  const Student& student_;
  const kernels::Backend& ops_;
  const ModelConfig& config_;
  const bool recompute_;
  const int64_t n_;
  const int64_t groups_;     // KV groups from layer n
  ResidentVectors vectors_;  // the frozen ones
  ResidentRope rope_;
  std::optional<KvCache> cache_;  // of one KV group at a time
  int64_t cached_group_ = -1;
  WeightGradient weight_gradient_;

  int64_t rows_ = 0;
  AlignedBuffer inputs_;           // float32 [L - n + 1, rows, hidden]
  std::vector<Activations> kept_;  // of each layer, or one with recompute
  AlignedBuffer shared_;           // act [rows, hidden]: s = RMSNorm(input of layer n; norm_swiftkv)
  AlignedBuffer later_kv_;         // float32 [rows, 2, groups, kv_size], K rotated
  AlignedBuffer later_k_raw_;      // float32 [rows, groups, kv_size] before k_norm; only with q/k norms
  AlignedBuffer dlater_kv_;        // float32, as later_kv_
  AlignedBuffer normed_;           // act [rows, hidden]
  AlignedBuffer activated_;        // act [rows, intermediate]: silu(gate) up, then its gradient
  AlignedBuffer wide_;             // act [rows, max(2 intermediate, 2 groups kv_size)]: gradients as products take them
  AlignedBuffer narrow_;           // act [rows, max(hidden, q_size)]: the same
  AlignedBuffer dnormed_;          // float32 [rows, hidden]
  AlignedBuffer dq_;               // float32 [rows, q_size]
  AlignedBuffer dattended_;        // act [rows, q_size]
};

}  // namespace swiftkv

#endif  // SWIFTKV_DISTILL_STUDENT_PASS_H_
