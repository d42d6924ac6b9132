// The CUDA twin of ops.h: kernels of our own (launch.h), products by cuBLASLt (gemm.h), recordings as CUDA graphs.
//
// Batch invariance is no promise here: cuBLASLt chooses its kernel by the number of rows.
#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <new>
#include <utility>

#include "base/bfloat16.h"
#include "kernels/cuda/backward_ops.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/draw.h"
#include "kernels/cuda/few_rows.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/launch.h"
#include "kernels/ops.h"

namespace swiftkv::kernels {
namespace cuda {
namespace {

int64_t ElementBytes(DType dtype) { return BlockBytes(dtype); }

// Scales of E4M3 rows lie behind their codes.
int64_t CodeBytes(int64_t rows, int64_t size) { return (rows * size + 255) / 256 * 256; }
float* RowScales(void* codes, int64_t rows, int64_t size) {
  return reinterpret_cast<float*>(static_cast<std::byte*>(codes) + CodeBytes(rows, size));
}
const float* WeightScales(const PackedMatrix& w) {
  if (w.dtype != DType::kF8E4M3) return nullptr;
  return reinterpret_cast<const float*>(w.data.data() + CodeBytes(w.n, w.k));
}

// A recorded run of operations; a graph once it has been seen twice.
struct Recording {
  cudaGraphExec_t graph = nullptr;
  bool refused = false;  // it could not be recorded, or failed
};

class Backend final : public kernels::Backend {
 public:
  explicit Backend(std::unique_ptr<Device> device)
      : device_(std::move(device)), backward_(device_.get()), gemm_(device_.get()) {
    const char* graphs = std::getenv("SWIFTKV_CUDA_GRAPHS");
    records_ = graphs == nullptr || std::string_view(graphs) != "0";
  }
  ~Backend() override {
    Forget([](const RecordingKey&) { return true; });
  }
  Status Init() { return gemm_.Init(); }

  std::string_view name() const override { return "cuda"; }
  std::string device_name() const override { return device_->properties().name; }
  int64_t max_head_dim() const override { return kMaxHeadDim; }
  MemorySpace& memory() const override { return *device_; }
  Status TakeError() const override { return device_->TakeError(); }
  int64_t step_tokens() const override { return 8192; }
  int64_t tile_rows() const override { return 16384; }
  int64_t later_kv_rows() const override { return 4096; }
  int64_t logit_rows() const override { return 512; }
  void Record(const RecordingKey& key, const std::function<void()>& operations) const override;
  void ForgetRecordings(const void* owner) const override {
    Forget([&](const RecordingKey& key) { return key.owner == owner; });
  }
  int64_t RecordedRows(int64_t rows) const override;

  Result<PackedMatrix> AllocatePacked(int64_t n, int64_t k, DType dtype) const override;
  Result<PackedMatrix> AllocateInt8(int64_t n, int64_t k, std::vector<int32_t> exact_features) const override;
  void PackRows(const float* rows, int64_t row_begin, int64_t row_count, PackedMatrix* w) const override;
  // No matrix that these are for can be allocated.
  void PackQuantizedRows(const QuantizedRows&, int64_t, int64_t, PackedMatrix*) const override {}
  void RepackInt8Rows(const PackedMatrix&, int64_t, int64_t, PackedMatrix*) const override {}
  void PackFromMemory(const float* rows, int64_t row_begin, int64_t row_count, PackedMatrix* w) const override;
  void PackTransposed(const void* x, DType dtype, int64_t rows, int64_t columns, PackedMatrix* w) const override;
  Status TransposePacked(const PackedMatrix& w, PackedMatrix* out) const override {
    PackTransposed(w.data.data(), w.dtype, w.n, w.k, out);
    return Ok();
  }
  void UnpackRows(const PackedMatrix& w, const int32_t* ids, int64_t count, float* out) const override {
    cuda::UnpackRows(w.data.data(), w.dtype, WeightScales(w), w.k, ids, count, out, stream());
  }

  DType InputType(const PackedMatrix& w, int64_t rows) const override {
    return w.dtype == DType::kF8E4M3 && rows > kMostFewRows ? DType::kF8E4M3 : w.activation_dtype();
  }
  void Gemm(const GemmArgs& args) const override;
  void GatedGemm(const GatedGemmArgs& args) const override;
  void RmsNorm(const RmsNormArgs& args) const override;
  void Rope(const RopeArgs& args) const override { cuda::Rope(args, stream()); }
  void RotateAndStore(const RotateAndStoreArgs& args) const override;
  void GatherRows(const float* x, int64_t size, const int32_t* rows, int64_t count, float* out) const override {
    cuda::GatherRows(x, size, rows, count, out, stream());
  }
  void SiluMul(const SiluMulArgs& args) const override { SiluMul(args, args.dtype); }

  Status CheckCacheType(DType cache_dtype) const override {
    if (cache_dtype == DType::kF32 || cache_dtype == DType::kBF16 || cache_dtype == DType::kF8E4M3) return Ok();
    return InvalidInput("a GPU can't read a K/V cache in {}; --kv-cache-dtype can be fp8 there", Name(cache_dtype));
  }
  int64_t KvBlockBytes(int64_t kv_heads, int64_t head_dim, DType cache_dtype) const override {
    return 2 * kv_heads * kBlockTokens * head_dim * ElementBytes(cache_dtype);
  }
  void WriteKv(const KvWriteArgs& args) const override;
  void Attention(const AttentionArgs& args) const override;

  void ComputeLogitStats(const float* logits, int64_t rows, int64_t vocab, LogitStats* stats) const override {
    cuda::ComputeLogitStats(logits, rows, vocab, stats, stream());
  }
  bool draws_tokens() const override { return true; }
  void DrawTokens(const float* logits, int64_t rows, int64_t vocab, const LogitStats* stats, const TokenDraw* draws,
                  int32_t* tokens) const override {
    cuda::Draw({logits, rows, vocab, stats, draws, tokens}, stream());
  }
  void KlDivergence(const float* p_logits, const float* q_logits, int64_t rows, int64_t vocab,
                    float* kl) const override {
    cuda::KlDivergence(p_logits, q_logits, rows, vocab, kl, stream());
  }
  const BackwardOps& backward() const override { return backward_; }

 private:
  cudaStream_t stream() const { return device_->stream(); }
  void SiluMul(const SiluMulArgs& args, DType out_dtype) const;
  Recording Capture(const std::function<void()>& operations) const;
  template <class Predicate>
  void Forget(const Predicate& forgets) const;
  // Work memory of at least that size; null where there is none. Moving it makes recordings void.
  std::byte* Scratch(int64_t bytes, AlignedBuffer* buffer) const;

  std::unique_ptr<Device> device_;
  CudaBackwardOps backward_;
  bool records_ = true;
  // Everything below is of the one thread that runs steps, but for `packing_`.
  mutable cuda::Gemm gemm_;
  mutable std::map<RecordingKey, Recording> recordings_;
  mutable AlignedBuffer quantized_;  // inputs in E4M3, then their scales
  mutable AlignedBuffer partials_;   // of attention's splits
  mutable AlignedBuffer rounded_;    // rows of float32 on their way to a transposed matrix of bf16
  mutable std::mutex packing_;
  mutable AlignedBuffer packed_rows_;  // bf16 rows on their way to E4M3
};

template <class Predicate>
void Backend::Forget(const Predicate& forgets) const {
  for (auto it = recordings_.begin(); it != recordings_.end();) {
    if (!forgets(it->first)) {
      ++it;
      continue;
    }
    if (it->second.graph != nullptr) cudaGraphExecDestroy(it->second.graph);
    it = recordings_.erase(it);
  }
}

// The first time operations run as they are, which also makes what may not be made while recording.
void Backend::Record(const RecordingKey& key, const std::function<void()>& operations) const {
  const auto [it, first] = recordings_.try_emplace(key);
  if (!records_ || first || it->second.refused) return operations();
  if (it->second.graph == nullptr) {
    const Status before = device_->TakeError();
    it->second = Capture(operations);
    device_->TakeError();  // operations that fail say so again below
    if (!before) device_->Fail(before.error());
    if (it->second.refused) return operations();  // slower, but not wrong
  }
  device_->Check(cudaGraphLaunch(it->second.graph, stream()), "graph");
}

// Refused where an operation failed: without it the graph would go on as if nothing had happened.
Recording Backend::Capture(const std::function<void()>& operations) const {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  cudaError_t error = cudaStreamBeginCapture(stream(), cudaStreamCaptureModeThreadLocal);
  if (error == cudaSuccess) {
    operations();
    error = cudaStreamEndCapture(stream(), &graph);
  }
  const Status recorded = device_->TakeError();
  if (error == cudaSuccess && recorded) error = cudaGraphInstantiate(&executable, graph, 0);
  if (graph != nullptr) cudaGraphDestroy(graph);
  const bool instantiated = error == cudaSuccess && recorded.has_value();
  return {.graph = instantiated ? executable : nullptr, .refused = !instantiated};
}

// One graph serves several numbers of rows: the rows added cost less than the graphs saved.
int64_t Backend::RecordedRows(int64_t rows) const {
  if (rows <= 4) return rows;
  const int64_t step = rows <= 64 ? 8 : rows <= 256 ? 16 : 64;
  return (rows + step - 1) / step * step;
}

std::byte* Backend::Scratch(int64_t bytes, AlignedBuffer* buffer) const {
  if (bytes <= buffer->bytes()) return buffer->data();
  Forget([](const RecordingKey&) { return true; });
  *buffer = AlignedBuffer();
  Result<AlignedBuffer> grown = AlignedBuffer::Allocate(bytes, "work memory", *device_);
  if (!grown) {
    device_->Fail(grown.error());
    return nullptr;
  }
  *buffer = std::move(*grown);
  return buffer->data();
}

Result<PackedMatrix> Backend::AllocatePacked(int64_t n, int64_t k, DType dtype) const {
  if (dtype != DType::kF32 && dtype != DType::kBF16 && dtype != DType::kF8E4M3) {
    return InvalidInput("weights in {} can't be multiplied on a GPU; --quantization can be none or fp8 there",
                        Name(dtype));
  }
  const cudaDeviceProp& gpu = device_->properties();
  if (dtype == DType::kF8E4M3 && (gpu.major != 9 || gpu.minor != 0)) {  // cuBLASLt has outer-vector scales there alone
    return InvalidInput("fp8 products need compute capability 9.0; this GPU has {}.{}; use --quantization none",
                        gpu.major, gpu.minor);
  }
  PackedMatrix w{.n = n, .k = k, .dtype = dtype};
  const int64_t bytes =
      dtype == DType::kF8E4M3 ? CodeBytes(n, k) + n * int64_t{sizeof(float)} : n * k * ElementBytes(dtype);
  SWIFTKV_ASSIGN_OR_RETURN(w.data, AlignedBuffer::Allocate(bytes, "weights", *device_));
  return w;
}

Result<PackedMatrix> Backend::AllocateInt8(int64_t, int64_t, std::vector<int32_t>) const {
  return InvalidInput("int8 products are made on CPUs alone; on a GPU --quantization can be none or fp8");
}

void Backend::PackRows(const float* rows, int64_t row_begin, int64_t row_count, PackedMatrix* w) const {
  const int64_t count = row_count * w->k;
  std::byte* to = w->data.data() + row_begin * w->k * ElementBytes(w->dtype);
  if (w->dtype == DType::kF32) return device_->Write(to, rows, count * 4);
  // Called in ParallelFor, where nothing may throw.
  const std::unique_ptr<BFloat16[]> rounded(new (std::nothrow) BFloat16[static_cast<size_t>(count)]);
  if (rounded == nullptr) return device_->Fail({ErrorCode::kResourceExhausted, "no memory to pack weights"});
  for (int64_t i = 0; i < count; ++i) rounded[static_cast<size_t>(i)] = ToBFloat16(rows[i]);
  if (w->dtype == DType::kBF16) return device_->Write(to, rounded.get(), count * 2);
  const std::lock_guard lock(packing_);
  std::byte* staged = Scratch(count * 2, &packed_rows_);
  if (staged == nullptr) return;
  device_->Write(staged, rounded.get(), count * 2);
  QuantizeRows({.x = staged,
                .x_stride = w->k,
                .x_dtype = DType::kBF16,
                .rows = row_count,
                .size = w->k,
                .out = reinterpret_cast<uint8_t*>(to),
                .scales = const_cast<float*>(WeightScales(*w)) + row_begin},
               stream());
  device_->Check(cudaGetLastError(), "packing weights");  // which is this thread's own
}

void Backend::PackFromMemory(const float* rows, int64_t row_begin, int64_t row_count, PackedMatrix* w) const {
  backward_.Round({.x = rows,
                   .x_stride = w->k,
                   .rows = row_count,
                   .size = w->k,
                   .out = w->data.data() + row_begin * w->k * ElementBytes(w->dtype),
                   .out_stride = w->k,
                   .dtype = w->dtype});
}

void Backend::PackTransposed(const void* x, DType dtype, int64_t rows, int64_t columns, PackedMatrix* w) const {
  constexpr int64_t kRoundedRows = 4096;  // that are in bf16 at a time
  TransposeArgs transpose{.x = x,
                          .x_stride = columns,
                          .rows = rows,
                          .columns = columns,
                          .out = w->data.data(),
                          .out_stride = w->k,
                          .dtype = w->dtype};
  if (dtype == w->dtype) return backward_.Transpose(transpose);
  std::byte* rounded = Scratch(std::min(rows, kRoundedRows) * columns * ElementBytes(w->dtype), &rounded_);
  if (rounded == nullptr) return;
  transpose.x = rounded;
  for (int64_t begin = 0; begin < rows; begin += kRoundedRows) {
    transpose.rows = std::min(kRoundedRows, rows - begin);
    transpose.out = w->data.data() + begin * ElementBytes(w->dtype);
    backward_.Round({.x = static_cast<const float*>(x) + begin * columns,
                     .x_stride = columns,
                     .rows = transpose.rows,
                     .size = columns,
                     .out = rounded,
                     .out_stride = columns,
                     .dtype = w->dtype});
    backward_.Transpose(transpose);
  }
}

void Backend::Gemm(const GemmArgs& args) const {
  const PackedMatrix& w = *args.w;
  if (args.m == 0) return;
  const auto add_bias = [&] {
    if (args.bias != nullptr) AddBias(args.y, args.y_dtype, args.y_stride, args.bias, args.m, w.n, stream());
  };
  if (!args.x_quantized && FewRows({.x = args.x,
                                    .x_stride = args.x_stride,
                                    .m = args.m,
                                    .w = w.data.data(),
                                    .w_scales = WeightScales(w),
                                    .w_dtype = w.dtype,
                                    .n = w.n,
                                    .k = w.k,
                                    .y = args.y,
                                    .y_stride = args.y_stride,
                                    .y_dtype = args.y_dtype,
                                    .accumulate = args.accumulate},
                                   stream())) {
    return add_bias();
  }
  Product product{.x = args.x,
                  .x_scales = nullptr,
                  .x_stride = args.x_stride,
                  .m = args.m,
                  .w = w.data.data(),
                  .w_scales = WeightScales(w),
                  .w_dtype = w.dtype,
                  .n = w.n,
                  .k = w.k,
                  .y = args.y,
                  .y_stride = args.y_stride,
                  .y_dtype = args.y_dtype,
                  .accumulate = args.accumulate};
  if (w.dtype == DType::kF8E4M3) {
    void* codes = const_cast<void*>(args.x);
    if (!args.x_quantized) {
      codes = Scratch(CodeBytes(args.m, w.k) + args.m * int64_t{sizeof(float)}, &quantized_);
      if (codes == nullptr) return;
      QuantizeRows({.x = args.x,
                    .x_stride = args.x_stride,
                    .x_dtype = DType::kBF16,
                    .rows = args.m,
                    .size = w.k,
                    .out = static_cast<uint8_t*>(codes),
                    .scales = RowScales(codes, args.m, w.k)},
                   stream());
    }
    product.x = codes;
    product.x_scales = RowScales(codes, args.m, w.k);
    product.x_stride = w.k;
  }
  gemm_.Run(product);
  add_bias();
}

void Backend::GatedGemm(const GatedGemmArgs& args) const {
  const GemmArgs& gemm = args.gemm;
  Gemm(gemm);
  SiluMul({.gate_up = gemm.y,
           .gate_up_stride = gemm.y_stride,
           .rows = gemm.m,
           .size = gemm.w->n / 2,
           .out = args.out,
           .out_stride = args.out_stride,
           .dtype = gemm.y_dtype},
          args.out_quantized ? DType::kF8E4M3 : gemm.y_dtype);
}

void Backend::RmsNorm(const RmsNormArgs& args) const {
  cuda::RmsNorm({.x = args.x,
                 .x_stride = args.x_stride,
                 .weight = args.weight,
                 .eps = args.eps,
                 .rows = args.rows,
                 .size = args.size,
                 .out = args.out,
                 .out_stride = args.out_stride,
                 .out_dtype = args.out_dtype,
                 .scales = args.out_dtype == DType::kF8E4M3 ? RowScales(args.out, args.rows, args.size) : nullptr},
                stream());
}

void Backend::SiluMul(const SiluMulArgs& args, DType out_dtype) const {
  cuda::SiluMul({.gate_up = args.gate_up,
                 .gate_up_stride = args.gate_up_stride,
                 .dtype = args.dtype,
                 .rows = args.rows,
                 .size = args.size,
                 .out = args.out,
                 .out_stride = args.out_stride,
                 .out_dtype = out_dtype,
                 .scales = out_dtype == DType::kF8E4M3 ? RowScales(args.out, args.rows, args.size) : nullptr},
                stream());
}

void Backend::RotateAndStore(const RotateAndStoreArgs& args) const {
  const RopeArgs& any = args.q.x != nullptr ? args.q : args.k;
  cuda::RotateAndStore({.q = args.q.x,
                        .q_stride = args.q.x_stride,
                        .heads = args.q.heads,
                        .q_norm = args.q.norm_weight,
                        .k = args.k.x,
                        .v = args.kv.v,
                        .kv_stride = args.kv.k_stride,
                        .groups = args.groups,
                        .kv_heads = args.kv.kv_heads,
                        .k_norm = args.k.norm_weight,
                        .head_dim = any.head_dim,
                        .rows = any.rows,
                        .positions = any.positions,
                        .cos = any.cos,
                        .sin = any.sin,
                        .norm_eps = any.norm_eps,
                        .slots = args.kv.slots,
                        .cache = args.kv.cache,
                        .group_bytes = args.group_cache_stride,
                        .cache_dtype = args.kv.cache_dtype},
                       stream());
}

void Backend::WriteKv(const KvWriteArgs& args) const {
  cuda::RotateAndStore({.k = args.k,
                        .v = args.v,
                        .kv_stride = args.k_stride,
                        .kv_heads = args.kv_heads,
                        .head_dim = args.head_dim,
                        .rows = args.rows,
                        .slots = args.slots,
                        .cache = args.cache,
                        .cache_dtype = args.cache_dtype},
                       stream());
}

void Backend::Attention(const AttentionArgs& args) const {
  const auto several = std::find_if(args.sequences.begin(), args.sequences.end(),
                                    [](const AttentionSequence& sequence) { return sequence.rows <= 1; });
  AttentionLaunch launch{.q = args.q,
                         .q_stride = args.q_stride,
                         .heads = args.heads,
                         .kv_heads = args.kv_heads,
                         .head_dim = args.head_dim,
                         .scale = args.scale,
                         .window = args.window,
                         .cache = args.cache,
                         .cache_dtype = args.cache_dtype,
                         .block_bytes = KvBlockBytes(args.kv_heads, args.head_dim, args.cache_dtype),
                         .sequences = args.resident_sequences,
                         .count = several - args.sequences.begin(),
                         .max_rows = 0,
                         .out = args.out,
                         .out_stride = args.out_stride,
                         .out_dtype = args.out_dtype,
                         .log_sum_exp = args.log_sum_exp,
                         .workspace = nullptr};
  for (auto it = args.sequences.begin(); it != several; ++it) launch.max_rows = std::max(launch.max_rows, it->rows);
  if (launch.count > 0) PrefillAttention(launch, stream());
  launch.sequences += launch.count;
  launch.count = args.sequences.end() - several;
  if (launch.count == 0) return;
  launch.max_rows = 1;
  launch.workspace = Scratch(DecodeWorkspaceBytes(launch.count, args.heads, args.kv_heads, args.head_dim), &partials_);
  if (launch.workspace != nullptr) DecodeAttention(launch, stream());
}

}  // namespace
}  // namespace cuda

Result<const Backend*> CudaBackend() {
  // Never destroyed: CUDA itself may be gone when that would happen.
  static const Result<const Backend*> backend = []() -> Result<const Backend*> {
    SWIFTKV_ASSIGN_OR_RETURN(std::unique_ptr<cuda::Device> device, cuda::Device::Open());
    auto made = std::make_unique<cuda::Backend>(std::move(device));
    SWIFTKV_RETURN_IF_ERROR(made->Init());
    return made.release();
  }();
  return backend;
}

}  // namespace swiftkv::kernels
