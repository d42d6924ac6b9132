// What structured output costs: compiling a schema, and the mask of allowed tokens for each token of an answer. The
// vocabulary is made up: words of random letters behind an optional space, numbers, punctuation of JSON and code.
//   build/release/grammar_bench
#include <benchmark/benchmark.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "grammar/structured_output.h"

namespace swiftkv {
namespace {

constexpr const char* kSchema = R"({"type": "object", "properties": {
    "name": {"type": "string"}, "age": {"type": "integer", "minimum": 0, "maximum": 150},
    "mail": {"type": "string", "maxLength": 200}, "tags": {"type": "array", "items": {"type": "string"}},
    "home": {"$ref": "#/$defs/place"}, "work": {"anyOf": [{"$ref": "#/$defs/place"}, {"type": "null"}]}},
    "required": ["name", "age", "mail", "tags", "home", "work"],
    "$defs": {"place": {"type": "object", "properties": {"street": {"type": "string"}, "number": {"type": "integer"}},
                        "required": ["street", "number"]}}})";
constexpr const char* kAnswer =
    R"({"name": "Ada Lovelace", "age": 36, "mail": "ada@example.org", "tags": ["mathematics", "engines", "poetry"], )"
    R"("home": {"street": "St James's Square", "number": 12}, "work": {"street": "Dorset Street", "number": 1}})";

std::shared_ptr<const TokenTrie> Vocabulary(int64_t size) {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  for (const char* text :
       {"\",", "\":", " \"", "\"}", "{\"", "[\"", "\"]", "},", "]}", "}}", "\",\"", "\":\"", "()", "\n\n"}) {
    tokens.emplace_back(text);
  }
  std::mt19937 random(1);
  constexpr std::string_view kLetters = "eeeettaaoinshrdlu";
  constexpr std::string_view kMarks = "\"'{}[]().,:;-_/";
  while (static_cast<int64_t>(tokens.size()) < size) {
    std::string& token = tokens.emplace_back(random() % 2 == 0 ? " " : "");
    const bool marks = random() % 20 == 0;
    for (size_t length = 2 + random() % (marks ? 3 : 8); length > 0; --length) {
      token += marks ? kMarks[random() % kMarks.size()] : kLetters[random() % kLetters.size()];
    }
  }
  return *TokenTrie::Create(tokens);
}

void BM_Compile(benchmark::State& state) {
  const auto trie = Vocabulary(state.range(0));
  for (auto _ : state) benchmark::DoNotOptimize(CompileJsonSchema(kSchema, trie));
}
BENCHMARK(BM_Compile)->Arg(49'152)->Unit(benchmark::kMicrosecond);

// Tokens of one byte, which is the worst case: every state of the grammar is met. `warm`: the grammar has served
// another answer before.
void FillMasks(benchmark::State& state, bool warm) {
  const auto trie = Vocabulary(state.range(0));
  const std::string answer = kAnswer;
  std::vector<uint64_t> mask(static_cast<size_t>((trie->vocab_size() + 63) / 64));
  const auto run = [&](const TokenConstraintFactory& grammar) {
    const auto constraint = grammar.New();
    for (const char byte : answer) {
      std::fill(mask.begin(), mask.end(), 0);
      benchmark::DoNotOptimize(constraint->FillMask(mask));
      constraint->Accept(static_cast<uint8_t>(byte));
    }
  };
  auto grammar = *CompileJsonSchema(kSchema, trie);
  run(*grammar);
  for (auto _ : state) {
    state.PauseTiming();
    if (!warm) grammar = *CompileJsonSchema(kSchema, trie);
    state.ResumeTiming();
    run(*grammar);
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()) * static_cast<int64_t>(answer.size()));
}
BENCHMARK_CAPTURE(FillMasks, first_answer, false)->Arg(49'152)->Arg(128'256)->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(FillMasks, later_answers, true)->Arg(49'152)->Arg(128'256)->Unit(benchmark::kMicrosecond);

void BM_Trie(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(Vocabulary(state.range(0)));
}
BENCHMARK(BM_Trie)->Arg(49'152)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace swiftkv
