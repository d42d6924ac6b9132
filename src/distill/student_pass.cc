#include "distill/student_pass.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace swiftkv {
namespace {

using kernels::PackedMatrix;

const float* OrNull(const std::vector<float>& values) { return values.empty() ? nullptr : values.data(); }

Status Grow(int64_t bytes, const char* what, AlignedBuffer* buffer) {
  if (bytes <= buffer->bytes()) return Ok();
  *buffer = AlignedBuffer();
  SWIFTKV_ASSIGN_OR_RETURN(*buffer, AlignedBuffer::Allocate(bytes, what));
  return Ok();
}

float* At(Gradients* gradients, int64_t place) { return (*gradients)[static_cast<size_t>(place)].data(); }

}  // namespace

Result<TransposedWeights> TransposedWeights::Create(const Weights& weights) {
  TransposedWeights transposed;
  const ModelConfig& c = weights.config;
  for (int64_t j = c.num_key_value_layers; j < c.num_hidden_layers; ++j) {
    const LayerWeights& w = weights.layers[static_cast<size_t>(j)];
    Layer& layer = transposed.layers.emplace_back();
    SWIFTKV_ASSIGN_OR_RETURN(layer.o_proj, TransposePacked(*weights.backend, w.o_proj));
    SWIFTKV_ASSIGN_OR_RETURN(layer.gate_up_proj, TransposePacked(*weights.backend, w.gate_up_proj));
    SWIFTKV_ASSIGN_OR_RETURN(layer.down_proj, TransposePacked(*weights.backend, w.down_proj));
  }
  SWIFTKV_ASSIGN_OR_RETURN(transposed.lm_head, TransposePacked(*weights.backend, weights.lm_head));
  return transposed;
}

StudentPass::StudentPass(const Weights& weights, const TransposedWeights& transposed, const Student& student,
                         bool recompute)
    : weights_(weights),
      transposed_(transposed),
      student_(student),
      ops_(*weights.backend),
      config_(weights.config),
      recompute_(recompute),
      n_(weights.config.num_key_value_layers),
      groups_(weights.config.kv_groups() - n_),
      rope_(weights.config),
      weight_gradient_(*weights.backend, weights.dtype) {}

float* StudentPass::LaterK(int64_t group, AlignedBuffer* buffer) const {
  return buffer->as<float>() + group * config_.kv_size();
}
float* StudentPass::LaterV(int64_t group, AlignedBuffer* buffer) const {
  return buffer->as<float>() + (groups_ + group) * config_.kv_size();
}

std::span<const float> StudentPass::LayerInput(int64_t j) const {
  const int64_t size = rows_ * config_.hidden_size;
  return {inputs_.as<float>() + (j - n_) * size, static_cast<size_t>(size)};
}

Status StudentPass::ReserveActivations(int64_t rows, Activations* kept) const {
  const int64_t q = rows * config_.q_size();
  if (config_.qk_norm) SWIFTKV_RETURN_IF_ERROR(Grow(q * 4, "queries", &kept->q_raw));
  SWIFTKV_RETURN_IF_ERROR(Grow(q * 4, "queries", &kept->q));
  SWIFTKV_RETURN_IF_ERROR(Grow(q * act_bytes(), "attention output", &kept->attended));
  SWIFTKV_RETURN_IF_ERROR(Grow(rows * config_.num_attention_heads * 4, "attention norms", &kept->log_sum_exp));
  SWIFTKV_RETURN_IF_ERROR(Grow(rows * config_.hidden_size * 4, "residual stream", &kept->middle));
  return Grow(rows * 2 * config_.intermediate_size * act_bytes(), "gate and up", &kept->gate_up);
}

Status StudentPass::Reserve(const BatchRows& batch) {
  rows_ = batch.rows();
  for (const kernels::AttentionDocument& document : batch.documents) {
    SWIFTKV_RETURN_IF_ERROR(rope_.Grow(document.rows));
  }
  const ModelConfig& c = config_;
  const int64_t layers = c.num_hidden_layers - n_;
  kept_.resize(recompute_ ? 1 : static_cast<size_t>(layers));
  for (Activations& kept : kept_) SWIFTKV_RETURN_IF_ERROR(ReserveActivations(rows_, &kept));
  const int64_t act = act_bytes();
  const int64_t hidden = rows_ * c.hidden_size;
  const int64_t kv = rows_ * later_stride();
  SWIFTKV_RETURN_IF_ERROR(Grow((layers + 1) * hidden * 4, "layer inputs", &inputs_));
  SWIFTKV_RETURN_IF_ERROR(Grow(hidden * act, "shared K/V input", &shared_));
  SWIFTKV_RETURN_IF_ERROR(Grow(kv * 4, "later K/V", &later_kv_));
  if (c.qk_norm) SWIFTKV_RETURN_IF_ERROR(Grow(kv * 2, "later keys", &later_k_raw_));
  SWIFTKV_RETURN_IF_ERROR(Grow(kv * 4, "gradient of later K/V", &dlater_kv_));
  SWIFTKV_RETURN_IF_ERROR(Grow(hidden * act, "normed rows", &normed_));
  SWIFTKV_RETURN_IF_ERROR(Grow(rows_ * c.intermediate_size * act, "activated rows", &activated_));
  SWIFTKV_RETURN_IF_ERROR(Grow(std::max(rows_ * 2 * c.intermediate_size, kv) * act, "wide gradients", &wide_));
  SWIFTKV_RETURN_IF_ERROR(Grow(rows_ * std::max(c.hidden_size, c.q_size()) * act, "gradients", &narrow_));
  SWIFTKV_RETURN_IF_ERROR(Grow(hidden * 4, "gradients of normed rows", &dnormed_));
  SWIFTKV_RETURN_IF_ERROR(Grow(rows_ * c.q_size() * 4, "gradients of queries", &dq_));
  SWIFTKV_RETURN_IF_ERROR(Grow(rows_ * c.q_size() * act, "gradients of attention", &dattended_));
  if (!cache_ || cache_->blocks() < batch.cache_blocks) {
    cache_.reset();
    const int64_t block_bytes = ops_.KvBlockBytes(c.num_key_value_heads, c.head_dim, weights_.dtype);
    SWIFTKV_ASSIGN_OR_RETURN(cache_, KvCache::Create({.groups = 1, .block_bytes = block_bytes}, batch.cache_blocks));
  }
  return Ok();
}

Status StudentPass::Forward(const BatchRows& batch, std::span<const float> hidden) {
  SWIFTKV_RETURN_IF_ERROR(Reserve(batch));
  std::memcpy(inputs_.data(), hidden.data(), hidden.size_bytes());
  LaterKv(batch);
  for (int64_t j = n_; j < config_.num_hidden_layers; ++j) {
    std::memcpy(Input(j + 1), Input(j), hidden.size_bytes());
    Layer(batch, j, Input(j + 1));
  }
  return Ok();
}

// K and V of all KV groups from the input of layer n, K rotated.
void StudentPass::LaterKv(const BatchRows& batch) {
  const LaterKvWeights& w = weights_.later;
  const int64_t kv_size = config_.kv_size();
  Norm(Input(n_), w.norm_swiftkv, shared_.data());
  Gemm(shared_.data(), w.kv_proj, w.kv_bias, later_kv_.data(), DType::kF32, false);
  cached_group_ = -1;
  if (!config_.qk_norm) {
    return Rope(LaterK(0, &later_kv_), later_stride(), groups_ * config_.num_key_value_heads, batch, {});
  }
  const auto row_bytes = static_cast<size_t>(groups_ * kv_size) * sizeof(float);
  for (int64_t r = 0; r < rows_; ++r) {
    std::memcpy(later_k_raw_.as<float>() + r * groups_ * kv_size, later_kv_.as<float>() + r * later_stride(),
                row_bytes);
  }
  for (int64_t group = 0; group < groups_; ++group) {
    Rope(LaterK(group, &later_kv_), later_stride(), config_.num_key_value_heads, batch,
         w.k_norm[static_cast<size_t>(group)]);
  }
}

// Puts one group's K and V where the attention kernel reads them.
void StudentPass::WriteCache(const BatchRows& batch, int64_t group) {
  if (group == cached_group_) return;
  cached_group_ = group;
  ops_.WriteKv({.k = LaterK(group, &later_kv_),
                .v = LaterV(group, &later_kv_),
                .k_stride = later_stride(),
                .v_stride = later_stride(),
                .rows = rows_,
                .kv_heads = config_.num_key_value_heads,
                .head_dim = config_.head_dim,
                .slots = batch.slots.data(),
                .cache = cache_->Group(0),
                .cache_dtype = weights_.dtype});
}

// out += attention(norm(input)), out += mlp(norm(out)); `out` holds the input. Keeps what the backward needs.
void StudentPass::Layer(const BatchRows& batch, int64_t j, float* out) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(j)];
  Activations& kept = Kept(j);
  const int64_t q_size = config_.q_size();
  Norm(out, w.input_layernorm, normed_.data());
  Gemm(normed_.data(), w.q_proj_swiftkv, w.q_bias_swiftkv, kept.q.data(), DType::kF32, false);
  if (config_.qk_norm) std::memcpy(kept.q_raw.data(), kept.q.data(), static_cast<size_t>(rows_ * q_size * 4));
  Rope(kept.q.as<float>(), q_size, config_.num_attention_heads, batch, w.q_norm_swiftkv);
  WriteCache(batch, config_.kv_group(j) - n_);
  ops_.Attention({.q = kept.q.as<float>(),
                  .q_stride = q_size,
                  .heads = config_.num_attention_heads,
                  .kv_heads = config_.num_key_value_heads,
                  .head_dim = config_.head_dim,
                  .scale = static_cast<float>(1 / std::sqrt(static_cast<double>(config_.head_dim))),
                  .window = config_.sliding_window[static_cast<size_t>(j)],
                  .cache = cache_->Group(0),
                  .cache_dtype = weights_.dtype,
                  .sequences = batch.cached,
                  .out = kept.attended.data(),
                  .out_stride = q_size,
                  .out_dtype = weights_.dtype,
                  .log_sum_exp = kept.log_sum_exp.as<float>()});
  Gemm(kept.attended.data(), w.o_proj, w.o_bias, out, DType::kF32, true);
  std::memcpy(kept.middle.data(), out, static_cast<size_t>(rows_ * config_.hidden_size * 4));
  Norm(out, w.post_attention_layernorm, normed_.data());
  Gemm(normed_.data(), w.gate_up_proj, w.gate_up_bias, kept.gate_up.data(), weights_.dtype, false);
  const int64_t intermediate = config_.intermediate_size;
  ops_.SiluMul({.gate_up = kept.gate_up.data(),
                .gate_up_stride = 2 * intermediate,
                .rows = rows_,
                .size = intermediate,
                .out = activated_.data(),
                .out_stride = intermediate,
                .dtype = weights_.dtype});
  Gemm(activated_.data(), w.down_proj, w.down_bias, out, DType::kF32, true);
}

Status StudentPass::Backward(const BatchRows& batch, float* dhidden,
                             const std::function<void(int64_t layer, float*)>& at_layer, Gradients* gradients) {
  std::memset(dlater_kv_.data(), 0, static_cast<size_t>(rows_ * later_stride() * 4));
  for (int64_t j = config_.num_hidden_layers - 1; j >= n_; --j) {
    if (recompute_) {
      std::memcpy(Input(j + 1), Input(j), static_cast<size_t>(rows_ * config_.hidden_size * 4));
      Layer(batch, j, Input(j + 1));
    }
    MlpBackward(j, dhidden);
    SWIFTKV_RETURN_IF_ERROR(AttentionBackward(batch, j, dhidden, gradients));
    if (at_layer) at_layer(j, dhidden);
  }
  return LaterKvBackward(batch, gradients);
}

// dhidden += the gradient through h + mlp(norm(h)).
void StudentPass::MlpBackward(int64_t j, float* dhidden) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(j)];
  const TransposedWeights::Layer& t = transposed_.layers[static_cast<size_t>(j - n_)];
  Activations& kept = Kept(j);
  const int64_t intermediate = config_.intermediate_size;
  Round(dhidden, config_.hidden_size, narrow_.data());
  Gemm(narrow_.data(), t.down_proj, {}, activated_.data(), weights_.dtype, false);
  ops_.backward().SiluMul({.gate_up = kept.gate_up.data(),
                           .gate_up_stride = 2 * intermediate,
                           .rows = rows_,
                           .size = intermediate,
                           .dy = activated_.data(),
                           .dy_stride = intermediate,
                           .dgate_up = wide_.data(),
                           .dgate_up_stride = 2 * intermediate,
                           .dtype = weights_.dtype});
  Gemm(wide_.data(), t.gate_up_proj, {}, dnormed_.data(), DType::kF32, false);
  NormBackward(kept.middle.as<float>(), w.post_attention_layernorm, dnormed_.as<float>(), dhidden);
}

// dhidden += the gradient through h + o_proj(attention(norm(h))); the gradients of q, and of the group's K and V.
Status StudentPass::AttentionBackward(const BatchRows& batch, int64_t j, float* dhidden, Gradients* gradients) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(j)];
  const Student::LayerPlaces& places = student_.layer(j);
  Activations& kept = Kept(j);
  const int64_t q_size = config_.q_size();
  const int64_t group = config_.kv_group(j) - n_;
  auto* dq = dq_.as<float>();
  Round(dhidden, config_.hidden_size, narrow_.data());
  Gemm(narrow_.data(), transposed_.layers[static_cast<size_t>(j - n_)].o_proj, {}, dattended_.data(), weights_.dtype,
       false);
  ops_.backward().Attention({.q = kept.q.as<float>(),
                             .q_stride = q_size,
                             .k = LaterK(group, &later_kv_),
                             .v = LaterV(group, &later_kv_),
                             .kv_stride = later_stride(),
                             .rows = rows_,
                             .heads = config_.num_attention_heads,
                             .kv_heads = config_.num_key_value_heads,
                             .head_dim = config_.head_dim,
                             .scale = static_cast<float>(1 / std::sqrt(static_cast<double>(config_.head_dim))),
                             .window = config_.sliding_window[static_cast<size_t>(j)],
                             .documents = batch.documents,
                             .out = kept.attended.data(),
                             .dout = dattended_.data(),
                             .out_stride = q_size,
                             .dtype = weights_.dtype,
                             .log_sum_exp = kept.log_sum_exp.as<float>(),
                             .dq = dq,
                             .dq_stride = q_size,
                             .dk = LaterK(group, &dlater_kv_),
                             .dv = LaterV(group, &dlater_kv_),
                             .dkv_stride = later_stride()});
  ops_.backward().Rope({.dx = dq,
                        .dx_stride = q_size,
                        .rows = rows_,
                        .heads = config_.num_attention_heads,
                        .head_dim = config_.head_dim,
                        .positions = batch.positions.data(),
                        .cos = rope_.cos(),
                        .sin = rope_.sin()});
  if (config_.qk_norm) {
    ops_.backward().RmsNorm({.x = kept.q_raw.as<float>(),
                             .x_stride = q_size,
                             .weight = w.q_norm_swiftkv.data(),
                             .eps = static_cast<float>(config_.rms_norm_eps),
                             .rows = rows_,
                             .heads = config_.num_attention_heads,
                             .size = config_.head_dim,
                             .dy = dq,
                             .dy_stride = q_size,
                             .dx = dq,
                             .dx_stride = q_size,
                             .dweight = At(gradients, places.q_norm)});
  }
  if (places.q_bias >= 0) AddColumnSums(dq, q_size, rows_, q_size, At(gradients, places.q_bias));
  Round(dq, q_size, narrow_.data());
  Norm(Input(j), w.input_layernorm, normed_.data());
  SWIFTKV_RETURN_IF_ERROR(weight_gradient_.SetInput(normed_.data(), rows_, config_.hidden_size));
  SWIFTKV_RETURN_IF_ERROR(weight_gradient_.Add(narrow_.data(), q_size, At(gradients, places.q_weight)));
  if (j == n_) return Ok();  // everything below is frozen
  Gemm(narrow_.data(), student_.q_transposed(j), {}, dnormed_.data(), DType::kF32, false);
  NormBackward(Input(j), w.input_layernorm, dnormed_.as<float>(), dhidden);
  return Ok();
}

// From the gradients of all groups' K and V to those of their projections and of norm_swiftkv.
Status StudentPass::LaterKvBackward(const BatchRows& batch, Gradients* gradients) {
  const LaterKvWeights& w = weights_.later;
  const ModelConfig& c = config_;
  const int64_t stride = later_stride();
  ops_.backward().Rope({.dx = dlater_kv_.as<float>(),
                        .dx_stride = stride,
                        .rows = rows_,
                        .heads = groups_ * c.num_key_value_heads,
                        .head_dim = c.head_dim,
                        .positions = batch.positions.data(),
                        .cos = rope_.cos(),
                        .sin = rope_.sin()});
  std::vector<float> dweight(static_cast<size_t>(stride * c.hidden_size));
  for (int64_t group = 0; group < groups_; ++group) {
    const Student::GroupPlaces& places = student_.group(group);
    float* dk = LaterK(group, &dlater_kv_);
    if (c.qk_norm) {
      ops_.backward().RmsNorm({.x = later_k_raw_.as<float>() + group * c.kv_size(),
                               .x_stride = groups_ * c.kv_size(),
                               .weight = w.k_norm[static_cast<size_t>(group)].data(),
                               .eps = static_cast<float>(c.rms_norm_eps),
                               .rows = rows_,
                               .heads = c.num_key_value_heads,
                               .size = c.head_dim,
                               .dy = dk,
                               .dy_stride = stride,
                               .dx = dk,
                               .dx_stride = stride,
                               .dweight = At(gradients, places.k_norm)});
    }
    if (places.k_bias < 0) continue;
    AddColumnSums(dk, stride, rows_, c.kv_size(), At(gradients, places.k_bias));
    AddColumnSums(LaterV(group, &dlater_kv_), stride, rows_, c.kv_size(), At(gradients, places.v_bias));
  }
  Round(dlater_kv_.as<float>(), stride, wide_.data());
  SWIFTKV_RETURN_IF_ERROR(weight_gradient_.SetInput(shared_.data(), rows_, c.hidden_size));
  SWIFTKV_RETURN_IF_ERROR(weight_gradient_.Add(wide_.data(), stride, dweight.data()));
  const auto add = [&](int64_t part, int64_t place) {
    const int64_t size = c.kv_size() * c.hidden_size;
    float* out = At(gradients, place);
    for (int64_t i = 0; i < size; ++i) out[i] += dweight[static_cast<size_t>(part * size + i)];
  };
  for (int64_t group = 0; group < groups_; ++group) {
    add(group, student_.group(group).k_weight);
    add(groups_ + group, student_.group(group).v_weight);
  }
  Gemm(wide_.data(), student_.kv_transposed(), {}, dnormed_.data(), DType::kF32, false);
  ops_.backward().RmsNorm({.x = Input(n_),
                           .x_stride = c.hidden_size,
                           .weight = w.norm_swiftkv.data(),
                           .eps = static_cast<float>(c.rms_norm_eps),
                           .rows = rows_,
                           .size = c.hidden_size,
                           .dy = dnormed_.as<float>(),
                           .dy_stride = c.hidden_size,
                           .dweight = At(gradients, student_.norm())});
  return Ok();
}

void StudentPass::Norm(const float* x, const std::vector<float>& weight, void* out) const {
  ops_.RmsNorm({.x = x,
                .x_stride = config_.hidden_size,
                .weight = weight.data(),
                .eps = static_cast<float>(config_.rms_norm_eps),
                .rows = rows_,
                .size = config_.hidden_size,
                .out = out,
                .out_stride = config_.hidden_size,
                .out_dtype = weights_.dtype});
}

void StudentPass::NormBackward(const float* x, const std::vector<float>& weight, const float* dy, float* dx) const {
  ops_.backward().RmsNorm({.x = x,
                           .x_stride = config_.hidden_size,
                           .weight = weight.data(),
                           .eps = static_cast<float>(config_.rms_norm_eps),
                           .rows = rows_,
                           .size = config_.hidden_size,
                           .dy = dy,
                           .dy_stride = config_.hidden_size,
                           .dx = dx,
                           .dx_stride = config_.hidden_size,
                           .accumulate = true});
}

void StudentPass::Gemm(const void* x, const PackedMatrix& w, const std::vector<float>& bias, void* y, DType y_dtype,
                       bool accumulate) const {
  ops_.Gemm({.x = x,
             .x_stride = w.k,
             .m = rows_,
             .w = &w,
             .bias = OrNull(bias),
             .y = y,
             .y_stride = w.n,
             .y_dtype = y_dtype,
             .accumulate = accumulate});
}

void StudentPass::Rope(float* x, int64_t stride, int64_t heads, const BatchRows& batch,
                       const std::vector<float>& norm) const {
  ops_.Rope({.x = x,
             .x_stride = stride,
             .rows = rows_,
             .heads = heads,
             .head_dim = config_.head_dim,
             .positions = batch.positions.data(),
             .cos = rope_.cos(),
             .sin = rope_.sin(),
             .norm_weight = OrNull(norm),
             .norm_eps = static_cast<float>(config_.rms_norm_eps)});
}

void StudentPass::Round(const float* x, int64_t size, void* out) const {
  ops_.backward().Round(
      {.x = x, .x_stride = size, .rows = rows_, .size = size, .out = out, .out_stride = size, .dtype = weights_.dtype});
}

}  // namespace swiftkv
