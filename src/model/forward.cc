#include "model/forward.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>

#include "base/aligned_buffer.h"
#include "model/rope.h"
#include "model/step_rows.h"

namespace swiftkv {
namespace {

using kernels::PackedMatrix;

// Rows that go through a layer together (see Tile).
constexpr int64_t kTileRows = 512;
// Rows whose later K/V, many times wider than the residual stream, are made together.
constexpr int64_t kLaterKvRows = 128;

const float* OrNull(const std::vector<float>& values) { return values.empty() ? nullptr : values.data(); }

Status Reserve(int64_t bytes, const char* what, AlignedBuffer* buffer) {
  if (bytes <= buffer->bytes()) return Ok();
  *buffer = AlignedBuffer();  // gives the old memory back first
  SWIFTKV_ASSIGN_OR_RETURN(*buffer, AlignedBuffer::Allocate(bytes, what));
  return Ok();
}

// `config`: of the mode, so that a teacher has n = L.
KvLayout LayoutOf(const ModelConfig& config, const kernels::Backend& ops, DType cache_dtype) {
  return {.groups = config.kv_groups(),
          .block_bytes = ops.KvBlockBytes(config.num_key_value_heads, config.head_dim, cache_dtype)};
}

// Projections of one layer, gathered over its tiles for an observer.
struct RecordedProjections {
  std::vector<float> q;
  std::vector<float> k;
  std::vector<float> v;
};

void AppendRows(const float* rows, int64_t stride, int64_t count, int64_t size, std::vector<float>* out) {
  for (int64_t r = 0; r < count; ++r) out->insert(out->end(), rows + r * stride, rows + r * stride + size);
}

}  // namespace

// In comments: hidden, q_size, kv_size, intermediate as in ModelConfig; "act" is the activation type, weights.dtype.
class Forward::Impl {
 public:
  Impl(const Weights& weights, Mode mode, std::optional<DType> cache_dtype)
      : weights_(weights),
        cache_dtype_(cache_dtype.value_or(weights.dtype)),
        ops_(*weights.backend),
        config_(mode == Mode::kTeacher ? weights.config.Teacher() : weights.config),
        rope_(config_) {}

  KvLayout cache_layout() const { return LayoutOf(config_, ops_, cache_dtype_); }
  Status Run(const Step& step, KvCache* cache, ForwardObserver* observer);
  void Logits(int64_t begin, int64_t count, float* out);

 private:
  Status Check(const Step& step, const KvCache& cache) const;
  Status Prepare(const Step& step);

  void RunLayer(int64_t j, const StepRows& rows);
  void TransformerLayer(int64_t j, const StepRows& rows, const Tile& tile, RecordedProjections* recorded);
  void Attention(int64_t j, const Tile& tile, const float* q, int64_t q_stride);
  void WriteOwnKv(int64_t j, const StepRows& rows);
  void WriteLaterKv(const StepRows& rows);
  void KeepRows(const std::vector<int32_t>& rows);

  void Norm(const float* h, const std::vector<float>& weight, int64_t rows, void* out);
  void Gemm(const void* x, int64_t rows, const PackedMatrix& w, const std::vector<float>& bias, void* y, DType y_dtype);
  void GatedGemm(const void* x, int64_t rows, const PackedMatrix& w, const std::vector<float>& bias, void* out);
  void GemmAdd(const void* x, int64_t rows, const PackedMatrix& w, const std::vector<float>& bias, float* h);
  void Rope(float* x, int64_t stride, int64_t rows, int64_t heads, const int32_t* positions,
            const std::vector<float>& norm);
  void WriteKv(int64_t group, const float* k, const float* v, int64_t stride, int64_t rows, const int64_t* slots);
  void Observe(int64_t layer, int64_t rows);

  float* Hidden(int64_t row) { return hidden_.as<float>() + row * config_.hidden_size; }
  bool IsLater(int64_t j) const { return j >= config_.num_key_value_layers; }

  const Weights& weights_;
  const DType cache_dtype_;
  const kernels::Backend& ops_;
  const ModelConfig config_;  // of the mode: a teacher has n = L
  RopeTable rope_;

  // Of the running step:
  KvCache* cache_ = nullptr;
  ForwardObserver* observer_ = nullptr;
  bool records_ = false;     // projections for the observer
  int64_t full_layers_ = 0;  // layers that run for all rows; the others run for the logit rows
  AlignedBuffer hidden_;     // float32 [tokens, hidden]: the residual stream
  AlignedBuffer final_;      // act [logit rows, hidden]: after the last norm
  // Of one tile:
  AlignedBuffer normed_;     // act [rows, hidden]
  AlignedBuffer qkv_;        // float32 [rows, q_size + 2 kv_size]
  AlignedBuffer later_kv_;   // float32 [rows, 2 groups kv_size]
  AlignedBuffer attended_;   // act [rows, q_size]
  AlignedBuffer gate_up_;    // act [rows, 2 intermediate]
  AlignedBuffer activated_;  // act [rows, intermediate]
};

Status Forward::Impl::Run(const Step& step, KvCache* cache, ForwardObserver* observer) {
  SWIFTKV_RETURN_IF_ERROR(Check(step, *cache));
  SWIFTKV_RETURN_IF_ERROR(Prepare(step));
  cache_ = cache;
  observer_ = observer;
  records_ = observer != nullptr && observer->WantsProjections();
  const auto tokens = static_cast<int64_t>(step.token_ids.size());
  const auto logit_rows = static_cast<int64_t>(step.logit_rows.size());
  std::vector<int32_t> every_row(static_cast<size_t>(tokens));
  std::iota(every_row.begin(), every_row.end(), 0);
  const StepRows all = SelectRows(step, every_row, kTileRows);
  const StepRows kept = SelectRows(step, step.logit_rows, kTileRows);

  // The first layers run for all rows. Then all rows leave the K/V of the other layers in the cache, and only the logit
  // rows go on. In a plain model that split comes before the last layer, which loses nothing.
  const int64_t layers = config_.num_hidden_layers;
  const bool trims_last_layer = !config_.is_swiftkv() && logit_rows < tokens;
  full_layers_ = trims_last_layer ? layers - 1 : config_.num_key_value_layers;

  const PackedMatrix& embed_tokens = weights_.embed_tokens.n > 0 ? weights_.embed_tokens : weights_.lm_head;
  ops_.UnpackRows(embed_tokens, step.token_ids.data(), tokens, Hidden(0));
  Observe(0, tokens);
  for (int64_t j = 0; j < full_layers_; ++j) {
    RunLayer(j, all);
    Observe(j + 1, tokens);
  }
  if (config_.is_swiftkv()) WriteLaterKv(all);
  if (trims_last_layer) WriteOwnKv(layers - 1, all);
  if (logit_rows > 0) {
    KeepRows(step.logit_rows);
    for (int64_t j = full_layers_; j < layers; ++j) {
      RunLayer(j, kept);
      Observe(j + 1, logit_rows);
    }
    Norm(Hidden(0), weights_.norm, logit_rows, final_.data());
    if (observer_ != nullptr) observer_->GemmInput(weights_.lm_head, final_.data(), logit_rows);
  }
  observer_ = nullptr;
  return Ok();
}

void Forward::Impl::RunLayer(int64_t j, const StepRows& rows) {
  RecordedProjections recorded;
  for (const Tile& tile : rows.tiles) TransformerLayer(j, rows, tile, &recorded);
  if (records_) observer_->Projections(j, recorded.q, recorded.k, recorded.v);
}

// h += attention(norm(h)), h += mlp(norm(h)) for the rows of one tile.
void Forward::Impl::TransformerLayer(int64_t j, const StepRows& rows, const Tile& tile, RecordedProjections* recorded) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(j)];
  const bool later = IsLater(j);
  const PackedMatrix& proj = later ? w.q_proj_swiftkv : w.qkv_proj;
  const int32_t* positions = rows.positions.data() + tile.begin;
  float* h = Hidden(tile.begin);     // [rows, hidden]
  auto* q = qkv_.as<float>();        // [rows, q_size], proj.n apart
  float* k = q + config_.q_size();   // [rows, kv_size], proj.n apart; not in later layers
  float* v = k + config_.kv_size();  // the same

  Norm(h, w.input_layernorm, tile.rows, normed_.data());
  Gemm(normed_.data(), tile.rows, proj, later ? w.q_bias_swiftkv : w.qkv_bias, q, DType::kF32);
  if (records_) AppendRows(q, proj.n, tile.rows, config_.q_size(), &recorded->q);
  Rope(q, proj.n, tile.rows, config_.num_attention_heads, positions, later ? w.q_norm_swiftkv : w.q_norm);
  if (j < full_layers_) {
    if (records_) AppendRows(k, proj.n, tile.rows, config_.kv_size(), &recorded->k);
    if (records_) AppendRows(v, proj.n, tile.rows, config_.kv_size(), &recorded->v);
    Rope(k, proj.n, tile.rows, config_.num_key_value_heads, positions, w.k_norm);
    WriteKv(j, k, v, proj.n, tile.rows, rows.slots.data() + tile.begin);
  }
  Attention(j, tile, q, proj.n);                                // attended = softmax(q Kᵀ) V
  GemmAdd(attended_.data(), tile.rows, w.o_proj, w.o_bias, h);  // h += o_proj(attended)
  Norm(h, w.post_attention_layernorm, tile.rows, normed_.data());
  GatedGemm(normed_.data(), tile.rows, w.gate_up_proj, w.gate_up_bias, activated_.data());
  GemmAdd(activated_.data(), tile.rows, w.down_proj, w.down_bias, h);  // h += down(silu(gate) * up)
}

// K/V of a plain model's last layer, for rows of which most go no further.
void Forward::Impl::WriteOwnKv(int64_t j, const StepRows& rows) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(j)];
  const int64_t stride = w.qkv_proj.n;
  float* k = qkv_.as<float>() + config_.q_size();  // [rows, kv_size]
  float* v = k + config_.kv_size();                // [rows, kv_size]
  RecordedProjections recorded;
  for (const Tile& tile : rows.tiles) {
    Norm(Hidden(tile.begin), w.input_layernorm, tile.rows, normed_.data());
    Gemm(normed_.data(), tile.rows, w.qkv_proj, w.qkv_bias, qkv_.data(), DType::kF32);
    if (records_) AppendRows(k, stride, tile.rows, config_.kv_size(), &recorded.k);
    if (records_) AppendRows(v, stride, tile.rows, config_.kv_size(), &recorded.v);
    Rope(k, stride, tile.rows, config_.num_key_value_heads, rows.positions.data() + tile.begin, w.k_norm);
    WriteKv(j, k, v, stride, tile.rows, rows.slots.data() + tile.begin);
  }
  if (records_) observer_->Projections(j, {}, recorded.k, recorded.v);
}

// SwiftKV: K/V of all layers >= n from the residual stream after layer n - 1, in one GEMM.
void Forward::Impl::WriteLaterKv(const StepRows& rows) {
  const LaterKvWeights& w = weights_.later;
  const int64_t n = config_.num_key_value_layers;
  const int64_t groups = config_.kv_groups() - n;
  const int64_t kv_size = config_.kv_size();
  const int64_t stride = w.kv_proj.n;
  std::vector<RecordedProjections> recorded(static_cast<size_t>(groups));
  for (int64_t begin = 0; begin < rows.rows(); begin += kLaterKvRows) {
    const int64_t count = std::min(kLaterKvRows, rows.rows() - begin);
    auto* k = later_kv_.as<float>();  // [rows, groups, kv_size]
    float* v = k + groups * kv_size;  // [rows, groups, kv_size]
    const int32_t* positions = rows.positions.data() + begin;
    Norm(Hidden(begin), w.norm_swiftkv, count, normed_.data());
    Gemm(normed_.data(), count, w.kv_proj, w.kv_bias, k, DType::kF32);
    for (int64_t group = 0; group < groups && records_; ++group) {
      AppendRows(k + group * kv_size, stride, count, kv_size, &recorded[static_cast<size_t>(group)].k);
      AppendRows(v + group * kv_size, stride, count, kv_size, &recorded[static_cast<size_t>(group)].v);
    }
    if (w.k_norm.empty()) Rope(k, stride, count, groups * config_.num_key_value_heads, positions, {});
    for (int64_t group = 0; group < groups; ++group) {
      float* group_k = k + group * kv_size;
      if (!w.k_norm.empty()) {
        Rope(group_k, stride, count, config_.num_key_value_heads, positions, w.k_norm[static_cast<size_t>(group)]);
      }
      WriteKv(n + group, group_k, v + group * kv_size, stride, count, rows.slots.data() + begin);
    }
  }
  for (int64_t group = 0; group < groups && records_; ++group) {
    const RecordedProjections& r = recorded[static_cast<size_t>(group)];
    observer_->Projections(n + group * config_.key_value_group_size, {}, r.k, r.v);
  }
}

void Forward::Impl::Attention(int64_t j, const Tile& tile, const float* q, int64_t q_stride) {
  ops_.Attention({.q = q,
                  .q_stride = q_stride,
                  .heads = config_.num_attention_heads,
                  .kv_heads = config_.num_key_value_heads,
                  .head_dim = config_.head_dim,
                  .scale = static_cast<float>(1 / std::sqrt(static_cast<double>(config_.head_dim))),
                  .window = config_.sliding_window[static_cast<size_t>(j)],
                  .cache = cache_->Group(config_.kv_group(j)),
                  .cache_dtype = cache_dtype_,
                  .sequences = tile.sequences,
                  .out = attended_.data(),
                  .out_stride = config_.q_size(),
                  .out_dtype = weights_.dtype});
}

// The residual stream of the rows that go on, moved to the front.
void Forward::Impl::KeepRows(const std::vector<int32_t>& rows) {
  for (size_t i = 0; i < rows.size(); ++i) {
    if (static_cast<size_t>(rows[i]) == i) continue;
    std::memcpy(Hidden(static_cast<int64_t>(i)), Hidden(rows[i]),
                static_cast<size_t>(config_.hidden_size) * sizeof(float));
  }
}

void Forward::Impl::Logits(int64_t begin, int64_t count, float* out) {
  const int64_t row_bytes = config_.hidden_size * (weights_.dtype == DType::kBF16 ? 2 : 4);
  Gemm(final_.data() + begin * row_bytes, count, weights_.lm_head, {}, out, DType::kF32);
}

void Forward::Impl::Norm(const float* h, const std::vector<float>& weight, int64_t rows, void* out) {
  ops_.RmsNorm({.x = h,
                .x_stride = config_.hidden_size,
                .weight = weight.data(),
                .eps = static_cast<float>(config_.rms_norm_eps),
                .rows = rows,
                .size = config_.hidden_size,
                .out = out,
                .out_stride = config_.hidden_size,
                .out_dtype = weights_.dtype});
}

void Forward::Impl::Gemm(const void* x, int64_t rows, const PackedMatrix& w, const std::vector<float>& bias, void* y,
                         DType y_dtype) {
  if (observer_ != nullptr) observer_->GemmInput(w, x, rows);
  ops_.Gemm({.x = x,
             .x_stride = w.k,
             .m = rows,
             .w = &w,
             .bias = OrNull(bias),
             .y = y,
             .y_stride = w.n,
             .y_dtype = y_dtype,
             .accumulate = false});
}

void Forward::Impl::GatedGemm(const void* x, int64_t rows, const PackedMatrix& w, const std::vector<float>& bias,
                              void* out) {
  if (observer_ != nullptr) observer_->GemmInput(w, x, rows);
  ops_.GatedGemm({.gemm = {.x = x,
                           .x_stride = w.k,
                           .m = rows,
                           .w = &w,
                           .bias = OrNull(bias),
                           .y = gate_up_.data(),
                           .y_stride = w.n,
                           .y_dtype = weights_.dtype},
                  .out = out,
                  .out_stride = w.n / 2});
}

void Forward::Impl::GemmAdd(const void* x, int64_t rows, const PackedMatrix& w, const std::vector<float>& bias,
                            float* h) {
  if (observer_ != nullptr) observer_->GemmInput(w, x, rows);
  ops_.Gemm({.x = x,
             .x_stride = w.k,
             .m = rows,
             .w = &w,
             .bias = OrNull(bias),
             .y = h,
             .y_stride = w.n,
             .y_dtype = DType::kF32,
             .accumulate = true});
}

void Forward::Impl::Rope(float* x, int64_t stride, int64_t rows, int64_t heads, const int32_t* positions,
                         const std::vector<float>& norm) {
  ops_.Rope({.x = x,
             .x_stride = stride,
             .rows = rows,
             .heads = heads,
             .head_dim = config_.head_dim,
             .positions = positions,
             .cos = rope_.cos(),
             .sin = rope_.sin(),
             .norm_weight = OrNull(norm),
             .norm_eps = static_cast<float>(config_.rms_norm_eps)});
}

void Forward::Impl::WriteKv(int64_t group, const float* k, const float* v, int64_t stride, int64_t rows,
                            const int64_t* slots) {
  ops_.WriteKv({.k = k,
                .v = v,
                .k_stride = stride,
                .v_stride = stride,
                .rows = rows,
                .kv_heads = config_.num_key_value_heads,
                .head_dim = config_.head_dim,
                .slots = slots,
                .cache = cache_->Group(group),
                .cache_dtype = cache_dtype_});
}

void Forward::Impl::Observe(int64_t layer, int64_t rows) {
  if (observer_ == nullptr) return;
  observer_->LayerInput(layer, {Hidden(0), static_cast<size_t>(rows * config_.hidden_size)});
}

Status Forward::Impl::Check(const Step& step, const KvCache& cache) const {
  const bool has_mode = config_.is_swiftkv() ? weights_.has_student : weights_.has_teacher;
  if (!has_mode) return MakeError(ErrorCode::kInternal, "forward: the weights of this mode are not loaded");
  const KvLayout layout = cache_layout();
  if (cache.layout().groups != layout.groups || cache.layout().block_bytes != layout.block_bytes) {
    return MakeError(ErrorCode::kInternal, "forward: a cache of {} groups x {} bytes, this mode needs {} x {}",
                     cache.layout().groups, cache.layout().block_bytes, layout.groups, layout.block_bytes);
  }
  return CheckStep(step, config_, cache.blocks());
}

// Work memory and rotary tables for the step.
Status Forward::Impl::Prepare(const Step& step) {
  for (const SequenceChunk& chunk : step.chunks) SWIFTKV_RETURN_IF_ERROR(rope_.Grow(chunk.position + chunk.tokens));
  const auto tokens = static_cast<int64_t>(step.token_ids.size());
  const auto logit_rows = static_cast<int64_t>(step.logit_rows.size());
  const int64_t tile = std::min(tokens, kTileRows);
  const int64_t act = weights_.dtype == DType::kBF16 ? 2 : 4;
  const ModelConfig& c = config_;
  const int64_t later_kv = 2 * (c.kv_groups() - c.num_key_value_layers) * c.kv_size();
  SWIFTKV_RETURN_IF_ERROR(Reserve(tokens * c.hidden_size * 4, "residual stream", &hidden_));
  SWIFTKV_RETURN_IF_ERROR(Reserve(logit_rows * c.hidden_size * act, "final hidden states", &final_));
  SWIFTKV_RETURN_IF_ERROR(Reserve(tile * c.hidden_size * act, "normed rows", &normed_));
  SWIFTKV_RETURN_IF_ERROR(Reserve(tile * (c.q_size() + 2 * c.kv_size()) * 4, "projections", &qkv_));
  SWIFTKV_RETURN_IF_ERROR(Reserve(std::min(tile, kLaterKvRows) * later_kv * 4, "later K/V", &later_kv_));
  SWIFTKV_RETURN_IF_ERROR(Reserve(tile * c.q_size() * act, "attention output", &attended_));
  SWIFTKV_RETURN_IF_ERROR(Reserve(tile * 2 * c.intermediate_size * act, "gate and up", &gate_up_));
  return Reserve(tile * c.intermediate_size * act, "activated rows", &activated_);
}

KvLayout CacheLayout(const Weights& weights, Mode mode, std::optional<DType> cache_dtype) {
  const ModelConfig config = mode == Mode::kTeacher ? weights.config.Teacher() : weights.config;
  return LayoutOf(config, *weights.backend, cache_dtype.value_or(weights.dtype));
}

Forward::Forward(const Weights& weights, Mode mode, std::optional<DType> cache_dtype)
    : impl_(std::make_unique<Impl>(weights, mode, cache_dtype)) {}
Forward::~Forward() = default;
Forward::Forward(Forward&&) noexcept = default;
Forward& Forward::operator=(Forward&&) noexcept = default;
KvLayout Forward::cache_layout() const { return impl_->cache_layout(); }
Status Forward::Run(const Step& step, KvCache* cache, ForwardObserver* observer) {
  return impl_->Run(step, cache, observer);
}
void Forward::Logits(int64_t begin, int64_t count, float* out) { impl_->Logits(begin, count, out); }

}  // namespace swiftkv
