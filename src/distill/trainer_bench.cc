// Distillation of the default model, n = 15: tokens per second of whole steps in BF16, as swiftkv_torch.py counts them.
//
//   build/release/trainer_bench                  micro-batches of 4 x 512 and 4 x 1,024 tokens
#include <benchmark/benchmark.h>
#include <sys/resource.h>

#include <memory>
#include <vector>

#include "distill/trainer.h"
#include "model/model_files.h"
#include "model/swiftkv_transform.h"

namespace swiftkv {
namespace {

PackedSequence RandomRow(int64_t tokens, uint32_t seed) {
  PackedSequence row;
  for (int64_t t = 0; t < tokens; ++t) {
    row.token_ids.push_back(static_cast<int32_t>((seed * 31 + static_cast<uint32_t>(t)) * 7919 % 49152));
  }
  row.in_loss.assign(row.token_ids.size(), 1);
  row.document_begins = {0};
  return row;
}

// Arguments: tokens of a row, rows of a micro-batch, activation checkpointing.
void Distill(benchmark::State& state) {
  const Result<ModelFiles> files = OpenModelFiles(std::string(kDefaultModel), "");
  if (!files) return state.SkipWithError(files.error().message.c_str());
  const ModelConfig student = *StudentConfig(files->config, 15, 1);
  const MemoryTensors start = *InitStudent(student, *files->base, Init::kScaled, DType::kF32);
  TrainerOptions options;
  options.activation_checkpointing = state.range(2) != 0;
  const auto trainer = *Trainer::Create(student, *files->base, start, options);
  std::vector<std::vector<PackedSequence>> batch(1);
  for (int64_t row = 0; row < state.range(1); ++row) {
    batch[0].push_back(RandomRow(state.range(0), static_cast<uint32_t>(row)));
  }
  for (auto _ : state) {
    if (!trainer->Step(batch, 1e-5)) return state.SkipWithError("the step failed");
  }
  const auto tokens = static_cast<double>(state.iterations() * state.range(0) * state.range(1));
  state.counters["tok/s"] = benchmark::Counter(tokens, benchmark::Counter::kIsRate);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  state.counters["peak_GiB"] = static_cast<double>(usage.ru_maxrss) / (1 << 20);
}
BENCHMARK(Distill)
    ->Args({512, 4, 0})
    ->Args({1024, 4, 0})
    ->Args({1024, 4, 1})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace swiftkv
