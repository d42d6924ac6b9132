// Tokens a second of WriteTeacherText with the default model: short questions, answers of at most 128 tokens, so many
// written side by side.
//
//   build/release/teacher_text_bench --benchmark_filter=64
#include <benchmark/benchmark.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "cli/teacher_text.h"
#include "model/model_files.h"

namespace swiftkv {
namespace {

void BM_WriteTeacherText(benchmark::State& state) {
  static const Result<LoadedModel> model = LoadModel({.model = std::string(kDefaultModel)});
  if (!model) return state.SkipWithError(model.error().message.c_str());
  const std::string folder =
      std::filesystem::temp_directory_path() / ("teacher_text_bench_" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  std::string questions;
  for (int i = 0; i < 512; ++i) {
    const std::string question = "Tell me something about the number " + std::to_string(i) + " and why it matters.";
    questions += nlohmann::json{{"messages", {{{"role", "user"}, {"content", question}}}}}.dump() + "\n";
  }
  if (!WriteFile(folder + "/questions.jsonl", questions)) return state.SkipWithError("cannot write the questions");
  const std::vector<SourceRecipe> sources = {{.path = folder + "/questions.jsonl", .role = SourceRole::kPrompts}};
  TeacherTextOptions options;
  options.parallel = state.range(0);
  options.generate = {.count = 2 * state.range(0), .max_tokens = 128};
  int64_t tokens = 0;
  for (auto _ : state) {
    options.seed = tokens;
    const auto written = WriteTeacherText(sources, model->weights, model->text, options, folder + "/answers.jsonl",
                                          [](const TeacherText&) { return true; });
    if (!written) return state.SkipWithError(written.error().message.c_str());
    tokens += written->tokens;
    std::filesystem::remove(folder + "/answers.jsonl");
  }
  std::filesystem::remove_all(folder);
  state.SetItemsProcessed(tokens);
}
BENCHMARK(BM_WriteTeacherText)
    ->Arg(1)
    ->Arg(16)
    ->Arg(64)
    ->Arg(128)
    ->UseRealTime()
    ->Unit(benchmark::kSecond)
    ->Iterations(1);

}  // namespace
}  // namespace swiftkv
