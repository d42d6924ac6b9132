// Decoding speed of every stored type, one thread, in elements a second:
//   build/release/checkpoint_bench --benchmark_min_time=0.2
#include <benchmark/benchmark.h>

#include <vector>

#include "checkpoint/tensor_source.h"

namespace swiftkv {
namespace {

void BM_DecodeRows(benchmark::State& state) {
  const auto dtype = static_cast<DType>(state.range(0));
  constexpr int64_t kRows = 64;
  constexpr int64_t kColumns = 4096;
  const std::vector<std::byte> data(*BytesFor(dtype, kRows * kColumns), std::byte{0x35});
  const StoredTensor tensor{.name = "w", .dtype = dtype, .shape = {kRows, kColumns}, .data = data};
  std::vector<float> out(kColumns);
  for (auto _ : state) {
    for (int64_t row = 0; row < kRows; ++row) {
      if (!DecodeRows(tensor, row, 1, out.data())) return state.SkipWithError("refused");
      benchmark::DoNotOptimize(out.data());
      benchmark::ClobberMemory();
    }
  }
  state.SetItemsProcessed(state.iterations() * kRows * kColumns);
  state.SetLabel(std::string(Name(dtype)));
}
BENCHMARK(BM_DecodeRows)
    ->Arg(static_cast<int>(DType::kF32))
    ->Arg(static_cast<int>(DType::kF16))
    ->Arg(static_cast<int>(DType::kBF16))
    ->Arg(static_cast<int>(DType::kF8E4M3))
    ->DenseRange(static_cast<int>(DType::kQ8_0), static_cast<int>(DType::kQ6_K));

}  // namespace
}  // namespace swiftkv
