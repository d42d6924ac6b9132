// What the cores can do at most, with everything in registers: the yardstick for the share that Gemm reaches.
#include <benchmark/benchmark.h>
#include <immintrin.h>

#include "base/parallel.h"
#include "kernels/cpu_features.h"

namespace swiftkv::kernels {
namespace {

constexpr int64_t kSteps = 1 << 18;
constexpr int kChains = 24;

__attribute__((target("avx512f,avx512bf16"))) float Bf16Loop() {
  __m512 sums[kChains];
#pragma GCC unroll 24
  for (int i = 0; i < kChains; ++i) sums[i] = _mm512_setzero_ps();
  const __m512bh x = (__m512bh)_mm512_set1_epi32(0x3f803f80);
  for (int64_t step = 0; step < kSteps; ++step) {
#pragma GCC unroll 24
    for (int i = 0; i < kChains; ++i) {
      sums[i] = _mm512_dpbf16_ps(sums[i], x, x);
      __asm__ volatile("" : "+v"(sums[i]));
    }
  }
#pragma GCC unroll 24
  for (int i = 1; i < kChains; ++i) sums[0] = _mm512_add_ps(sums[0], sums[i]);
  return _mm512_cvtss_f32(sums[0]);
}

__attribute__((target("avx512f"))) float F32Loop() {
  __m512 sums[kChains];
#pragma GCC unroll 24
  for (int i = 0; i < kChains; ++i) sums[i] = _mm512_setzero_ps();
  const __m512 x = _mm512_set1_ps(0.5f);
  for (int64_t step = 0; step < kSteps; ++step) {
#pragma GCC unroll 24
    for (int i = 0; i < kChains; ++i) {
      sums[i] = _mm512_fmadd_ps(sums[i], x, x);
      __asm__ volatile("" : "+v"(sums[i]));
    }
  }
#pragma GCC unroll 24
  for (int i = 1; i < kChains; ++i) sums[0] = _mm512_add_ps(sums[0], sums[i]);
  return _mm512_cvtss_f32(sums[0]);
}

void Peak(benchmark::State& state, bool available, float (*loop)(), int flops_per_lane) {
  if (!available) return state.SkipWithError("not on this CPU");
  for (auto _ : state) ParallelFor(Threads(), [&](int64_t) { benchmark::DoNotOptimize(loop()); });
  state.counters["FLOP"] = benchmark::Counter(static_cast<double>(kSteps) * kChains * 16 * flops_per_lane * Threads(),
                                              benchmark::Counter::kIsIterationInvariantRate);
}

BENCHMARK_CAPTURE(Peak, avx512_bf16, Cpu().avx512_bf16, Bf16Loop, 4)->UseRealTime();
BENCHMARK_CAPTURE(Peak, avx512_f32, Cpu().avx512, F32Loop, 2)->UseRealTime();

}  // namespace
}  // namespace swiftkv::kernels
