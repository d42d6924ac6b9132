#include "kernels/peak.h"

#include <immintrin.h>

#include <random>

#include "base/bfloat16.h"
#include "kernels/cpu_features.h"

namespace swiftkv::kernels {
namespace {

constexpr int64_t kSteps = 1 << 18;
constexpr int kChains = 24;      // independent sums in AVX-512's 32 registers, more than latency times throughput
constexpr int kAvx2Chains = 12;  // of AVX2's 16
constexpr int64_t kTileSteps = 1 << 16;

__attribute__((target("avx2,fma"))) void Avx2Loop() {
  __m256 sums[kAvx2Chains];
#pragma GCC unroll 12
  for (int i = 0; i < kAvx2Chains; ++i) sums[i] = _mm256_setzero_ps();
  const __m256 x = _mm256_set1_ps(0.5f);
  for (int64_t step = 0; step < kSteps; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < kAvx2Chains; ++i) {
      sums[i] = _mm256_fmadd_ps(sums[i], x, x);
      __asm__ volatile("" : "+x"(sums[i]));
    }
  }
}

__attribute__((target("avx2,avxvnni"))) void Avx2VnniLoop() {
  __m256i sums[kAvx2Chains];
#pragma GCC unroll 12
  for (int i = 0; i < kAvx2Chains; ++i) sums[i] = _mm256_setzero_si256();
  const __m256i x = _mm256_set1_epi32(0x01010101);
  for (int64_t step = 0; step < kSteps; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < kAvx2Chains; ++i) {
      sums[i] = _mm256_dpbusd_avx_epi32(sums[i], x, x);
      __asm__ volatile("" : "+x"(sums[i]));
    }
  }
}

__attribute__((target("avx512f"))) void Avx512Loop() {
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
}

__attribute__((target("avx512f,avx512bf16"))) void Avx512Bf16Loop() {
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
}

__attribute__((target("avx512f,avx512vnni"))) void Avx512VnniLoop() {
  __m512i sums[kChains];
#pragma GCC unroll 24
  for (int i = 0; i < kChains; ++i) sums[i] = _mm512_setzero_si512();
  const __m512i x = _mm512_set1_epi32(0x01010101);
  for (int64_t step = 0; step < kSteps; ++step) {
#pragma GCC unroll 24
    for (int i = 0; i < kChains; ++i) {
      sums[i] = _mm512_dpbusd_epi32(sums[i], x, x);
      __asm__ volatile("" : "+v"(sums[i]));
    }
  }
}

// Tiles of random numbers: with zeros some CPUs run at a higher frequency than any real product does.
__attribute__((target("amx-tile"))) void LoadRandomTiles() {
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
}

__attribute__((target("amx-tile,amx-bf16"))) void TileLoop() {
  LoadRandomTiles();
  for (int64_t step = 0; step < kTileSteps; ++step) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
}

__attribute__((target("amx-tile,amx-int8"))) void Int8TileLoop() {
  LoadRandomTiles();
  for (int64_t step = 0; step < kTileSteps; ++step) {
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
  }
  _tile_release();
}

}  // namespace

std::vector<PeakLoop> AvailablePeakLoops() {
  std::vector<PeakLoop> loops;
  if (Cpu().avx2) loops.push_back({"avx2_f32", DType::kF32, kSteps * kAvx2Chains * 8.0 * 2, Avx2Loop});
  if (Cpu().avx2_vnni) loops.push_back({"avx2_vnni", DType::kI8, kSteps * kAvx2Chains * 8.0 * 8, Avx2VnniLoop});
  if (Cpu().avx512) loops.push_back({"avx512_f32", DType::kF32, kSteps * kChains * 16.0 * 2, Avx512Loop});
  if (Cpu().avx512_bf16) loops.push_back({"avx512_bf16", DType::kBF16, kSteps * kChains * 16.0 * 4, Avx512Bf16Loop});
  if (Cpu().avx512_vnni) loops.push_back({"avx512_vnni", DType::kI8, kSteps * kChains * 16.0 * 8, Avx512VnniLoop});
  if (Cpu().amx_bf16) loops.push_back({"amx_bf16", DType::kBF16, kTileSteps * 4.0 * 16 * 16 * 32 * 2, TileLoop});
  if (Cpu().amx_bf16) loops.push_back({"amx_int8", DType::kI8, kTileSteps * 4.0 * 16 * 16 * 64 * 2, Int8TileLoop});
  return loops;
}

}  // namespace swiftkv::kernels
