#include "kernels/cpu/cpu_backend.h"

#include <memory>
#include <utility>
#include <vector>

#include "kernels/cpu/attention_driver.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/int8_layout.h"
#include "kernels/cpu/quantized_layout.h"

namespace swiftkv::kernels::cpu {
namespace {

class CpuBackwardOps final : public BackwardOps {
 public:
  explicit CpuBackwardOps(const CpuKernels& kernels) : kernels_(kernels) {}

  void RmsNorm(const RmsNormBackwardArgs& args) const override {
    std::vector<float> shares(args.dweight == nullptr ? 0 : static_cast<size_t>(GradientPieces(args.rows) * args.size));
    kernels_.rms_norm_backward(args, args.dweight == nullptr ? nullptr : shares.data());
  }
  void Rope(const RopeBackwardArgs& args) const override { kernels_.rope_backward(args); }
  void SiluMul(const SiluMulBackwardArgs& args) const override { kernels_.silu_mul_backward(args); }
  void Attention(const AttentionBackwardArgs& args) const override {
    const auto share = static_cast<size_t>(args.rows * args.heads * args.head_dim);
    const std::unique_ptr<float[]> shares(new float[2 * share]);
    kernels_.attention_backward(args, shares.get(), shares.get() + share);
  }
  void KlLoss(const KlLossArgs& args) const override { kernels_.kl_loss(args); }
  void Round(const RoundArgs& args) const override { kernels_.round(args); }

 private:
  CpuKernels kernels_;
};

class CpuBackend final : public Backend {
 public:
  CpuBackend(std::string_view name, const CpuKernels& kernels) : name_(name), kernels_(kernels), backward_(kernels) {}

  std::string_view name() const override { return name_; }

  Result<PackedMatrix> AllocatePacked(int64_t n, int64_t k, DType dtype) const override {
    return cpu::AllocatePacked(n, k, dtype);
  }
  Result<PackedMatrix> AllocateInt8(int64_t n, int64_t k, std::vector<int32_t> exact_features) const override {
    return cpu::AllocateInt8(n, k, std::move(exact_features));
  }
  void PackRows(const float* rows, int64_t row_begin, int64_t row_count, PackedMatrix* w) const override {
    cpu::PackRows(rows, row_begin, row_count, w);
  }
  void PackQuantizedRows(const QuantizedRows& rows, int64_t row_begin, int64_t row_count,
                         PackedMatrix* w) const override {
    cpu::PackQuantizedRows(rows, row_begin, row_count, w);
  }
  void RepackInt8Rows(const PackedMatrix& from, int64_t row_begin, int64_t row_count, PackedMatrix* w) const override {
    cpu::RepackInt8Rows(from, row_begin, row_count, w);
  }
  void UnpackRows(const PackedMatrix& w, const int32_t* ids, int64_t count, float* out) const override {
    cpu::UnpackRows(w, ids, count, out);
  }

  void Gemm(const GemmArgs& args) const override { kernels_.gemm(args); }
  void GatedGemm(const GatedGemmArgs& args) const override {
    if (!kernels_.gated_gemm(args)) Backend::GatedGemm(args);
  }
  void RmsNorm(const RmsNormArgs& args) const override { kernels_.rms_norm(args); }
  void Rope(const RopeArgs& args) const override { kernels_.rope(args); }
  void SiluMul(const SiluMulArgs& args) const override { kernels_.silu_mul(args); }

  int64_t KvBlockBytes(int64_t kv_heads, int64_t head_dim, DType cache_dtype) const override {
    return cpu::KvBlockBytes(kv_heads, head_dim, cache_dtype);
  }
  void WriteKv(const KvWriteArgs& args) const override {
    cpu::WriteKv(args, kernels_.narrow, kernels_.multiplies_int8_cache);
  }
  void Attention(const AttentionArgs& args) const override { RunAttention(args, kernels_); }

  void ComputeLogitStats(const float* logits, int64_t rows, int64_t vocab, LogitStats* stats) const override {
    kernels_.logit_stats(logits, rows, vocab, stats);
  }
  void KlDivergence(const float* p_logits, const float* q_logits, int64_t rows, int64_t vocab,
                    float* kl) const override {
    kernels_.kl_divergence(p_logits, q_logits, rows, vocab, kl);
  }

  const BackwardOps& backward() const override { return backward_; }

 private:
  std::string_view name_;
  CpuKernels kernels_;
  CpuBackwardOps backward_;
};

}  // namespace

const Backend& Avx2Backend() {
  static const CpuBackend backend("avx2", Avx2Kernels());
  return backend;
}
const Backend& Avx2VnniBackend() {
  static const CpuBackend backend("avx2_vnni", Avx2VnniKernels());
  return backend;
}
const Backend& Avx512Backend() {
  static const CpuBackend backend("avx512", Avx512Kernels());
  return backend;
}
const Backend& Avx512VnniBackend() {
  static const CpuBackend backend("avx512_vnni", Avx512VnniKernels());
  return backend;
}
const Backend& Avx512Bf16Backend() {
  static const CpuBackend backend("avx512_bf16", Avx512Bf16Kernels());
  return backend;
}
const Backend& AmxBackend() {
  static const CpuBackend backend("amx", AmxKernels());
  return backend;
}

}  // namespace swiftkv::kernels::cpu
