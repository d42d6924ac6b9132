// Encoding and decoding speed, with the small tokenizers and texts of tests/golden/tokenizer, or with a real model's:
//   SWIFTKV_BENCH_TOKENIZER=FOLDER SWIFTKV_BENCH_TEXT=FILE build/release/text_bench
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "text/pattern.h"
#include "text/tokenizer.h"

namespace swiftkv {
namespace {

struct Setup {
  std::unique_ptr<Tokenizer> tokenizer;
  std::string text;
};

Setup Load(const std::string& name) {
  Setup setup;
  const std::string path = std::string(SWIFTKV_SOURCE_DIR) + "/tests/golden/tokenizer/" + name + ".json";
  const auto golden = nlohmann::json::parse(ReadFile(path, 1 << 20).value());
  if (const char* folder = std::getenv("SWIFTKV_BENCH_TOKENIZER")) {
    setup.tokenizer = Tokenizer::FromFolder(folder).value();
  } else {
    setup.tokenizer = Tokenizer::FromJson(golden["tokenizer"].dump(), path).value();
  }
  if (const char* file = std::getenv("SWIFTKV_BENCH_TEXT")) {
    setup.text = ReadFile(file, 1 << 30).value();
  } else {
    for (int repeat = 0; repeat < 20; ++repeat) {
      for (const auto& one : golden["cases"]) setup.text += one.value("text", "") + " ";
    }
  }
  return setup;
}

void SetBytes(benchmark::State& state, const std::string& text) {
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * static_cast<int64_t>(text.size()));
}

void BM_Encode(benchmark::State& state, const std::string& name) {
  const Setup setup = Load(name);
  for (auto _ : state) benchmark::DoNotOptimize(setup.tokenizer->Encode(setup.text, {}));
  SetBytes(state, setup.text);
}
BENCHMARK_CAPTURE(BM_Encode, smollm, "smollm");
BENCHMARK_CAPTURE(BM_Encode, llama3, "llama3");
BENCHMARK_CAPTURE(BM_Encode, qwen2, "qwen2");
BENCHMARK_CAPTURE(BM_Encode, llama2, "llama2");

void BM_Decode(benchmark::State& state, const std::string& name) {
  const Setup setup = Load(name);
  const std::vector<int32_t> ids = setup.tokenizer->Encode(setup.text, {});
  for (auto _ : state) benchmark::DoNotOptimize(setup.tokenizer->Decode(ids, {}));
  SetBytes(state, setup.text);
}
BENCHMARK_CAPTURE(BM_Decode, llama3, "llama3");
BENCHMARK_CAPTURE(BM_Decode, llama2, "llama2");

// One piece without a place to cut: the heap's case.
void BM_EncodeUnbroken(benchmark::State& state) {
  const Setup setup = Load("llama3");
  const std::string text(static_cast<size_t>(state.range(0)), 'a');
  for (auto _ : state) benchmark::DoNotOptimize(setup.tokenizer->Encode(text, {}));
  SetBytes(state, text);
}
BENCHMARK(BM_EncodeUnbroken)->Arg(1 << 10)->Arg(1 << 20);

// The word patterns by hand and by PCRE2.
void BM_SplitWords(benchmark::State& state, bool by_hand) {
  const std::string regex =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  const Pattern pattern = Pattern::FromRegex(by_hand ? regex : "(?:" + regex + ")").value();
  const Setup setup = Load("llama3");
  std::vector<PatternMatch> matches;
  for (auto _ : state) {
    matches.clear();
    pattern.FindAll(setup.text, matches);
    benchmark::DoNotOptimize(matches.data());
  }
  SetBytes(state, setup.text);
}
BENCHMARK_CAPTURE(BM_SplitWords, by_hand, true);
BENCHMARK_CAPTURE(BM_SplitWords, pcre2, false);

}  // namespace
}  // namespace swiftkv
