#include "model/forward.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/aligned_buffer.h"
#include "model/resident.h"
#include "model/step_rows.h"

namespace swiftkv {
namespace {

using kernels::PackedMatrix;

// Parts of a step that a device may record (Backend::Record).
constexpr int64_t kWholeStep = 0;
constexpr int64_t kLastLayers = 1;

// `config`: of the mode, so that a teacher has n = L.
KvLayout LayoutOf(const ModelConfig& config, const kernels::Backend& ops, DType cache_dtype) {
  return {.groups = config.kv_groups(),
          .block_bytes = ops.KvBlockBytes(config.num_key_value_heads, config.head_dim, cache_dtype),
          .memory = &ops.memory()};
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
        vectors_(ops_.memory()),
        rope_(config_, ops_.memory()),
        all_(ops_.memory()),
        kept_(ops_.memory()) {}
  ~Impl() { ops_.ForgetRecordings(this); }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  KvLayout cache_layout() const { return LayoutOf(config_, ops_, cache_dtype_); }
  Status Reserve(int64_t rows, int64_t logit_rows);
  Status Run(const Step& step, KvCache* cache, ForwardObserver* observer);
  Status Logits(int64_t begin, int64_t count, float* out);
  void LogitsInMemory(int64_t begin, int64_t count, float* out);
  Status ReadLogits(int64_t begin, int64_t count, const LogitReads& reads);

 private:
  Status ReadFromDevice(int64_t first, int64_t rows, const LogitReads& reads);
  Status Check(const Step& step, const KvCache& cache, const ForwardObserver* observer) const;
  Status Prepare(const Step& step, KvCache* cache);
  int64_t Padded(int64_t rows) const { return rows <= ops_.tile_rows() ? ops_.RecordedRows(rows) : rows; }
  Status ReserveRows(int64_t all, int64_t kept, bool keeps_all);
  Status Grow(int64_t bytes, const char* what, AlignedBuffer* buffer);

  void FirstLayers();
  void LastLayers();
  void RunLayer(int64_t j, const ResidentRows& rows);
  void TransformerLayer(int64_t j, const ResidentRows& rows, const Tile& tile, RecordedProjections* recorded);
  void Attention(int64_t j, const Tile& tile, const float* q, int64_t q_stride);
  void WriteOwnKv(int64_t j, const ResidentRows& rows);
  void WriteLaterKv(const ResidentRows& rows);
  void KeepRows();

  // `next`: whose inputs these are.
  void Norm(const float* h, const std::vector<float>& weight, int64_t rows, const PackedMatrix& next, void* out);
  void Gemm(const void* x, int64_t rows, const PackedMatrix& w, const std::vector<float>& bias, void* y, DType y_dtype);
  void GatedGemm(const void* x, int64_t rows, const PackedMatrix& w, const std::vector<float>& bias,
                 const PackedMatrix& next, void* out);
  void GemmAdd(const void* x, int64_t rows, const PackedMatrix& w, const std::vector<float>& bias, bool x_quantized,
               float* h);
  bool Quantizes(const PackedMatrix& w, int64_t rows) const { return ops_.InputType(w, rows) == DType::kF8E4M3; }
  kernels::RopeArgs Rope(float* x, int64_t stride, int64_t heads, const std::vector<float>& norm) const;
  void RotateAndStore(const kernels::RopeArgs& q, const kernels::RopeArgs& k, const float* v, int64_t first_group,
                      int64_t groups, const ResidentRows& rows, int64_t begin, int64_t count);
  void Observe(int64_t layer, int64_t rows);

  float* Hidden(int64_t row) { return residual_ + row * config_.hidden_size; }
  bool IsLater(int64_t j) const { return j >= config_.num_key_value_layers; }

  const Weights& weights_;
  const DType cache_dtype_;
  const kernels::Backend& ops_;
  const ModelConfig config_;  // of the mode: a teacher has n = L
  ResidentVectors vectors_;
  ResidentRope rope_;

  // Of the running step:
  KvCache* cache_ = nullptr;           // of this step
  const void* cache_begin_ = nullptr;  // of the step before, whose cache may be gone
  ForwardObserver* observer_ = nullptr;
  bool records_ = false;     // projections for the observer
  int64_t full_layers_ = 0;  // layers that run for all rows; the others run for the logit rows
  ResidentRows all_;         // every row
  ResidentRows kept_;        // the logit rows
  bool keeps_all_ = false;   // they are the same
  std::vector<int32_t> every_row_;
  AlignedBuffer hidden_;       // float32 [tokens, hidden]: the residual stream
  AlignedBuffer kept_hidden_;  // float32 [logit rows, hidden]: of the logit rows, on a device; on the host in hidden_
  float* residual_ = nullptr;  // that of the rows that run
  AlignedBuffer final_;        // act [logit rows, hidden]: after the last norm
  AlignedBuffer logits_;       // float32 [rows of a tile, vocab], on a device
  AlignedBuffer stats_;        // LogitStats [rows of a tile], on a device
  AlignedBuffer draws_;        // TokenDraw [rows of a tile], on a device
  AlignedBuffer tokens_;       // int32 [rows of a tile], on a device
  // Of one tile:
  AlignedBuffer normed_;     // act [rows, hidden]
  AlignedBuffer qkv_;        // float32 [rows, q_size + 2 kv_size]
  AlignedBuffer later_kv_;   // float32 [rows, 2 groups kv_size]
  AlignedBuffer attended_;   // act [rows, q_size]
  AlignedBuffer gate_up_;    // act [rows, 2 intermediate]
  AlignedBuffer activated_;  // act [rows, intermediate]
};

Status Forward::Impl::Run(const Step& step, KvCache* cache, ForwardObserver* observer) {
  SWIFTKV_RETURN_IF_ERROR(Check(step, *cache, observer));
  const auto tokens = static_cast<int64_t>(step.token_ids.size());
  const auto logit_rows = static_cast<int64_t>(step.logit_rows.size());
  // In a plain model the last layer is where rows that nobody reads stop, which loses nothing.
  const bool trims_last_layer = !config_.is_swiftkv() && logit_rows < tokens;
  full_layers_ = trims_last_layer ? config_.num_hidden_layers - 1 : config_.num_key_value_layers;
  if (Status prepared = Prepare(step, cache); !prepared) {
    ops_.ForgetRecordings(this);  // what they read may have moved all the same
    return prepared;
  }
  observer_ = observer;
  records_ = observer != nullptr && observer->WantsProjections() && !observer->StaysInMemory();

  const auto single = [](const Tile& tile) {
    return std::all_of(tile.sequences.begin(), tile.sequences.end(), [](const auto& s) { return s.rows <= 1; });
  };
  const auto recordable = [&](const ResidentRows& rows) {
    return observer == nullptr && rows.tiles().size() == 1 && single(rows.tiles().front());
  };
  if (keeps_all_ && recordable(all_)) {  // answers alone
    ops_.Record({this, kWholeStep, all_.rows()}, [&] {
      FirstLayers();
      LastLayers();
    });
  } else {
    FirstLayers();
    if (logit_rows > 0 && recordable(kept_)) {
      ops_.Record({this, kLastLayers, kept_.rows()}, [&] { LastLayers(); });
    } else if (logit_rows > 0) {
      LastLayers();
    }
  }
  observer_ = nullptr;
  return ops_.TakeError();
}

// Layers that run for all rows. Then all rows leave the K/V of the other layers in the cache.
void Forward::Impl::FirstLayers() {
  const PackedMatrix& embed_tokens = weights_.embed_tokens.n > 0 ? weights_.embed_tokens : weights_.lm_head;
  residual_ = hidden_.as<float>();
  ops_.UnpackRows(embed_tokens, all_.ids(), all_.rows(), Hidden(0));
  Observe(0, all_.rows());
  for (int64_t j = 0; j < full_layers_; ++j) {
    RunLayer(j, all_);
    Observe(j + 1, all_.rows());
  }
  if (config_.is_swiftkv()) WriteLaterKv(all_);
  if (full_layers_ < config_.num_key_value_layers) WriteOwnKv(full_layers_, all_);
}

// The other layers, for the logit rows.
void Forward::Impl::LastLayers() {
  KeepRows();
  for (int64_t j = full_layers_; j < config_.num_hidden_layers; ++j) {
    RunLayer(j, kept_);
    Observe(j + 1, kept_.rows());
  }
  Norm(Hidden(0), weights_.norm, kept_.rows(), weights_.lm_head, final_.data());
  if (observer_ != nullptr) observer_->GemmInput(weights_.lm_head, final_.data(), kept_.rows());
}

void Forward::Impl::RunLayer(int64_t j, const ResidentRows& rows) {
  RecordedProjections recorded;
  for (const Tile& tile : rows.tiles()) TransformerLayer(j, rows, tile, &recorded);
  if (records_) observer_->Projections(j, recorded.q, recorded.k, recorded.v);
}

// h += attention(norm(h)), h += mlp(norm(h)) for the rows of one tile.
void Forward::Impl::TransformerLayer(int64_t j, const ResidentRows& rows, const Tile& tile,
                                     RecordedProjections* recorded) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(j)];
  const bool later = IsLater(j);
  const PackedMatrix& proj = later ? w.q_proj_swiftkv : w.qkv_proj;
  float* h = Hidden(tile.begin);     // [rows, hidden]
  auto* q = qkv_.as<float>();        // [rows, q_size], proj.n apart
  float* k = q + config_.q_size();   // [rows, kv_size], proj.n apart; not in later layers
  float* v = k + config_.kv_size();  // the same

  Norm(h, w.input_layernorm, tile.rows, proj, normed_.data());
  Gemm(normed_.data(), tile.rows, proj, later ? w.q_bias_swiftkv : w.qkv_bias, q, DType::kF32);
  if (records_) AppendRows(q, proj.n, tile.rows, config_.q_size(), &recorded->q);
  const kernels::RopeArgs rope_q = Rope(q, proj.n, config_.num_attention_heads, later ? w.q_norm_swiftkv : w.q_norm);
  if (j < full_layers_) {
    if (records_) AppendRows(k, proj.n, tile.rows, config_.kv_size(), &recorded->k);
    if (records_) AppendRows(v, proj.n, tile.rows, config_.kv_size(), &recorded->v);
    const kernels::RopeArgs rope_k = Rope(k, proj.n, config_.num_key_value_heads, w.k_norm);
    RotateAndStore(rope_q, rope_k, v, j, 1, rows, tile.begin, tile.rows);
  } else {
    RotateAndStore(rope_q, {}, nullptr, 0, 0, rows, tile.begin, tile.rows);
  }
  Attention(j, tile, q, proj.n);                                       // attended = softmax(q Kᵀ) V
  GemmAdd(attended_.data(), tile.rows, w.o_proj, w.o_bias, false, h);  // h += o_proj(attended)
  Norm(h, w.post_attention_layernorm, tile.rows, w.gate_up_proj, normed_.data());
  GatedGemm(normed_.data(), tile.rows, w.gate_up_proj, w.gate_up_bias, w.down_proj, activated_.data());
  GemmAdd(activated_.data(), tile.rows, w.down_proj, w.down_bias, Quantizes(w.down_proj, tile.rows),
          h);  // h += down(silu(gate) * up)
}

// K/V of a plain model's last layer, for rows of which most go no further.
void Forward::Impl::WriteOwnKv(int64_t j, const ResidentRows& rows) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(j)];
  const int64_t stride = w.qkv_proj.n;
  float* k = qkv_.as<float>() + config_.q_size();  // [rows, kv_size]
  float* v = k + config_.kv_size();                // [rows, kv_size]
  RecordedProjections recorded;
  for (const Tile& tile : rows.tiles()) {
    Norm(Hidden(tile.begin), w.input_layernorm, tile.rows, w.qkv_proj, normed_.data());
    Gemm(normed_.data(), tile.rows, w.qkv_proj, w.qkv_bias, qkv_.data(), DType::kF32);
    if (records_) AppendRows(k, stride, tile.rows, config_.kv_size(), &recorded.k);
    if (records_) AppendRows(v, stride, tile.rows, config_.kv_size(), &recorded.v);
    const kernels::RopeArgs rope_k = Rope(k, stride, config_.num_key_value_heads, w.k_norm);
    RotateAndStore({}, rope_k, v, j, 1, rows, tile.begin, tile.rows);
  }
  if (records_) observer_->Projections(j, {}, recorded.k, recorded.v);
}

// SwiftKV: K/V of all layers >= n from the residual stream after layer n - 1, in one GEMM.
void Forward::Impl::WriteLaterKv(const ResidentRows& rows) {
  const LaterKvWeights& w = weights_.later;
  const int64_t n = config_.num_key_value_layers;
  const int64_t groups = config_.kv_groups() - n;
  const int64_t kv_size = config_.kv_size();
  const int64_t stride = w.kv_proj.n;
  std::vector<RecordedProjections> recorded(static_cast<size_t>(groups));
  for (int64_t begin = 0; begin < rows.rows(); begin += ops_.later_kv_rows()) {
    const int64_t count = std::min(ops_.later_kv_rows(), rows.rows() - begin);
    auto* k = later_kv_.as<float>();  // [rows, groups, kv_size]
    float* v = k + groups * kv_size;  // [rows, groups, kv_size]
    Norm(Hidden(begin), w.norm_swiftkv, count, w.kv_proj, normed_.data());
    Gemm(normed_.data(), count, w.kv_proj, w.kv_bias, k, DType::kF32);
    for (int64_t group = 0; group < groups && records_; ++group) {
      AppendRows(k + group * kv_size, stride, count, kv_size, &recorded[static_cast<size_t>(group)].k);
      AppendRows(v + group * kv_size, stride, count, kv_size, &recorded[static_cast<size_t>(group)].v);
    }
    if (w.k_norm.empty()) {
      const kernels::RopeArgs rope_k = Rope(k, stride, groups * config_.num_key_value_heads, {});
      RotateAndStore({}, rope_k, v, n, groups, rows, begin, count);
    }
    for (size_t group = 0; group < w.k_norm.size(); ++group) {  // each with a norm of its own
      const auto at = static_cast<int64_t>(group);
      const kernels::RopeArgs rope_k = Rope(k + at * kv_size, stride, config_.num_key_value_heads, w.k_norm[group]);
      RotateAndStore({}, rope_k, v + at * kv_size, n + at, 1, rows, begin, count);
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
                  .resident_sequences = tile.resident_sequences,
                  .out = attended_.data(),
                  .out_stride = config_.q_size(),
                  .out_dtype = weights_.dtype});
}

// The residual stream of the rows that go on, moved to the front.
void Forward::Impl::KeepRows() {
  if (keeps_all_) return;
  float* to = ops_.memory().is_host() ? hidden_.as<float>() : kept_hidden_.as<float>();
  ops_.GatherRows(hidden_.as<float>(), config_.hidden_size, kept_.ids(), kept_.rows(), to);
  residual_ = to;
}

Status Forward::Impl::Logits(int64_t begin, int64_t count, float* out) {
  const std::vector<uint8_t> wanted(static_cast<size_t>(count), 1);
  return ReadLogits(begin, count, {.logits = out, .wanted = wanted});
}

void Forward::Impl::LogitsInMemory(int64_t begin, int64_t count, float* out) {
  const int64_t row_bytes = config_.hidden_size * (weights_.dtype == DType::kBF16 ? 2 : 4);
  Gemm(final_.data() + begin * row_bytes, count, weights_.lm_head, {}, out, DType::kF32);
}

Status Forward::Impl::ReadLogits(int64_t begin, int64_t count, const LogitReads& reads) {
  if (ops_.memory().is_host()) {
    LogitsInMemory(begin, count, reads.logits);
    if (reads.stats != nullptr) ops_.ComputeLogitStats(reads.logits, count, config_.vocab_size, reads.stats);
    return Ok();
  }
  for (int64_t first = 0; first < count; first += ops_.logit_rows()) {
    const int64_t rows = std::min(ops_.logit_rows(), count - first);
    SWIFTKV_RETURN_IF_ERROR(Grow(rows * config_.vocab_size * 4, "logits", &logits_));
    LogitsInMemory(begin + first, rows, logits_.as<float>());
    SWIFTKV_RETURN_IF_ERROR(ReadFromDevice(first, rows, reads));
  }
  return ops_.TakeError();
}

// Of logits_ [rows, vocab], what `reads` asks for from its row `first`.
Status Forward::Impl::ReadFromDevice(int64_t first, int64_t rows, const LogitReads& reads) {
  MemorySpace& memory = ops_.memory();
  const int64_t vocab = config_.vocab_size;
  if (reads.stats != nullptr) {
    const auto bytes = rows * static_cast<int64_t>(sizeof(kernels::LogitStats));
    SWIFTKV_RETURN_IF_ERROR(Grow(bytes, "logit statistics", &stats_));
    ops_.ComputeLogitStats(logits_.as<float>(), rows, vocab, stats_.as<kernels::LogitStats>());
    memory.Read(reads.stats + first, stats_.data(), bytes);
  }
  if (!reads.draws.empty()) {
    const auto draw_bytes = rows * static_cast<int64_t>(sizeof(kernels::TokenDraw));
    SWIFTKV_RETURN_IF_ERROR(Grow(draw_bytes, "draws", &draws_));
    SWIFTKV_RETURN_IF_ERROR(Grow(rows * 4, "tokens", &tokens_));
    memory.Write(draws_.data(), reads.draws.data() + first, draw_bytes);
    ops_.DrawTokens(logits_.as<float>(), rows, vocab, stats_.as<kernels::LogitStats>(), draws_.as<kernels::TokenDraw>(),
                    tokens_.as<int32_t>());
    memory.Read(reads.tokens + first, tokens_.data(), rows * 4);
  }
  for (int64_t row = 0; row < rows; ++row) {
    if (reads.wanted[static_cast<size_t>(first + row)] == 0) continue;
    memory.Read(reads.logits + (first + row) * vocab, logits_.data() + row * vocab * 4, vocab * 4);
  }
  return Ok();
}

void Forward::Impl::Norm(const float* h, const std::vector<float>& weight, int64_t rows, const PackedMatrix& next,
                         void* out) {
  ops_.RmsNorm({.x = h,
                .x_stride = config_.hidden_size,
                .weight = vectors_.At(weight),
                .eps = static_cast<float>(config_.rms_norm_eps),
                .rows = rows,
                .size = config_.hidden_size,
                .out = out,
                .out_stride = config_.hidden_size,
                .out_dtype = ops_.InputType(next, rows)});
}

void Forward::Impl::Gemm(const void* x, int64_t rows, const PackedMatrix& w, const std::vector<float>& bias, void* y,
                         DType y_dtype) {
  if (observer_ != nullptr) observer_->GemmInput(w, x, rows);
  ops_.Gemm({.x = x,
             .x_stride = w.k,
             .m = rows,
             .w = &w,
             .bias = vectors_.At(bias),
             .y = y,
             .y_stride = w.n,
             .y_dtype = y_dtype,
             .accumulate = false,
             .x_quantized = Quantizes(w, rows)});
}

void Forward::Impl::GatedGemm(const void* x, int64_t rows, const PackedMatrix& w, const std::vector<float>& bias,
                              const PackedMatrix& next, void* out) {
  if (observer_ != nullptr) observer_->GemmInput(w, x, rows);
  ops_.GatedGemm({.gemm = {.x = x,
                           .x_stride = w.k,
                           .m = rows,
                           .w = &w,
                           .bias = vectors_.At(bias),
                           .y = gate_up_.data(),
                           .y_stride = w.n,
                           .y_dtype = weights_.dtype,
                           .x_quantized = Quantizes(w, rows)},
                  .out = out,
                  .out_stride = w.n / 2,
                  .out_quantized = Quantizes(next, rows)});
}

void Forward::Impl::GemmAdd(const void* x, int64_t rows, const PackedMatrix& w, const std::vector<float>& bias,
                            bool x_quantized, float* h) {
  if (observer_ != nullptr) observer_->GemmInput(w, x, rows);
  ops_.Gemm({.x = x,
             .x_stride = w.k,
             .m = rows,
             .w = &w,
             .bias = vectors_.At(bias),
             .y = h,
             .y_stride = w.n,
             .y_dtype = DType::kF32,
             .accumulate = true,
             .x_quantized = x_quantized});
}

kernels::RopeArgs Forward::Impl::Rope(float* x, int64_t stride, int64_t heads, const std::vector<float>& norm) const {
  return {.x = x,
          .x_stride = stride,
          .rows = 0,
          .heads = heads,
          .head_dim = config_.head_dim,
          .positions = nullptr,
          .cos = rope_.cos(),
          .sin = rope_.sin(),
          .norm_weight = vectors_.At(norm),
          .norm_eps = static_cast<float>(config_.rms_norm_eps)};
}

// For rows [begin, begin + count).
void Forward::Impl::RotateAndStore(const kernels::RopeArgs& q, const kernels::RopeArgs& k, const float* v,
                                   int64_t first_group, int64_t groups, const ResidentRows& rows, int64_t begin,
                                   int64_t count) {
  kernels::RotateAndStoreArgs args{.q = q, .k = k, .kv = {}, .groups = groups};
  args.q.rows = args.k.rows = count;
  args.q.positions = args.k.positions = rows.positions() + begin;
  if (k.x != nullptr) {
    args.kv = {.k = k.x,
               .v = v,
               .k_stride = k.x_stride,
               .v_stride = k.x_stride,
               .rows = count,
               .kv_heads = config_.num_key_value_heads,
               .head_dim = config_.head_dim,
               .slots = rows.slots() + begin,
               .cache = cache_->Group(first_group),
               .cache_dtype = cache_dtype_};
    args.group_cache_stride = cache_->blocks() * cache_->layout().block_bytes;
  }
  ops_.RotateAndStore(args);
}

void Forward::Impl::Observe(int64_t layer, int64_t rows) {
  if (observer_ == nullptr) return;
  observer_->LayerInput(layer, {Hidden(0), static_cast<size_t>(rows * config_.hidden_size)});
}

Status Forward::Impl::Check(const Step& step, const KvCache& cache, const ForwardObserver* observer) const {
  SWIFTKV_RETURN_IF_ERROR(ops_.CheckCacheType(cache_dtype_));
  if (observer != nullptr && !observer->StaysInMemory() && !ops_.memory().is_host()) {
    return MakeError(ErrorCode::kInternal, "forward: what this observer reads is on a device");
  }
  const bool has_mode = config_.is_swiftkv() ? weights_.has_student : weights_.has_teacher;
  if (!has_mode) return MakeError(ErrorCode::kInternal, "forward: the weights of this mode are not loaded");
  const KvLayout layout = cache_layout();
  if (cache.layout().groups != layout.groups || cache.layout().block_bytes != layout.block_bytes) {
    return MakeError(ErrorCode::kInternal, "forward: a cache of {} groups x {} bytes, this mode needs {} x {}",
                     cache.layout().groups, cache.layout().block_bytes, layout.groups, layout.block_bytes);
  }
  return CheckStep(step, config_, cache.blocks());
}

// Work memory, rotary tables and the rows of the step.
Status Forward::Impl::Prepare(const Step& step, KvCache* cache) {
  int64_t positions = 0;
  for (const SequenceChunk& chunk : step.chunks) positions = std::max(positions, chunk.position + chunk.tokens);
  SWIFTKV_RETURN_IF_ERROR(vectors_.Place(weights_));
  SWIFTKV_ASSIGN_OR_RETURN(bool moved, rope_.Grow(positions));
  moved |= cache_begin_ != cache->Group(0);
  cache_ = cache;
  cache_begin_ = cache->Group(0);

  const auto tokens = static_cast<int64_t>(step.token_ids.size());
  const auto logit_rows = static_cast<int64_t>(step.logit_rows.size());
  const bool answers = tokens == std::ssize(step.chunks) && logit_rows == tokens;
  keeps_all_ = logit_rows == tokens;
  every_row_.resize(static_cast<size_t>(tokens));
  std::iota(every_row_.begin(), every_row_.end(), 0);
  SWIFTKV_ASSIGN_OR_RETURN(bool all_moved, all_.Place(SelectRows(step, every_row_, ops_.tile_rows()), step.token_ids,
                                                      answers ? Padded(tokens) : tokens));
  StepRows kept = SelectRows(step, step.logit_rows, ops_.tile_rows());
  // At most one logit row in each sequence: recordable, for it is one of answers.
  const bool one_each = kept.tiles.size() == 1 && std::ssize(kept.tiles.front().sequences) == logit_rows;
  SWIFTKV_ASSIGN_OR_RETURN(bool kept_moved,
                           kept_.Place(std::move(kept), step.logit_rows, one_each ? Padded(logit_rows) : logit_rows));
  if (moved || all_moved || kept_moved) ops_.ForgetRecordings(this);
  return ReserveRows(all_.rows(), kept_.rows(), keeps_all_);
}

Status Forward::Impl::Reserve(int64_t rows, int64_t logit_rows) {
  if (ops_.memory().is_host()) return Ok();
  SWIFTKV_RETURN_IF_ERROR(vectors_.Place(weights_));
  SWIFTKV_RETURN_IF_ERROR(ReserveRows(Padded(rows), Padded(logit_rows), false));
  return Grow(std::min(logit_rows, ops_.logit_rows()) * config_.vocab_size * 4, "logits", &logits_);
}

// Work memory for `all` rows, of which `kept` are logit rows. A few of these can be more than all, for they are padded
// where all together are not.
Status Forward::Impl::ReserveRows(int64_t all, int64_t kept, bool keeps_all) {
  const int64_t tile = std::min(std::max(all, kept), ops_.tile_rows());
  const int64_t act = weights_.dtype == DType::kBF16 ? 2 : 4;
  const ModelConfig& c = config_;
  const int64_t later_kv = 2 * (c.kv_groups() - c.num_key_value_layers) * c.kv_size();
  if (!ops_.memory().is_host() && !keeps_all) {
    SWIFTKV_RETURN_IF_ERROR(Grow(kept * c.hidden_size * 4, "residual stream", &kept_hidden_));
  }
  SWIFTKV_RETURN_IF_ERROR(Grow(all * c.hidden_size * 4, "residual stream", &hidden_));
  SWIFTKV_RETURN_IF_ERROR(Grow(kept * c.hidden_size * act, "final hidden states", &final_));
  SWIFTKV_RETURN_IF_ERROR(Grow(tile * c.hidden_size * act, "normed rows", &normed_));
  SWIFTKV_RETURN_IF_ERROR(Grow(tile * (c.q_size() + 2 * c.kv_size()) * 4, "projections", &qkv_));
  SWIFTKV_RETURN_IF_ERROR(Grow(std::min(tile, ops_.later_kv_rows()) * later_kv * 4, "later K/V", &later_kv_));
  SWIFTKV_RETURN_IF_ERROR(Grow(tile * c.q_size() * act, "attention output", &attended_));
  SWIFTKV_RETURN_IF_ERROR(Grow(tile * 2 * c.intermediate_size * act, "gate and up", &gate_up_));
  return Grow(tile * c.intermediate_size * act, "activated rows", &activated_);
}

Status Forward::Impl::Grow(int64_t bytes, const char* what, AlignedBuffer* buffer) {
  if (bytes <= buffer->bytes()) return Ok();
  ops_.ForgetRecordings(this);
  *buffer = AlignedBuffer();  // gives the old memory back first
  SWIFTKV_ASSIGN_OR_RETURN(*buffer, AlignedBuffer::Allocate(bytes, what, ops_.memory()));
  return Ok();
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
Status Forward::Reserve(int64_t rows, int64_t logit_rows) { return impl_->Reserve(rows, logit_rows); }
Status Forward::Run(const Step& step, KvCache* cache, ForwardObserver* observer) {
  return impl_->Run(step, cache, observer);
}
Status Forward::Logits(int64_t begin, int64_t count, float* out) { return impl_->Logits(begin, count, out); }
void Forward::LogitsInMemory(int64_t begin, int64_t count, float* out) { impl_->LogitsInMemory(begin, count, out); }
Status Forward::ReadLogits(int64_t begin, int64_t count, const LogitReads& reads) {
  return impl_->ReadLogits(begin, count, reads);
}

}  // namespace swiftkv
