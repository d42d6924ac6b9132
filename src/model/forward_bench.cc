// Prefill and decode of one sequence in the shape of SmolLM2-135M with random BF16 weights, as llama-bench does it
// (pp512, pp2048, tg64): the base model, and SwiftKV with n = 15 of 30 layers.
//
//   build/release/model_bench            all cores
//   taskset -c 0 build/release/model_bench --benchmark_filter=Prefill
#include <benchmark/benchmark.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

#include "model/forward.h"

namespace swiftkv {
namespace {

ModelConfig SmolLm2Config() {
  ModelConfig config;
  config.vocab_size = 49152;
  config.hidden_size = 576;
  config.intermediate_size = 1536;
  config.num_hidden_layers = 30;
  config.num_attention_heads = 9;
  config.num_key_value_heads = 3;
  config.head_dim = 64;
  config.max_position_embeddings = 8192;
  config.tie_word_embeddings = true;
  config.sliding_window.assign(30, 0);
  config.rope.rope_theta = 100000;
  config.num_key_value_layers = 15;
  return config;
}

const Weights& SmolLm2Weights() {
  static const Weights weights = *RandomWeights(SmolLm2Config(), 1, {.dtype = DType::kBF16, .teacher = true});
  return weights;
}

// One sequence in blocks 0, 1, 2, ...
class Sequence {
 public:
  Sequence(Mode mode, int64_t tokens)
      : forward_(SmolLm2Weights(), mode),
        cache_(*KvCache::Create(forward_.cache_layout(), tokens / kKvBlockTokens + 1)),
        table_(static_cast<size_t>(cache_.blocks())),
        logits_(static_cast<size_t>(SmolLm2Config().vocab_size)) {
    std::iota(table_.begin(), table_.end(), 0);
  }

  // `tokens` tokens at `position`, and the logits of the last one.
  void Run(int32_t position, int64_t tokens) {
    Step step;
    for (int64_t i = 0; i < tokens; ++i) step.token_ids.push_back(static_cast<int32_t>((position + i) * 7919 % 49152));
    step.chunks = {{.token_begin = 0, .tokens = tokens, .position = position, .block_table = table_}};
    step.logit_rows = {static_cast<int32_t>(tokens - 1)};
    if (!forward_.Run(step, &cache_)) std::abort();
    forward_.Logits(0, 1, logits_.data());
    benchmark::DoNotOptimize(logits_.data());
  }

 private:
  Forward forward_;
  KvCache cache_;
  std::vector<int32_t> table_;
  std::vector<float> logits_;
};

Mode ModeOf(const benchmark::State& state) { return state.range(0) == 0 ? Mode::kTeacher : Mode::kStudent; }

void SetTokensPerSecond(benchmark::State& state, int64_t tokens) {
  state.counters["tok/s"] =
      benchmark::Counter(static_cast<double>(tokens * state.iterations()), benchmark::Counter::kIsRate);
}

void Prefill(benchmark::State& state) {
  const int64_t tokens = state.range(1);
  Sequence sequence(ModeOf(state), tokens);
  sequence.Run(0, tokens);
  for (auto _ : state) sequence.Run(0, tokens);
  SetTokensPerSecond(state, tokens);
}
BENCHMARK(Prefill)
    ->ArgNames({"swiftkv", "pp"})
    ->ArgsProduct({{0, 1}, {512, 2048}})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

void Decode(benchmark::State& state) {
  const auto tokens = static_cast<int32_t>(state.range(1));
  Sequence sequence(ModeOf(state), tokens);
  for (auto _ : state) {
    for (int32_t position = 0; position < tokens; ++position) sequence.Run(position, 1);
  }
  SetTokensPerSecond(state, tokens);
}
BENCHMARK(Decode)
    ->ArgNames({"swiftkv", "tg"})
    ->ArgsProduct({{0, 1}, {64}})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

void LoadRandomWeights(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(RandomWeights(SmolLm2Config(), 1, {.dtype = DType::kBF16}));
}
BENCHMARK(LoadRandomWeights)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace swiftkv
