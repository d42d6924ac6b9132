// Every operation that the model needs, as one interface with twins: ref (oracle and documentation), avx2, avx2_vnni,
// avx512, avx512_vnni, avx512_bf16, amx, and cuda for a GPU. The best twin for this CPU is chosen at run time;
// SWIFTKV_ISA=<name> forces one.
//
//   const kernels::Backend& ops = kernels::DefaultBackend();
//   SWIFTKV_ASSIGN_OR_RETURN(kernels::PackedMatrix w, ops.AllocatePacked(n, k, DType::kBF16));
//   ops.PackRows(rows, 0, n, &w);
//   ops.Gemm({.x = x, .x_stride = k, .m = tokens, .w = &w, .y = y, .y_stride = n, .y_dtype = DType::kF32});
//
// Kernels take raw pointers and plain structs and cannot fail: callers have checked shapes. "Activation type" is the
// type that products take their inputs in: kBF16 (products of bf16 inputs, sums in float32) or kF32. Strides count
// elements.
//
// Batch invariance is a promise of the CPUs' twins: the bytes of one output row depend on that row's inputs alone,
// never on how many rows stand beside it, on the number of threads, or on how a sequence was cut into steps. So each
// output element is summed over K in one fixed order, and attention walks the cache in partitions of
// kAttentionPartition tokens from position 0.
#ifndef SWIFTKV_KERNELS_OPS_H_
#define SWIFTKV_KERNELS_OPS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/dtype.h"
#include "base/memory_space.h"
#include "base/status.h"
#include "kernels/backward_ops.h"
#include "kernels/kernel_args.h"

namespace swiftkv::kernels {

inline constexpr int64_t kQuantizedBlock = 32;    // input features that share a scale
inline constexpr int64_t kMaxExactFeatures = 32;  // of a kI8 matrix

// A weight matrix [n, k] (output features, input features) in the layout of the backend that allocated it.
// The layout is one for every m, so that weights exist once. The activation type of quantized ones is kBF16, too.
//
// Block-quantized ones become bf16 in flight, rounded as if they had been packed in it:
//   kQ4_1, kQ8_0  4 and 8 bits, scales (and minima) that float16 holds
//   kQ4_K, kQ5_K  4 and 8 bits, scales and minima in float32
//   kQ6_K         8 bits, a scale in float32 for each 16
//   kQ8_K         8 bits, scales in float32
// With int8_inputs kQ4_1 and kQ8_0 are multiplied as they are: each 32 inputs of a row are quantized, too, with a scale
// of their own (quantize.h), and the sums of 32 products, exact in int32, are scaled and added up in float32 from the
// first input feature to the last (ref/ref_quantized.cc).
//
// kF8E4M3 (CUDA alone): an output feature has one scale for its weights, a row of inputs one for its values; both are
// the largest magnitude over 448. Products of E4M3, sums in float32; inputs of a few rows stay in bf16.
//
// kI8: products of int8 with sums in int32. An output feature has one scale for its weights, a row of inputs one for
// its values; both are the largest magnitude over 127 (quantize.h). A few input features are left out of that and
// multiplied in bf16: those whose values are so large that the others would have no digits left.
struct PackedMatrix {
  int64_t n = 0;
  int64_t k = 0;
  DType dtype = DType::kF32;                 // kF32, kBF16, kI8, kF8E4M3 or block-quantized
  bool int8_inputs = false;                  // of kQ4_1 and kQ8_0; free to set at any time
  std::vector<int32_t> exact_features = {};  // of kI8: input features in bf16, ascending
  AlignedBuffer data = {};

  DType activation_dtype() const { return dtype == DType::kF32 ? DType::kF32 : DType::kBF16; }
};

inline bool IsQuantized(DType dtype) {
  return dtype == DType::kQ4_1 || dtype == DType::kQ8_0 || dtype == DType::kQ4_K || dtype == DType::kQ5_K ||
         dtype == DType::kQ6_K || dtype == DType::kQ8_K;
}
inline bool HasMinima(DType dtype) { return dtype == DType::kQ4_1 || dtype == DType::kQ4_K || dtype == DType::kQ5_K; }
// Bytes that a block of 32 takes when packed.
int64_t QuantizedBlockBytes(DType dtype);

// Rows of a block-quantized matrix: element i is code[i] * scale[i / 32] + minimum[i / 32], rounded once.
struct QuantizedRows {
  const int8_t* codes = nullptr;  // [rows, k]; of 4 bits 0 .. 15, else -128 .. 127
  const float* scales = nullptr;  // [rows, k / 32, ScalesOfBlock]; of kQ4_1 and kQ8_0 rounded to float16
  const float* minima = nullptr;  // [rows, k / 32], the same, where HasMinima
};

// y = x wᵀ + bias, or y += x wᵀ + bias.
struct GemmArgs {
  const void* x = nullptr;  // [m, k], w->activation_dtype(), or as `x_quantized` says
  int64_t x_stride = 0;
  int64_t m = 0;
  const PackedMatrix* w = nullptr;
  const float* bias = nullptr;  // [n] or null
  void* y = nullptr;            // [m, n], y_dtype
  int64_t y_stride = 0;
  DType y_dtype = DType::kF32;  // kF32 or kBF16
  bool accumulate = false;      // only with y_dtype kF32
  // x has kF8E4M3's codes [m, k], and from the next multiple of 256 bytes float32 scales [m], as RmsNorm and GatedGemm
  // write them where Backend::InputType asks for it.
  bool x_quantized = false;
};

// out = silu(x gateᵀ) * (x upᵀ): Gemm with a matrix of gate rows, then as many up rows, and SiluMul of what it gives,
// in one and with the same bytes.
struct GatedGemmArgs {
  GemmArgs gemm;        // y: work memory [m, n] of the activation type, undefined afterwards
  void* out = nullptr;  // [m, n / 2], gemm.y_dtype, or kF8E4M3 as GemmArgs::x_quantized
  int64_t out_stride = 0;
  bool out_quantized = false;
};

// out[r, i] = x[r, i] / sqrt(mean(x[r]²) + eps) * weight[i]
struct RmsNormArgs {
  const float* x = nullptr;  // [rows, size]
  int64_t x_stride = 0;
  const float* weight = nullptr;  // [size]
  float eps = 0;
  int64_t rows = 0;
  int64_t size = 0;
  void* out = nullptr;  // [rows, size], out_dtype; kF8E4M3: as GemmArgs::x_quantized
  int64_t out_stride = 0;
  DType out_dtype = DType::kF32;
};

// Writes K (rotated) and V rows of one KV group into its cache blocks. The layout inside a block is the backend's own
// (made so that attention reads it without a gather copy); its size is KvBlockBytes.
struct KvWriteArgs {
  const float* k = nullptr;  // [rows, kv_heads, head_dim]
  const float* v = nullptr;  // [rows, kv_heads, head_dim]
  int64_t k_stride = 0;
  int64_t v_stride = 0;
  int64_t rows = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  const int64_t* slots = nullptr;  // [rows] block * kBlockTokens + offset in the block
  std::byte* cache = nullptr;      // the group's blocks, KvBlockBytes apart
  // kF32, kBF16, kI8: a scale for each token and head of K and of V, or (CUDA alone) kF8E4M3: saturated, scale 1.
  DType cache_dtype = DType::kF32;
};

// What stands between the projections and attention, in one: Rope of the queries, Rope of the keys and WriteKv, for one
// KV group or for several whose rows and caches lie side by side. Rows with a negative slot write nothing (devices
// alone have such rows).
struct RotateAndStoreArgs {
  RopeArgs q;                      // x null: no queries
  RopeArgs k;                      // heads: of all groups together; x null: no keys
  KvWriteArgs kv;                  // of the first group
  int64_t groups = 1;              // kv_heads * head_dim elements apart in a row of k and of v
  int64_t group_cache_stride = 0;  // bytes from one group's cache to the next
};

// out = softmax(scale q Kᵀ) V, causal, grouped heads (query head h reads KV head h / (heads / kv_heads)).
// Slots after a row's position may hold anything finite; new blocks are zeroed by the block pool.
struct AttentionArgs {
  const float* q = nullptr;  // [rows, heads, head_dim], rotated
  int64_t q_stride = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  float scale = 0;
  int64_t window = 0;
  const std::byte* cache = nullptr;  // the KV group's blocks
  DType cache_dtype = DType::kF32;   // of a kI8 cache the products are made in bf16
  std::span<const AttentionSequence> sequences;
  // A device's copy of them, whose pointers are the device's; there those of several rows stand first.
  const AttentionSequence* resident_sequences = nullptr;
  void* out = nullptr;  // [rows, heads, head_dim], out_dtype
  int64_t out_stride = 0;
  DType out_dtype = DType::kF32;
  float* log_sum_exp = nullptr;  // [rows, heads] or null: of the scaled scores, in nats, for the backward
};

// out[r, i] = silu(gate_up[r, i]) * gate_up[r, size + i]
struct SiluMulArgs {
  const void* gate_up = nullptr;  // [rows, 2 * size], dtype
  int64_t gate_up_stride = 0;
  int64_t rows = 0;
  int64_t size = 0;
  void* out = nullptr;  // [rows, size], dtype
  int64_t out_stride = 0;
  DType dtype = DType::kF32;
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string_view name() const = 0;
  // The GPU's name; empty: a CPU.
  virtual std::string device_name() const { return {}; }
  // The most that attention and its gradients take.
  virtual int64_t max_head_dim() const { return std::numeric_limits<int64_t>::max(); }

  // Where everything lives that operations read and write, packed matrices included. What they are told about shapes
  // and AttentionArgs::sequences are the host's.
  virtual MemorySpace& memory() const { return HostMemory(); }
  // What went wrong on the device since the last call: kInternal, or kResourceExhausted. Operations can't fail on CPUs.
  virtual Status TakeError() const { return Ok(); }
  // Tokens of a step that keep it busy without making answers wait long.
  virtual int64_t step_tokens() const { return 2048; }
  // How many rows are best sent together through a layer, through the later layers' K/V, and through lm_head.
  virtual int64_t tile_rows() const { return 512; }
  virtual int64_t later_kv_rows() const { return 128; }
  virtual int64_t logit_rows() const { return 64; }
  // Runs `operations`, whose arguments must follow from `key` alone. A device may record them to replay them in place
  // of the call when the same key comes again, until ForgetRecordings of its `owner`.
  struct RecordingKey {
    const void* owner = nullptr;
    int64_t part = 0;  // of the owner's work
    int64_t rows = 0;
    auto operator<=>(const RecordingKey&) const = default;
  };
  virtual void Record(const RecordingKey& /*key*/, const std::function<void()>& operations) const { operations(); }
  virtual void ForgetRecordings(const void* /*owner*/) const {}
  // The number of rows, at least `rows`, that recordings should be made for.
  virtual int64_t RecordedRows(int64_t rows) const { return rows; }

  // Memory for an [n, k] matrix; kResourceExhausted if the system has not that much.
  virtual Result<PackedMatrix> AllocatePacked(int64_t n, int64_t k, DType dtype) const = 0;
  // The same of dtype kI8; at most kMaxExactFeatures.
  virtual Result<PackedMatrix> AllocateInt8(int64_t n, int64_t k, std::vector<int32_t> exact_features) const = 0;
  // Packs rows [row_begin, row_begin + row_count) from float32 [row_count, k]. Any order; may be called in parallel for
  // ranges that begin at multiples of 64.
  virtual void PackRows(const float* rows, int64_t row_begin, int64_t row_count, PackedMatrix* w) const = 0;
  // The same for a block-quantized matrix, whose k is a multiple of 32; each row once.
  virtual void PackQuantizedRows(const QuantizedRows& rows, int64_t row_begin, int64_t row_count,
                                 PackedMatrix* w) const = 0;
  // Packs rows of a kQ8_K matrix, each of which has one scale, into one of dtype kI8 with the same codes.
  virtual void RepackInt8Rows(const PackedMatrix& from, int64_t row_begin, int64_t row_count,
                              PackedMatrix* w) const = 0;
  // As PackRows, from rows in memory() into a matrix of kF32 or kBF16; the caller need not call it in parallel.
  virtual void PackFromMemory(const float* rows, int64_t row_begin, int64_t row_count, PackedMatrix* w) const;
  // Packs the transpose of x [rows, columns], float32 or w's type, in memory(), into w [columns, rows] of kF32 or
  // kBF16.
  virtual void PackTransposed(const void* x, DType dtype, int64_t rows, int64_t columns, PackedMatrix* w) const;
  // Packs the transpose of w [n, k], kF32 or kBF16, into `out` [k, n] of the same type. Error kResourceExhausted.
  virtual Status TransposePacked(const PackedMatrix& w, PackedMatrix* out) const;
  // The inverse of packing, for embedding look-ups from a tied lm_head: out [count, k] gets rows `ids` of w.
  virtual void UnpackRows(const PackedMatrix& w, const int32_t* ids, int64_t count, float* out) const = 0;

  // The type in which a product of `rows` rows takes its inputs best: w's activation type, or kF8E4M3.
  virtual DType InputType(const PackedMatrix& w, int64_t /*rows*/) const { return w.activation_dtype(); }
  virtual void Gemm(const GemmArgs& args) const = 0;
  virtual void GatedGemm(const GatedGemmArgs& args) const;
  virtual void RmsNorm(const RmsNormArgs& args) const = 0;
  virtual void Rope(const RopeArgs& args) const = 0;
  virtual void RotateAndStore(const RotateAndStoreArgs& args) const;
  // out[i] = x[rows[i]], float32 rows of `size`; `rows` ascend, and out may be x.
  virtual void GatherRows(const float* x, int64_t size, const int32_t* rows, int64_t count, float* out) const;
  virtual void SiluMul(const SiluMulArgs& args) const = 0;

  // Error kInvalidInput: it can't read a K/V cache of that type.
  virtual Status CheckCacheType(DType cache_dtype) const;
  // Bytes of one block (K and V of kBlockTokens tokens) of one KV group.
  virtual int64_t KvBlockBytes(int64_t kv_heads, int64_t head_dim, DType cache_dtype) const = 0;
  virtual void WriteKv(const KvWriteArgs& args) const = 0;
  virtual void Attention(const AttentionArgs& args) const = 0;

  // stats[r] of logits [rows, vocab].
  virtual void ComputeLogitStats(const float* logits, int64_t rows, int64_t vocab, LogitStats* stats) const = 0;
  // Whether tokens can be drawn where the logits are; then tokens[r] is drawn from logits [rows, vocab] as draws[r]
  // says.
  virtual bool draws_tokens() const { return false; }
  virtual void DrawTokens(const float* /*logits*/, int64_t /*rows*/, int64_t /*vocab*/, const LogitStats* /*stats*/,
                          const TokenDraw* /*draws*/, int32_t* /*tokens*/) const {}
  // kl[r] = sum_i p_i (log p_i - log q_i), p = softmax(p_logits[r]), q = softmax(q_logits[r]); both [rows, vocab].
  virtual void KlDivergence(const float* p_logits, const float* q_logits, int64_t rows, int64_t vocab,
                            float* kl) const = 0;

  // The gradients of these operations, for distillation.
  virtual const BackwardOps& backward() const = 0;
};

// "cpu (amx)" or "cuda (NVIDIA H200)".
std::string DeviceText(const Backend& backend);

// The oracle: plain loops, one thread, nothing clever.
const Backend& RefBackend();
// The twins that this CPU can run, slowest first, ref included.
const std::vector<const Backend*>& AvailableBackends();
// The fastest of them, or the one named by SWIFTKV_ISA.
const Backend& DefaultBackend();
// The GPU's twin, made when first asked for. Errors: kNotFound (this program was built without CUDA, or there is no
// device that it runs on), kResourceExhausted (the device has no memory left), kInternal (it can't be used).
Result<const Backend*> CudaBackend();
// Error kInvalidInput: SWIFTKV_ISA names no backend, or one that this CPU can't run (the message lists those it can).
Status CheckBackendChoice();

}  // namespace swiftkv::kernels

#endif  // SWIFTKV_KERNELS_OPS_H_
