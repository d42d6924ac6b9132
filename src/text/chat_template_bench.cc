// What a request pays for its prompt: parsing the template once, rendering it each time.
#include <benchmark/benchmark.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "text/chat_template.h"

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;

const Json& Golden() {
  static const Json golden = [] {
    std::ifstream file(SWIFTKV_SOURCE_DIR "/tests/golden/chat_template/rendered.json");
    return Json::parse(file);
  }();
  return golden;
}

// A Llama-3.1-style template ("headers") with two tools, and `turns` user messages, each with an answer.
void Render(benchmark::State& state, const std::string& name) {
  auto chat = ChatTemplate::Parse(Golden()["templates"][name].get<std::string>(), name);
  Json variables = Golden()["tokens"];
  variables["tools"] = Golden()["tools"];
  variables["add_generation_prompt"] = true;
  variables["messages"] = {{{"role", "system"}, {"content", "You are a helpful assistant."}}};
  for (int64_t turn = 0; turn < state.range(0); ++turn) {
    variables["messages"].push_back({{"role", "user"}, {"content", std::string(200, 'q')}});
    variables["messages"].push_back({{"role", "assistant"}, {"content", std::string(400, 'a')}});
  }
  size_t bytes = 0;
  for (auto _ : state) {
    auto text = chat->Render(variables);
    if (!text) return state.SkipWithError(text.error().message.c_str());
    bytes += text->size();
  }
  state.SetBytesProcessed(static_cast<int64_t>(bytes));
}
BENCHMARK_CAPTURE(Render, headers, std::string("headers"))->Arg(1)->Arg(10)->Arg(100)->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(Render, thinking, std::string("thinking"))->Arg(1)->Arg(10)->Arg(100)->Unit(benchmark::kMicrosecond);

void Parse(benchmark::State& state) {
  const std::string source = Golden()["templates"]["headers"];
  for (auto _ : state) benchmark::DoNotOptimize(ChatTemplate::Parse(source, "headers"));
}
BENCHMARK(Parse)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace swiftkv
