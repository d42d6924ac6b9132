#include "distill/student_pass.h"

#include <algorithm>
#include <cmath>

namespace swiftkv {
namespace {

using kernels::PackedMatrix;

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
      vectors_(weights.backend->memory()),
      rope_(weights.config, weights.backend->memory()),
      weight_gradient_(*weights.backend, weights.dtype) {}

float* StudentPass::LaterK(int64_t group, AlignedBuffer* buffer) const {
  return buffer->as<float>() + group * config_.kv_size();
}
float* StudentPass::LaterV(int64_t group, AlignedBuffer* buffer) const {
  return buffer->as<float>() + (groups_ + group) * config_.kv_size();
}

const float* StudentPass::LayerInput(int64_t j) const {
  return inputs_.as<float>() + (j - n_) * rows_ * config_.hidden_size;
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
  SWIFTKV_RETURN_IF_ERROR(vectors_.Place(weights_));
  for (const kernels::AttentionDocument& document : batch.documents()) {
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
  if (!cache_ || cache_->blocks() < batch.cache_blocks()) {
    cache_.reset();
    const KvLayout layout{.groups = 1,
                          .block_bytes = ops_.KvBlockBytes(c.num_key_value_heads, c.head_dim, weights_.dtype),
                          .memory = &ops_.memory()};
    SWIFTKV_ASSIGN_OR_RETURN(cache_, KvCache::Create(layout, batch.cache_blocks()));
  }
  return Ok();
}

Status StudentPass::Forward(const BatchRows& batch, const float* hidden) {
  SWIFTKV_RETURN_IF_ERROR(Reserve(batch));
  CopyRows(hidden, config_.hidden_size * 4, inputs_.data());
  LaterKv(batch);
  for (int64_t j = n_; j < config_.num_hidden_layers; ++j) {
    CopyRows(Input(j), config_.hidden_size * 4, Input(j + 1));
    Layer(batch, j, Input(j + 1));
  }
  return Ok();
}

// K and V of all KV groups from the input of layer n, K rotated.
void StudentPass::LaterKv(const BatchRows& batch) {
  const LaterKvWeights& w = weights_.later;
  Norm(Input(n_), student_.value(student_.norm()), shared_.data());
  Gemm(shared_.data(), w.kv_proj, student_.value(student_.group(0).k_bias), later_kv_.data(), DType::kF32, false);
  cached_group_ = -1;
  if (!config_.qk_norm) {
    return Rope(LaterK(0, &later_kv_), later_stride(), groups_ * config_.num_key_value_heads, batch, nullptr);
  }
  // Before their norms, each row's keys, from rows of keys and values.
  ops_.backward().Round({.x = later_kv_.as<float>(),
                         .x_stride = later_stride(),
                         .rows = rows_,
                         .size = groups_ * config_.kv_size(),
                         .out = later_k_raw_.data(),
                         .out_stride = groups_ * config_.kv_size()});
  for (int64_t group = 0; group < groups_; ++group) {
    Rope(LaterK(group, &later_kv_), later_stride(), config_.num_key_value_heads, batch,
         student_.value(student_.group(group).k_norm));
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
                .slots = batch.slots(),
                .cache = cache_->Group(0),
                .cache_dtype = weights_.dtype});
}

// out += attention(norm(input)), out += mlp(norm(out)); `out` holds the input. Keeps what the backward needs.
void StudentPass::Layer(const BatchRows& batch, int64_t j, float* out) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(j)];
  Activations& kept = Kept(j);
  const int64_t q_size = config_.q_size();
  const Student::LayerPlaces& places = student_.layer(j);
  Norm(out, vectors_.At(w.input_layernorm), normed_.data());
  Gemm(normed_.data(), w.q_proj_swiftkv, student_.value(places.q_bias), kept.q.data(), DType::kF32, false);
  if (config_.qk_norm) CopyRows(kept.q.data(), q_size * 4, kept.q_raw.data());
  Rope(kept.q.as<float>(), q_size, config_.num_attention_heads, batch, student_.value(places.q_norm));
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
                  .sequences = batch.tile().sequences,
                  .resident_sequences = batch.tile().resident_sequences,
                  .out = kept.attended.data(),
                  .out_stride = q_size,
                  .out_dtype = weights_.dtype,
                  .log_sum_exp = kept.log_sum_exp.as<float>()});
  Gemm(kept.attended.data(), w.o_proj, vectors_.At(w.o_bias), out, DType::kF32, true);
  CopyRows(out, config_.hidden_size * 4, kept.middle.data());
  Norm(out, vectors_.At(w.post_attention_layernorm), normed_.data());
  Gemm(normed_.data(), w.gate_up_proj, vectors_.At(w.gate_up_bias), kept.gate_up.data(), weights_.dtype, false);
  const int64_t intermediate = config_.intermediate_size;
  ops_.SiluMul({.gate_up = kept.gate_up.data(),
                .gate_up_stride = 2 * intermediate,
                .rows = rows_,
                .size = intermediate,
                .out = activated_.data(),
                .out_stride = intermediate,
                .dtype = weights_.dtype});
  Gemm(activated_.data(), w.down_proj, vectors_.At(w.down_bias), out, DType::kF32, true);
}

Status StudentPass::Backward(const BatchRows& batch, float* dhidden,
                             const std::function<void(int64_t layer, float*)>& at_layer) {
  ops_.memory().Zero(dlater_kv_.data(), rows_ * later_stride() * 4);
  for (int64_t j = config_.num_hidden_layers - 1; j >= n_; --j) {
    if (recompute_) {
      CopyRows(Input(j), config_.hidden_size * 4, Input(j + 1));
      Layer(batch, j, Input(j + 1));
    }
    MlpBackward(j, dhidden);
    SWIFTKV_RETURN_IF_ERROR(AttentionBackward(batch, j, dhidden));
    if (at_layer) at_layer(j, dhidden);
  }
  return LaterKvBackward(batch);
}

// dhidden += the gradient through h + mlp(norm(h)).
void StudentPass::MlpBackward(int64_t j, float* dhidden) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(j)];
  const TransposedWeights::Layer& t = transposed_.layers[static_cast<size_t>(j - n_)];
  Activations& kept = Kept(j);
  const int64_t intermediate = config_.intermediate_size;
  Round(dhidden, config_.hidden_size, narrow_.data());
  Gemm(narrow_.data(), t.down_proj, nullptr, activated_.data(), weights_.dtype, false);
  ops_.backward().SiluMul({.gate_up = kept.gate_up.data(),
                           .gate_up_stride = 2 * intermediate,
                           .rows = rows_,
                           .size = intermediate,
                           .dy = activated_.data(),
                           .dy_stride = intermediate,
                           .dgate_up = wide_.data(),
                           .dgate_up_stride = 2 * intermediate,
                           .dtype = weights_.dtype});
  Gemm(wide_.data(), t.gate_up_proj, nullptr, dnormed_.data(), DType::kF32, false);
  NormBackward(kept.middle.as<float>(), vectors_.At(w.post_attention_layernorm), dnormed_.as<float>(), dhidden);
}

// dhidden += the gradient through h + o_proj(attention(norm(h))); the gradients of q, and of the group's K and V.
Status StudentPass::AttentionBackward(const BatchRows& batch, int64_t j, float* dhidden) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(j)];
  Activations& kept = Kept(j);
  const int64_t q_size = config_.q_size();
  const int64_t group = config_.kv_group(j) - n_;
  Round(dhidden, config_.hidden_size, narrow_.data());
  Gemm(narrow_.data(), transposed_.layers[static_cast<size_t>(j - n_)].o_proj, nullptr, dattended_.data(),
       weights_.dtype, false);
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
                             .documents = batch.documents(),
                             .out = kept.attended.data(),
                             .dout = dattended_.data(),
                             .out_stride = q_size,
                             .dtype = weights_.dtype,
                             .log_sum_exp = kept.log_sum_exp.as<float>(),
                             .dq = dq_.as<float>(),
                             .dq_stride = q_size,
                             .dk = LaterK(group, &dlater_kv_),
                             .dv = LaterV(group, &dlater_kv_),
                             .dkv_stride = later_stride()});
  QueryBackward(batch, j);
  Round(dq_.as<float>(), q_size, narrow_.data());
  const float* input_norm = vectors_.At(w.input_layernorm);
  Norm(Input(j), input_norm, normed_.data());
  SWIFTKV_RETURN_IF_ERROR(weight_gradient_.SetInput(normed_.data(), rows_, config_.hidden_size));
  SWIFTKV_RETURN_IF_ERROR(weight_gradient_.Add(narrow_.data(), q_size, student_.gradient(student_.layer(j).q_weight)));
  if (j == n_) return Ok();  // everything below is frozen
  Gemm(narrow_.data(), student_.q_transposed(j), nullptr, dnormed_.data(), DType::kF32, false);
  NormBackward(Input(j), input_norm, dnormed_.as<float>(), dhidden);
  return Ok();
}

// dq back through the rotation and q_norm, whose gradient and the bias's it adds.
void StudentPass::QueryBackward(const BatchRows& batch, int64_t j) {
  const Student::LayerPlaces& places = student_.layer(j);
  const int64_t q_size = config_.q_size();
  auto* dq = dq_.as<float>();
  RopeBackward(dq, q_size, config_.num_attention_heads, batch);
  if (config_.qk_norm) {
    ops_.backward().RmsNorm({.x = Kept(j).q_raw.as<float>(),
                             .x_stride = q_size,
                             .weight = student_.value(places.q_norm),
                             .eps = static_cast<float>(config_.rms_norm_eps),
                             .rows = rows_,
                             .heads = config_.num_attention_heads,
                             .size = config_.head_dim,
                             .dy = dq,
                             .dy_stride = q_size,
                             .dx = dq,
                             .dx_stride = q_size,
                             .dweight = student_.gradient(places.q_norm)});
  }
  if (places.q_bias >= 0) AddColumnSums(dq, q_size, q_size, student_.gradient(places.q_bias));
}

// From the gradients of all groups' K and V to those of their projections and of norm_swiftkv.
Status StudentPass::LaterKvBackward(const BatchRows& batch) {
  const ModelConfig& c = config_;
  const int64_t stride = later_stride();
  const Student::GroupPlaces& first = student_.group(0);  // where all groups' weights and biases begin
  RopeBackward(dlater_kv_.as<float>(), stride, groups_ * c.num_key_value_heads, batch);
  for (int64_t group = 0; group < groups_ && c.qk_norm; ++group) KeyNormBackward(group);
  if (first.k_bias >= 0) AddColumnSums(dlater_kv_.as<float>(), stride, stride, student_.gradient(first.k_bias));
  Round(dlater_kv_.as<float>(), stride, wide_.data());
  SWIFTKV_RETURN_IF_ERROR(weight_gradient_.SetInput(shared_.data(), rows_, c.hidden_size));
  SWIFTKV_RETURN_IF_ERROR(weight_gradient_.Add(wide_.data(), stride, student_.gradient(first.k_weight)));
  Gemm(wide_.data(), student_.kv_transposed(), nullptr, dnormed_.data(), DType::kF32, false);
  ops_.backward().RmsNorm({.x = Input(n_),
                           .x_stride = c.hidden_size,
                           .weight = student_.value(student_.norm()),
                           .eps = static_cast<float>(c.rms_norm_eps),
                           .rows = rows_,
                           .size = c.hidden_size,
                           .dy = dnormed_.as<float>(),
                           .dy_stride = c.hidden_size,
                           .dweight = student_.gradient(student_.norm())});
  return Ok();
}

void StudentPass::KeyNormBackward(int64_t group) {
  const int64_t place = student_.group(group).k_norm;
  float* dk = LaterK(group, &dlater_kv_);
  ops_.backward().RmsNorm({.x = later_k_raw_.as<float>() + group * config_.kv_size(),
                           .x_stride = groups_ * config_.kv_size(),
                           .weight = student_.value(place),
                           .eps = static_cast<float>(config_.rms_norm_eps),
                           .rows = rows_,
                           .heads = config_.num_key_value_heads,
                           .size = config_.head_dim,
                           .dy = dk,
                           .dy_stride = later_stride(),
                           .dx = dk,
                           .dx_stride = later_stride(),
                           .dweight = student_.gradient(place)});
}

void StudentPass::Norm(const float* x, const float* weight, void* out) const {
  ops_.RmsNorm({.x = x,
                .x_stride = config_.hidden_size,
                .weight = weight,
                .eps = static_cast<float>(config_.rms_norm_eps),
                .rows = rows_,
                .size = config_.hidden_size,
                .out = out,
                .out_stride = config_.hidden_size,
                .out_dtype = weights_.dtype});
}

void StudentPass::NormBackward(const float* x, const float* weight, const float* dy, float* dx) const {
  ops_.backward().RmsNorm({.x = x,
                           .x_stride = config_.hidden_size,
                           .weight = weight,
                           .eps = static_cast<float>(config_.rms_norm_eps),
                           .rows = rows_,
                           .size = config_.hidden_size,
                           .dy = dy,
                           .dy_stride = config_.hidden_size,
                           .dx = dx,
                           .dx_stride = config_.hidden_size,
                           .accumulate = true});
}

void StudentPass::Gemm(const void* x, const PackedMatrix& w, const float* bias, void* y, DType y_dtype,
                       bool accumulate) const {
  ops_.Gemm({.x = x,
             .x_stride = w.k,
             .m = rows_,
             .w = &w,
             .bias = bias,
             .y = y,
             .y_stride = w.n,
             .y_dtype = y_dtype,
             .accumulate = accumulate});
}

void StudentPass::Rope(float* x, int64_t stride, int64_t heads, const BatchRows& batch, const float* norm) const {
  ops_.Rope({.x = x,
             .x_stride = stride,
             .rows = rows_,
             .heads = heads,
             .head_dim = config_.head_dim,
             .positions = batch.positions(),
             .cos = rope_.cos(),
             .sin = rope_.sin(),
             .norm_weight = norm,
             .norm_eps = static_cast<float>(config_.rms_norm_eps)});
}

void StudentPass::RopeBackward(float* dx, int64_t stride, int64_t heads, const BatchRows& batch) const {
  ops_.backward().Rope({.dx = dx,
                        .dx_stride = stride,
                        .rows = rows_,
                        .heads = heads,
                        .head_dim = config_.head_dim,
                        .positions = batch.positions(),
                        .cos = rope_.cos(),
                        .sin = rope_.sin()});
}

void StudentPass::AddColumnSums(const float* x, int64_t stride, int64_t size, float* sums) const {
  ops_.backward().AddColumnSums({.x = x, .x_stride = stride, .rows = rows_, .size = size, .sums = sums});
}

void StudentPass::CopyRows(const void* from, int64_t row_bytes, void* to) const {
  ops_.memory().Copy(static_cast<std::byte*>(to), static_cast<const std::byte*>(from), rows_ * row_bytes);
}

void StudentPass::Round(const float* x, int64_t size, void* out) const {
  ops_.backward().Round(
      {.x = x, .x_stride = size, .rows = rows_, .size = size, .out = out, .out_stride = size, .dtype = weights_.dtype});
}

}  // namespace swiftkv
