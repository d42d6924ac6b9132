#include "model_cases.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>

namespace swiftkv {
namespace {

const std::string kFolder = SWIFTKV_SOURCE_DIR "/tests/golden/model/";

template <class T>
T Value(Result<T> result) {
  if (!result) {
    ADD_FAILURE() << result.error().message;
    std::abort();  // a test without its model can't go on
  }
  return std::move(*result);
}

std::vector<ModelCase> ReadCases() {
  std::ifstream file(kFolder + "cases.json");
  std::vector<ModelCase> cases;
  for (const auto& json : nlohmann::ordered_json::parse(file)) {
    ModelCase model;
    model.name = json.at("name");
    model.config = Value(ParseHfConfig(json.at("config"), model.name));
    model.base = Value(OpenSafetensors(kFolder + json.at("weights").get<std::string>() + ".safetensors"));
    if (const std::string adapter = json.at("adapter"); !adapter.empty()) {
      model.adapter = Value(OpenSafetensors(kFolder + adapter + ".safetensors"));
    }
    cases.push_back(std::move(model));
  }
  return cases;
}

const TensorSource& Goldens() {
  static const std::unique_ptr<TensorSource> goldens = Value(OpenSafetensors(kFolder + "logits.safetensors"));
  return *goldens;
}

template <class T>
std::vector<T> Golden(const std::string& name) {
  const StoredTensor* tensor = Goldens().Find(name);
  if (tensor == nullptr) {
    ADD_FAILURE() << "no golden " << name;
    return {};
  }
  std::vector<T> values(tensor->data.size() / sizeof(T));
  std::memcpy(values.data(), tensor->data.data(), tensor->data.size());
  return values;
}

}  // namespace

const std::vector<ModelCase>& ModelCases() {
  static const std::vector<ModelCase> cases = ReadCases();
  return cases;
}

std::vector<ModelCase> SwiftKvCases() {
  std::vector<ModelCase> cases;
  for (const ModelCase& model : ModelCases()) {
    if (model.config.is_swiftkv()) cases.push_back(model);
  }
  return cases;
}

std::vector<const kernels::Backend*> AllBackends() {
  std::vector<const kernels::Backend*> backends = kernels::AvailableBackends();
  if (const auto cuda = kernels::CudaBackend()) backends.push_back(*cuda);
  return backends;
}

std::vector<float> GoldenLogits(const std::string& name) { return Golden<float>(name); }
std::vector<int32_t> GoldenTokens() { return Golden<int32_t>("token_ids"); }

Weights LoadCase(const ModelCase& model, DType dtype, const kernels::Backend* backend) {
  return Value(LoadWeights(model.config, *model.base, model.adapter.get(),
                           {.dtype = dtype, .teacher = true, .student = true, .backend = backend}));
}

Runner::Runner(const Weights& weights, Mode mode, int64_t cache_tokens, std::optional<DType> cache_dtype)
    : weights_(weights),
      forward_(weights, mode, cache_dtype),
      cache_(Value(KvCache::Create(forward_.cache_layout(), cache_tokens / kKvBlockTokens + 1))) {}

std::vector<float> Runner::Step(const std::vector<Feed>& feeds, ForwardObserver* observer) {
  swiftkv::Step step;
  for (const Feed& feed : feeds) {
    const auto sequence = static_cast<size_t>(feed.sequence);
    if (sequence >= tables_.size()) {
      tables_.resize(sequence + 1);
      lengths_.resize(sequence + 1);
    }
    const auto begin = static_cast<int64_t>(step.token_ids.size());
    const auto tokens = static_cast<int64_t>(feed.tokens.size());
    step.token_ids.insert(step.token_ids.end(), feed.tokens.begin(), feed.tokens.end());
    for (const int32_t row : feed.logit_rows) step.logit_rows.push_back(static_cast<int32_t>(begin + row));
    while (static_cast<int64_t>(tables_[sequence].size()) * kKvBlockTokens < lengths_[sequence] + tokens) {
      tables_[sequence].push_back(cache_.pool().Allocate().value());
    }
    step.chunks.push_back(
        {.token_begin = begin, .tokens = tokens, .position = lengths_[sequence], .block_table = tables_[sequence]});
    lengths_[sequence] += static_cast<int32_t>(tokens);
  }
  if (Status status = forward_.Run(step, &cache_, observer); !status) {
    ADD_FAILURE() << status.error().message;
    std::abort();
  }
  const auto rows = static_cast<int64_t>(step.logit_rows.size());
  std::vector<float> logits(static_cast<size_t>(rows * weights_.config.vocab_size));
  if (Status status = forward_.Logits(0, rows, logits.data()); !status) {
    ADD_FAILURE() << status.error().message;
    std::abort();
  }
  return logits;
}

std::vector<float> RunAllRows(const Weights& weights, Mode mode, const std::vector<int32_t>& tokens, int64_t chunk,
                              std::optional<DType> cache_dtype) {
  const auto count = static_cast<int64_t>(tokens.size());
  Runner runner(weights, mode, count + kKvBlockTokens, cache_dtype);
  std::vector<float> logits;
  for (int64_t begin = 0; begin < count; begin += chunk) {
    if (chunk == 0) chunk = count;
    const int64_t end = std::min(count, begin + chunk);
    std::vector<int32_t> rows(static_cast<size_t>(end - begin));
    std::iota(rows.begin(), rows.end(), 0);
    const std::vector<float> part = runner.Step({{0, {tokens.begin() + begin, tokens.begin() + end}, rows}});
    logits.insert(logits.end(), part.begin(), part.end());
  }
  return logits;
}

std::vector<int32_t> RandomTokens(int64_t count, int64_t vocab_size, uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (int32_t& token : tokens) token = static_cast<int32_t>(generator() % static_cast<uint64_t>(vocab_size));
  return tokens;
}

}  // namespace swiftkv
