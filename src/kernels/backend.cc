// The choice of a backend, the one place that knows which twins exist; and operations that a twin need not have of its
// own.
#include <cstdlib>
#include <cstring>
#include <string>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu_features.h"
#include "kernels/ops.h"

namespace swiftkv::kernels {
namespace {

std::vector<const Backend*> MakeAvailable() {
  std::vector<const Backend*> backends = {&RefBackend()};
  if (Cpu().avx2) backends.push_back(&cpu::Avx2Backend());
  if (Cpu().avx2_vnni) backends.push_back(&cpu::Avx2VnniBackend());
  if (Cpu().avx512) backends.push_back(&cpu::Avx512Backend());
  if (Cpu().avx512_vnni) backends.push_back(&cpu::Avx512VnniBackend());
  if (Cpu().avx512_bf16) backends.push_back(&cpu::Avx512Bf16Backend());
  if (Cpu().amx_bf16) backends.push_back(&cpu::AmxBackend());
  return backends;
}

const Backend* Find(std::string_view name) {
  for (const Backend* backend : AvailableBackends()) {
    if (backend->name() == name) return backend;
  }
  return nullptr;
}

// SWIFTKV_ISA, or "" where it is unset or empty.
std::string_view ForcedName() {
  const char* name = std::getenv("SWIFTKV_ISA");
  return name == nullptr ? std::string_view() : std::string_view(name);
}

}  // namespace

const std::vector<const Backend*>& AvailableBackends() {
  static const std::vector<const Backend*> backends = MakeAvailable();
  return backends;
}

std::string DeviceText(const Backend& backend) {
  const std::string gpu = backend.device_name();
  return gpu.empty() ? fmt::format("cpu ({})", backend.name()) : fmt::format("{} ({})", backend.name(), gpu);
}

void Backend::GatedGemm(const GatedGemmArgs& args) const {
  Gemm(args.gemm);
  SiluMul({.gate_up = args.gemm.y,
           .gate_up_stride = args.gemm.y_stride,
           .rows = args.gemm.m,
           .size = args.gemm.w->n / 2,
           .out = args.out,
           .out_stride = args.out_stride,
           .dtype = args.gemm.y_dtype});
}

Status Backend::CheckCacheType(DType cache_dtype) const {
  if (cache_dtype == DType::kF32 || cache_dtype == DType::kBF16 || cache_dtype == DType::kI8) return Ok();
  return InvalidInput("CPUs can't read a K/V cache in {}; --kv-cache-dtype can be int8 there", Name(cache_dtype));
}

void Backend::RotateAndStore(const RotateAndStoreArgs& args) const {
  if (args.q.x != nullptr) Rope(args.q);
  if (args.k.x == nullptr) return;
  Rope(args.k);
  KvWriteArgs kv = args.kv;
  for (int64_t group = 0; group < args.groups; ++group) {
    WriteKv(kv);
    kv.k += kv.kv_heads * kv.head_dim;
    kv.v += kv.kv_heads * kv.head_dim;
    kv.cache += args.group_cache_stride;
  }
}

void Backend::GatherRows(const float* x, int64_t size, const int32_t* rows, int64_t count, float* out) const {
  for (int64_t i = 0; i < count; ++i) {
    if (x + rows[i] * size == out + i * size) continue;
    std::memcpy(out + i * size, x + rows[i] * size, static_cast<size_t>(size) * sizeof(float));
  }
}

#ifndef SWIFTKV_CUDA
Result<const Backend*> CudaBackend() {
  return NotFound("this swiftkv was built without CUDA; build it with `cmake --preset cuda`");
}
#endif

const Backend& DefaultBackend() {
  static const Backend& chosen = []() -> const Backend& {
    const Backend* forced = ForcedName().empty() ? nullptr : Find(ForcedName());
    return forced != nullptr ? *forced : *AvailableBackends().back();
  }();
  return chosen;
}

Status CheckBackendChoice() {
  const std::string_view name = ForcedName();
  if (name.empty() || Find(name) != nullptr) return Ok();
  std::string known;
  for (const Backend* backend : AvailableBackends()) {
    if (!known.empty()) known += ", ";
    known += backend->name();
  }
  return InvalidInput("SWIFTKV_ISA={}: this CPU can't run a backend of that name; it can run: {}", name.substr(0, 40),
                      known);
}

}  // namespace swiftkv::kernels
