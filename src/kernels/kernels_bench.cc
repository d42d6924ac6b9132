// Micro-benchmarks of every backend that this CPU can run: GFLOP/s of products, GB/s of everything else.
//   build/release/kernels_bench --benchmark_filter='Gemm/avx512_bf16/.*m512'
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "base/bfloat16.h"
#include "kernels/ops.h"

namespace swiftkv::kernels {
namespace {

std::vector<float> Random(int64_t size, unsigned seed) {
  std::minstd_rand engine(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> values(static_cast<size_t>(size));
  for (float& value : values) value = uniform(engine);
  return values;
}

std::vector<BFloat16> ToBFloat16(const std::vector<float>& values) {
  std::vector<BFloat16> out(values.size());
  for (size_t i = 0; i < values.size(); ++i) out[i] = swiftkv::ToBFloat16(values[i]);
  return out;
}

void ReportFlops(benchmark::State& state, double flops_per_iteration) {
  state.counters["FLOP"] = benchmark::Counter(flops_per_iteration, benchmark::Counter::kIsIterationInvariantRate);
}

Result<PackedMatrix> MakeMatrix(const Backend& ops, DType dtype, int64_t k, int64_t n) {
  std::vector<int32_t> exact(kMaxExactFeatures);
  std::iota(exact.begin(), exact.end(), 0);
  SWIFTKV_ASSIGN_OR_RETURN(
      PackedMatrix w, dtype == DType::kI8 ? ops.AllocateInt8(n, k, std::move(exact)) : ops.AllocatePacked(n, k, dtype));
  const std::vector<float> rows = Random(64 * k, 1);
  const std::vector<int8_t> codes(static_cast<size_t>(64 * k), 7);
  const std::vector<float> scales(static_cast<size_t>(64 * k / kQuantizedBlock * ScalesOfBlock(dtype)), 0x1p-7f);
  for (int64_t row = 0; row < n; row += 64) {
    const int64_t count = std::min<int64_t>(64, n - row);
    if (dtype == w.activation_dtype() || dtype == DType::kI8) {
      ops.PackRows(rows.data(), row, count, &w);
    } else {
      ops.PackQuantizedRows({.codes = codes.data(), .scales = scales.data(), .minima = scales.data()}, row, count, &w);
    }
  }
  return w;
}

void Gemm(benchmark::State& state, const Backend* ops, DType dtype, bool int8_inputs, int64_t m, int64_t k, int64_t n) {
  Result<PackedMatrix> w = MakeMatrix(*ops, dtype, k, n);
  if (!w) return state.SkipWithError(w.error().message.c_str());
  w->int8_inputs = int8_inputs;
  const std::vector<float> x = Random(m * k, 2);
  const std::vector<BFloat16> x_bf16 = ToBFloat16(x);
  std::vector<float> y(static_cast<size_t>(m * n));
  const void* input = dtype == DType::kF32 ? static_cast<const void*>(x.data()) : x_bf16.data();
  for (auto _ : state) ops->Gemm({.x = input, .x_stride = k, .m = m, .w = &*w, .y = y.data(), .y_stride = n});
  ReportFlops(state, 2.0 * static_cast<double>(m * n * k));
  state.SetBytesProcessed(state.iterations() * w->data.bytes());
}

// Half an MLP, silu(gate) * up, in one or in two operations.
void Gated(benchmark::State& state, const Backend* ops, DType dtype, bool in_one, int64_t m, int64_t k, int64_t size) {
  Result<PackedMatrix> w = MakeMatrix(*ops, dtype, k, 2 * size);
  if (!w) return state.SkipWithError(w.error().message.c_str());
  const std::vector<BFloat16> x = ToBFloat16(Random(m * k, 2));
  std::vector<BFloat16> gate_up(static_cast<size_t>(m * 2 * size));
  std::vector<BFloat16> out(static_cast<size_t>(m * size));
  const GatedGemmArgs args = {.gemm = {.x = x.data(),
                                       .x_stride = k,
                                       .m = m,
                                       .w = &*w,
                                       .y = gate_up.data(),
                                       .y_stride = 2 * size,
                                       .y_dtype = DType::kBF16},
                              .out = out.data(),
                              .out_stride = size};
  for (auto _ : state) in_one ? ops->GatedGemm(args) : ops->Backend::GatedGemm(args);
  ReportFlops(state, 4.0 * static_cast<double>(m * size * k));
}

// Random K and V for the first slots of a cache.
struct RandomKv {
  RandomKv(int64_t rows, int64_t heads, int64_t dim) : heads(heads), dim(dim), kv(Random(rows * heads * dim, 5)) {
    slots.resize(static_cast<size_t>(rows));
    std::iota(slots.begin(), slots.end(), 0);
  }
  KvWriteArgs Into(std::byte* cache, DType dtype) const {
    return {.k = kv.data(),
            .v = kv.data(),
            .k_stride = heads * dim,
            .v_stride = heads * dim,
            .rows = static_cast<int64_t>(slots.size()),
            .kv_heads = heads,
            .head_dim = dim,
            .slots = slots.data(),
            .cache = cache,
            .cache_dtype = dtype};
  }
  int64_t heads;
  int64_t dim;
  std::vector<float> kv;
  std::vector<int64_t> slots;
};

// `rows` queries at the end of a context of `context` tokens.
void Attention(benchmark::State& state, const Backend* ops, DType dtype, int64_t rows, int64_t context, int64_t heads,
               int64_t kv_heads, int64_t head_dim) {
  const int64_t blocks = context / kBlockTokens;
  Result<AlignedBuffer> cache = AlignedBuffer::Allocate(blocks * ops->KvBlockBytes(kv_heads, head_dim, dtype), "cache");
  if (!cache) return state.SkipWithError(cache.error().message.c_str());
  ops->WriteKv(RandomKv(context, kv_heads, head_dim).Into(cache->data(), dtype));
  std::vector<int32_t> table(static_cast<size_t>(blocks));
  std::iota(table.begin(), table.end(), 0);
  std::vector<int32_t> positions(static_cast<size_t>(rows));
  std::iota(positions.begin(), positions.end(), static_cast<int32_t>(context - rows));
  const AttentionSequence sequence{.rows = rows, .positions = positions.data(), .block_table = table.data()};
  const std::vector<float> q = Random(rows * heads * head_dim, 4);
  std::vector<float> out(q.size());
  const AttentionArgs args{.q = q.data(),
                           .q_stride = heads * head_dim,
                           .heads = heads,
                           .kv_heads = kv_heads,
                           .head_dim = head_dim,
                           .scale = 0.125f,
                           .cache = cache->data(),
                           .cache_dtype = dtype,
                           .sequences = {&sequence, 1},
                           .out = out.data(),
                           .out_stride = heads * head_dim};
  for (auto _ : state) ops->Attention(args);
  const double pairs = static_cast<double>(rows) * (static_cast<double>(context) - static_cast<double>(rows - 1) / 2);
  ReportFlops(state, 4 * pairs * static_cast<double>(heads * head_dim));
  state.SetBytesProcessed(state.iterations() * cache->bytes());
}

void WriteKv(benchmark::State& state, const Backend* ops, DType dtype) {
  constexpr int64_t kRows = 512, kHeads = 3, kDim = 64;
  Result<AlignedBuffer> cache =
      AlignedBuffer::Allocate(kRows / kBlockTokens * ops->KvBlockBytes(kHeads, kDim, dtype), "cache");
  if (!cache) return state.SkipWithError(cache.error().message.c_str());
  const RandomKv kv(kRows, kHeads, kDim);
  for (auto _ : state) ops->WriteKv(kv.Into(cache->data(), dtype));
  state.SetBytesProcessed(state.iterations() * kRows * kHeads * kDim * 2 * 4);
}

void RmsNorm(benchmark::State& state, const Backend* ops, int64_t rows, int64_t size) {
  const std::vector<float> x = Random(rows * size, 6);
  std::vector<BFloat16> out(x.size());
  for (auto _ : state) {
    ops->RmsNorm({.x = x.data(),
                  .x_stride = size,
                  .weight = x.data(),
                  .eps = 1e-5f,
                  .rows = rows,
                  .size = size,
                  .out = out.data(),
                  .out_stride = size,
                  .out_dtype = DType::kBF16});
  }
  state.SetBytesProcessed(state.iterations() * rows * size * 6);
}

void Rope(benchmark::State& state, const Backend* ops, bool norm) {
  constexpr int64_t kRows = 512, kHeads = 9, kDim = 64;
  std::vector<float> x = Random(kRows * kHeads * kDim, 7);
  const std::vector<float> table = Random(kRows * kDim / 2, 8);
  std::vector<int32_t> positions(kRows);
  std::iota(positions.begin(), positions.end(), 0);
  for (auto _ : state) {
    ops->Rope({.x = x.data(),
               .x_stride = kHeads * kDim,
               .rows = kRows,
               .heads = kHeads,
               .head_dim = kDim,
               .positions = positions.data(),
               .cos = table.data(),
               .sin = table.data(),
               .norm_weight = norm ? table.data() : nullptr,
               .norm_eps = 1e-6f});
  }
  state.SetBytesProcessed(state.iterations() * kRows * kHeads * kDim * 8);
}

void SiluMul(benchmark::State& state, const Backend* ops, int64_t rows, int64_t size) {
  const std::vector<BFloat16> gate_up = ToBFloat16(Random(rows * 2 * size, 9));
  std::vector<BFloat16> out(static_cast<size_t>(rows * size));
  for (auto _ : state) {
    ops->SiluMul({.gate_up = gate_up.data(),
                  .gate_up_stride = 2 * size,
                  .rows = rows,
                  .size = size,
                  .out = out.data(),
                  .out_stride = size,
                  .dtype = DType::kBF16});
  }
  state.SetBytesProcessed(state.iterations() * rows * size * 6);
}

// One token of each of 16 sequences behind 2,031 others, layer after layer, from memory: all layers together are
// larger than the caches.
void BatchedDecode(benchmark::State& state, const Backend* ops, DType dtype) {
  constexpr int64_t kLayers = 30, kSequences = 16, kBlocks = 127, kHeads = 9, kKvHeads = 3, kDim = 64;
  const int64_t layer_bytes = kSequences * kBlocks * ops->KvBlockBytes(kKvHeads, kDim, dtype);
  Result<AlignedBuffer> cache = AlignedBuffer::Allocate(kLayers * layer_bytes, "cache");
  if (!cache) return state.SkipWithError(cache.error().message.c_str());
  ops->WriteKv(RandomKv(kSequences * kBlocks * kBlockTokens, kKvHeads, kDim).Into(cache->data(), dtype));
  for (int64_t i = 1; i < kLayers; ++i) std::memcpy(cache->data() + i * layer_bytes, cache->data(), layer_bytes);
  std::vector<int32_t> table(kSequences * kBlocks);
  std::iota(table.begin(), table.end(), 0);
  std::shuffle(table.begin(), table.end(), std::minstd_rand(1));
  const int32_t position = kBlocks * kBlockTokens - 1;
  std::vector<AttentionSequence> sequences;
  for (int64_t i = 0; i < kSequences; ++i) {
    sequences.push_back({.row_begin = i, .rows = 1, .positions = &position, .block_table = table.data() + i * kBlocks});
  }
  const std::vector<float> q = Random(kSequences * kHeads * kDim, 4);
  std::vector<BFloat16> out(q.size());
  int64_t layer = 0;
  for (auto _ : state) {
    ops->Attention({.q = q.data(),
                    .q_stride = kHeads * kDim,
                    .heads = kHeads,
                    .kv_heads = kKvHeads,
                    .head_dim = kDim,
                    .scale = 0.125f,
                    .cache = cache->data() + layer * layer_bytes,
                    .cache_dtype = dtype,
                    .sequences = sequences,
                    .out = out.data(),
                    .out_stride = kHeads * kDim,
                    .out_dtype = DType::kBF16});
    layer = (layer + 1) % kLayers;
  }
  state.SetBytesProcessed(state.iterations() * layer_bytes);
}

void UnpackRows(benchmark::State& state, const Backend* ops) {
  constexpr int64_t kRows = 512, kVocab = 49152, kHidden = 576;
  Result<PackedMatrix> w = ops->AllocatePacked(kVocab, kHidden, DType::kBF16);
  if (!w) return state.SkipWithError(w.error().message.c_str());
  std::vector<int32_t> ids(kRows);
  for (int64_t r = 0; r < kRows; ++r) ids[r] = static_cast<int32_t>(r * 7919 % kVocab);
  std::vector<float> out(kRows * kHidden);
  for (auto _ : state) ops->UnpackRows(*w, ids.data(), kRows, out.data());
  state.SetBytesProcessed(state.iterations() * kRows * kHidden * 6);
}

void LogitStatsOf(benchmark::State& state, const Backend* ops, bool kl) {
  constexpr int64_t kRows = 8, kVocab = 49152;
  const std::vector<float> p = Random(kRows * kVocab, 10);
  const std::vector<float> q = Random(kRows * kVocab, 11);
  std::vector<LogitStats> stats(kRows);
  std::vector<float> divergence(kRows);
  for (auto _ : state) {
    if (kl) {
      ops->KlDivergence(p.data(), q.data(), kRows, kVocab, divergence.data());
    } else {
      ops->ComputeLogitStats(p.data(), kRows, kVocab, stats.data());
    }
  }
  state.SetBytesProcessed(state.iterations() * kRows * kVocab * (kl ? 8 : 4));
}

template <class Body, class... Args>
void Register(const std::string& name, Body body, Args... args) {
  benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) { body(state, args...); })->UseRealTime();
}

struct Shape {
  const char* name;
  int64_t k, n;
};
constexpr Shape kShapes[] = {
    {"smol.qkv", 576, 960},      {"smol.o", 576, 576},         {"smol.gate_up", 576, 3072},
    {"smol.down", 1536, 576},    {"smol.lm_head", 576, 49152}, {"1b.o", 2048, 2048},
    {"1b.gate_up", 2048, 16384}, {"1b.down", 8192, 2048},      {"8b.down", 14336, 4096},
};

void RegisterGemm(const Backend* ops, const std::string& name) {
  for (const Shape& shape : kShapes) {
    for (const int64_t m : {1, 8, 16, 64, 512}) {
      for (const DType dtype : {DType::kBF16, DType::kF32, DType::kQ8_0, DType::kQ4_1, DType::kQ4_K, DType::kQ5_K,
                                DType::kQ6_K, DType::kQ8_K, DType::kI8}) {
        const std::string type(Name(dtype));
        const std::string size = std::string("/") + shape.name + "/m" + std::to_string(m);
        Register("Gemm/" + name + "/" + type + size, Gemm, ops, dtype, false, m, shape.k, shape.n);
        if (dtype != DType::kQ8_0 && dtype != DType::kQ4_1) continue;
        Register("Gemm/" + name + "/" + type + "xI8" + size, Gemm, ops, dtype, true, m, shape.k, shape.n);
      }
    }
  }
}

const bool kRegistered = [] {
  for (const Backend* ops : AvailableBackends()) {
    if (ops == &RefBackend()) continue;
    const std::string name(ops->name());
    RegisterGemm(ops, name);
    for (const DType dtype : {DType::kBF16, DType::kF32, DType::kI8}) {
      const std::string suffix = name + "/" + std::string(Name(dtype));
      Register("Attention/" + suffix + "/smol.prefill512", Attention, ops, dtype, 512, 512, 9, 3, 64);
      Register("Attention/" + suffix + "/smol.prefill2048", Attention, ops, dtype, 2048, 2048, 9, 3, 64);
      Register("Attention/" + suffix + "/8b.prefill2048", Attention, ops, dtype, 2048, 2048, 32, 8, 128);
      Register("Attention/" + suffix + "/smol.decode2048", Attention, ops, dtype, 1, 2048, 9, 3, 64);
      Register("Attention/" + suffix + "/8b.decode8192", Attention, ops, dtype, 1, 8192, 32, 8, 128);
      if (dtype != DType::kF32) Register("BatchedDecode/" + suffix, BatchedDecode, ops, dtype);
      Register("WriteKv/" + suffix, WriteKv, ops, dtype);
    }
    Register("RmsNorm/" + name + "/512x576", RmsNorm, ops, 512, 576);
    Register("RmsNorm/" + name + "/1x576", RmsNorm, ops, 1, 576);
    Register("Rope/" + name, Rope, ops, false);
    Register("RopeWithHeadNorm/" + name, Rope, ops, true);
    Register("SiluMul/" + name + "/512x1536", SiluMul, ops, 512, 1536);
    Register("SiluMul/" + name + "/1x1536", SiluMul, ops, 1, 1536);
    for (const DType dtype : {DType::kBF16, DType::kQ4_1, DType::kI8}) {
      const std::string suffix = name + "/" + std::string(Name(dtype)) + "/512x576x1536";
      Register("GatedGemm/" + suffix, Gated, ops, dtype, true, 512, 576, 1536);
      Register("GemmThenSiluMul/" + suffix, Gated, ops, dtype, false, 512, 576, 1536);
    }
    Register("UnpackRows/" + name, UnpackRows, ops);
    Register("LogitStats/" + name, LogitStatsOf, ops, false);
    Register("KlDivergence/" + name, LogitStatsOf, ops, true);
  }
  return true;
}();

}  // namespace
}  // namespace swiftkv::kernels
