// What the cores can do at most, with everything in registers: the yardstick for the share that Gemm reaches.
#include <benchmark/benchmark.h>
#include <immintrin.h>

#include <random>

#include "base/bfloat16.h"
#include "base/parallel.h"
#include "kernels/cpu_features.h"

namespace swiftkv::kernels {
namespace {

constexpr int64_t kSteps = 1 << 18;
constexpr int kChains = 24;
constexpr int64_t kTileSteps = 1 << 16;

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

// Tiles of random numbers: with zeros some CPUs run at a higher frequency than any real product does.
__attribute__((target("amx-tile,amx-bf16"))) float TileLoop() {
  struct alignas(64) Config {
    uint8_t palette = 1;
    uint8_t reserved[15] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  };
  const Config config;
  __asm__ volatile("ldtilecfg %0" ::"m"(config));
  alignas(64) BFloat16 values[4][512];
  std::minstd_rand engine(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (auto& tile : values) {
    for (BFloat16& value : tile) value = ToBFloat16(uniform(engine));
  }
  __asm__ volatile("" ::: "memory");
  _tile_loadd(4, values[0], 64);
  _tile_loadd(5, values[1], 64);
  _tile_loadd(6, values[2], 64);
  _tile_loadd(7, values[3], 64);
  for (int64_t step = 0; step < kTileSteps; ++step) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
  return 0;
}

void Peak(benchmark::State& state, bool available, float (*loop)(), double flops) {
  if (!available) return state.SkipWithError("not on this CPU");
  for (auto _ : state) ParallelFor(Threads(), [&](int64_t) { benchmark::DoNotOptimize(loop()); });
  state.counters["FLOP"] = benchmark::Counter(flops * Threads(), benchmark::Counter::kIsIterationInvariantRate);
}

BENCHMARK_CAPTURE(Peak, amx_bf16, Cpu().amx_bf16, TileLoop, kTileSteps * 4.0 * 16 * 16 * 32 * 2)->UseRealTime();
BENCHMARK_CAPTURE(Peak, avx512_bf16, Cpu().avx512_bf16, Bf16Loop, kSteps* kChains * 16.0 * 4)->UseRealTime();
BENCHMARK_CAPTURE(Peak, avx512_f32, Cpu().avx512, F32Loop, kSteps* kChains * 16.0 * 2)->UseRealTime();

}  // namespace
}  // namespace swiftkv::kernels
