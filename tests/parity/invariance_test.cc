// Against itself: the same request gives the same bytes however it is run (design section 4, batch invariance).
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/parallel.h"
#include "model_cases.h"

namespace swiftkv {
namespace {

constexpr DType kDTypes[] = {DType::kF32, DType::kBF16};

// Runs `body` for every backend and type, with a trace.
void ForEveryBackend(const std::function<void(const kernels::Backend*, DType)>& body) {
  for (const kernels::Backend* backend : kernels::AvailableBackends()) {
    for (const DType dtype : kDTypes) {
      SCOPED_TRACE(std::string(backend->name()) + " " + std::string(Name(dtype)));
      body(backend, dtype);
    }
  }
}

void ExpectSameBytes(const std::vector<float>& a, const std::vector<float>& b) {
  ASSERT_EQ(a.size(), b.size());
  ASSERT_FALSE(a.empty());
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0);
}

std::vector<float> Row(const std::vector<float>& logits, int64_t row, int64_t vocab) {
  return {logits.begin() + row * vocab, logits.begin() + (row + 1) * vocab};
}

// Sizes that are multiples of nothing, a window, q/k norms or biases; long enough for several attention partitions.
ModelConfig OddConfig(Family family) {
  ModelConfig config;
  config.family = family;
  config.vocab_size = 131;
  config.hidden_size = 72;
  config.intermediate_size = 104;
  config.num_hidden_layers = 5;
  config.num_attention_heads = 6;
  config.num_key_value_heads = 2;
  config.head_dim = 24;
  config.max_position_embeddings = 2048;
  config.qkv_bias = family == Family::kQwen2;
  config.qk_norm = family == Family::kQwen3;
  config.tie_word_embeddings = family == Family::kQwen3;
  config.sliding_window = {0, 0, 37, 0, 37};
  config.num_key_value_layers = 1;
  config.key_value_group_size = 2;
  return config;
}

Weights OddWeights(Family family, DType dtype, const kernels::Backend* backend) {
  return *RandomWeights(OddConfig(family), 7, {.dtype = dtype, .teacher = true, .student = true, .backend = backend});
}

class ThreadCount {
 public:
  explicit ThreadCount(int threads) : before_(Threads()) { SetThreads(threads); }
  ~ThreadCount() { SetThreads(before_); }

 private:
  int before_;
};

TEST(InvarianceTest, ChunksOfAPromptGiveTheSameBytes) {
  ForEveryBackend([](const kernels::Backend* backend, DType dtype) {
    const std::vector<int64_t> chunk_sizes[] = {{1, 16}, {7, 64}};
    for (const Family family : {Family::kQwen2, Family::kQwen3}) {
      const Weights weights = OddWeights(family, dtype, backend);
      const std::vector<int32_t> tokens = RandomTokens(530, weights.config.vocab_size, 1);
      for (const Mode mode : {Mode::kTeacher, Mode::kStudent}) {
        const std::vector<float> whole = RunAllRows(weights, mode, tokens);
        for (const int64_t chunk : chunk_sizes[family == Family::kQwen3]) {
          SCOPED_TRACE(chunk);
          ExpectSameBytes(RunAllRows(weights, mode, tokens, chunk), whole);
        }
      }
    }
  });
}

TEST(InvarianceTest, ThreadCountsGiveTheSameBytes) {
  ForEveryBackend([](const kernels::Backend* backend, DType dtype) {
    const Weights weights = OddWeights(Family::kLlama, dtype, backend);
    const std::vector<int32_t> tokens = RandomTokens(150, weights.config.vocab_size, 2);
    for (const Mode mode : {Mode::kTeacher, Mode::kStudent}) {
      const ThreadCount one(1);
      const std::vector<float> expected = RunAllRows(weights, mode, tokens);
      for (const int threads : {2, 3, 8}) {
        const ThreadCount many(threads);
        ExpectSameBytes(RunAllRows(weights, mode, tokens), expected);
      }
    }
  });
}

// Unfinished chunks without logit rows, then the last row alone.
TEST(InvarianceTest, TheLastRowAloneEqualsAllRows) {
  ForEveryBackend([](const kernels::Backend* backend, DType dtype) {
    const Weights weights = OddWeights(Family::kQwen2, dtype, backend);
    const int64_t vocab = weights.config.vocab_size;
    const std::vector<int32_t> tokens = RandomTokens(70, vocab, 3);
    for (const Mode mode : {Mode::kTeacher, Mode::kStudent}) {
      const std::vector<float> all = RunAllRows(weights, mode, tokens);
      Runner runner(weights, mode, 128);
      EXPECT_TRUE(runner.Step({{0, {tokens.begin(), tokens.begin() + 33}, {}}}).empty());
      EXPECT_TRUE(runner.Step({{0, {tokens.begin() + 33, tokens.begin() + 40}, {}}}).empty());
      const std::vector<float> some = runner.Step({{0, {tokens.begin() + 40, tokens.end()}, {3, 29}}});
      ExpectSameBytes(Row(some, 0, vocab), Row(all, 43, vocab));
      ExpectSameBytes(Row(some, 1, vocab), Row(all, 69, vocab));
    }
  });
}

// Prompts of three lengths and decoding mixed in the same steps.
TEST(InvarianceTest, BatchesGiveTheSameBytesAsSequencesAlone) {
  ForEveryBackend([](const kernels::Backend* backend, DType dtype) {
    const Weights weights = OddWeights(Family::kLlama, dtype, backend);
    const int64_t vocab = weights.config.vocab_size;
    const auto a = RandomTokens(40, vocab, 4);
    const auto b = RandomTokens(19, vocab, 5);
    const auto c = RandomTokens(3, vocab, 6);
    for (const Mode mode : {Mode::kTeacher, Mode::kStudent}) {
      const std::vector<float> a_alone = RunAllRows(weights, mode, a);
      const std::vector<float> b_alone = RunAllRows(weights, mode, b);
      const std::vector<float> c_alone = RunAllRows(weights, mode, c);
      Runner runner(weights, mode, 256);
      runner.Step({{0, {a.begin(), a.begin() + 17}, {}}, {1, {b.begin(), b.begin() + 18}, {}}});
      const std::vector<float> mixed =
          runner.Step({{1, {b[18]}, {0}}, {2, c, {1, 2}}, {0, {a.begin() + 17, a.end()}, {22}}});
      ExpectSameBytes(Row(mixed, 0, vocab), Row(b_alone, 18, vocab));
      ExpectSameBytes(Row(mixed, 1, vocab), Row(c_alone, 1, vocab));
      ExpectSameBytes(Row(mixed, 2, vocab), Row(c_alone, 2, vocab));
      ExpectSameBytes(Row(mixed, 3, vocab), Row(a_alone, 39, vocab));
    }
  });
}

struct Precision {
  const char* name;
  Quantization quantization;
  std::optional<DType> cache;
};
constexpr Precision kPrecisions[] = {
    {"q8_0", Quantization::kQ8_0, {}},
    {"q4_1", Quantization::kQ4_1, {}},
    {"int8", Quantization::kInt8, {}},
    {"int4", Quantization::kInt4, {}},
    {"bf16, int8 cache", Quantization::kNone, DType::kI8},
    {"int8, int8 cache", Quantization::kInt8, DType::kI8},
};

// As OddConfig, but of whole blocks of 32 features, and with heads of 64, which an INT8 cache in fours wants.
ModelConfig BlockConfig() {
  ModelConfig config = OddConfig(Family::kLlama);
  config.hidden_size = 96;
  config.intermediate_size = 160;
  config.head_dim = 64;
  return config;
}

// Weights in 8 and 4 bits and a cache in 8: a whole prompt, chunks of it with and without logit rows, beside another
// sequence, and on more threads.
TEST(InvarianceTest, EveryPrecisionGivesTheSameBytes) {
  for (const kernels::Backend* backend : kernels::AvailableBackends()) {
    for (const Precision& precision : kPrecisions) {
      SCOPED_TRACE(std::string(backend->name()) + " " + precision.name);
      const Weights weights = *RandomWeights(
          BlockConfig(), 7,
          {.quantization = precision.quantization, .teacher = true, .student = true, .backend = backend});
      const int64_t vocab = weights.config.vocab_size;
      // Over a cache in 8 bits more than one partition of attention.
      const int64_t length = precision.cache ? 270 : 90;
      const int64_t fewest = precision.cache ? 3 : 1;
      const std::vector<int32_t> tokens = RandomTokens(length, vocab, 8);
      const std::vector<int32_t> others = RandomTokens(21, vocab, 9);
      for (const Mode mode : {Mode::kTeacher, Mode::kStudent}) {
        const std::vector<float> whole = RunAllRows(weights, mode, tokens, 0, precision.cache);
        for (const auto& [chunk, thread_count] :
             {std::pair(fewest, 1), std::pair(int64_t{5}, 3), std::pair(int64_t{40}, 2)}) {
          const ThreadCount threads(thread_count);
          ExpectSameBytes(RunAllRows(weights, mode, tokens, chunk, precision.cache), whole);
        }
        Runner runner(weights, mode, 512, precision.cache);
        runner.Step({{0, {tokens.begin(), tokens.end() - 19}, {}}, {1, {others.begin(), others.begin() + 20}, {}}});
        const std::vector<float> mixed =
            runner.Step({{1, {others[20]}, {0}}, {0, {tokens.end() - 19, tokens.end()}, {4, 18}}});
        ExpectSameBytes(Row(mixed, 1, vocab), Row(whole, length - 15, vocab));
        ExpectSameBytes(Row(mixed, 2, vocab), Row(whole, length - 1, vocab));
        ExpectSameBytes(Row(mixed, 0, vocab), Row(RunAllRows(weights, mode, others, 0, precision.cache), 20, vocab));
      }
    }
  }
}

TEST(InvarianceTest, TheTeacherOfAConvertedCheckpointIsTheBaseModel) {
  ForEveryBackend([](const kernels::Backend* backend, DType dtype) {
    for (const ModelCase& model : SwiftKvCases()) {
      SCOPED_TRACE(model.name);
      ModelCase base = model;
      base.config = model.config.Teacher();
      base.adapter = nullptr;
      ExpectSameBytes(RunAllRows(LoadCase(model, dtype, backend), Mode::kTeacher, GoldenTokens()),
                      RunAllRows(LoadCase(base, dtype, backend), Mode::kTeacher, GoldenTokens()));
    }
  });
}

TEST(InvarianceTest, AStudentOfAllLayersIsTheBaseModel) {
  ForEveryBackend([](const kernels::Backend* backend, DType dtype) {
    for (const ModelCase& model : SwiftKvCases()) {
      SCOPED_TRACE(model.name);
      ModelCase all_layers = model;
      all_layers.config.num_key_value_layers = model.config.num_hidden_layers;
      ExpectSameBytes(RunAllRows(LoadCase(all_layers, dtype, backend), Mode::kStudent, GoldenTokens()),
                      RunAllRows(LoadCase(model, dtype, backend), Mode::kTeacher, GoldenTokens()));
    }
  });
}

// An adapter for g = 1 in which every layer of a group has the tensors of the group's first layer.
class Duplicated : public TensorSource {
 public:
  Duplicated(const TensorSource& grouped, const ModelConfig& config) : grouped_(grouped), config_(config) {}
  const std::vector<std::string>& names() const override { return grouped_.names(); }
  const StoredTensor* Find(std::string_view name) const override {
    const std::string prefix = "model.layers.";
    const bool shared = name.find(".k_") != std::string_view::npos || name.find(".v_") != std::string_view::npos;
    if (!shared) return grouped_.Find(name);
    const std::string rest(name.substr(prefix.size()));
    const int64_t owner = config_.kv_owner(std::stoll(rest));
    return grouped_.Find(prefix + std::to_string(owner) + rest.substr(rest.find('.')));
  }

 private:
  const TensorSource& grouped_;
  const ModelConfig config_;
};

TEST(InvarianceTest, GroupsEqualDuplicatedWeights) {
  ForEveryBackend([](const kernels::Backend* backend, DType dtype) {
    for (const ModelCase& model : SwiftKvCases()) {
      if (model.config.key_value_group_size == 1) continue;
      SCOPED_TRACE(model.name);
      ModelCase single = model;
      single.config.key_value_group_size = 1;
      single.adapter = std::make_shared<Duplicated>(*model.adapter, model.config);
      const Weights grouped = LoadCase(model, dtype, backend);
      const Weights duplicated = LoadCase(single, dtype, backend);
      EXPECT_LT(Forward(grouped, Mode::kStudent).cache_layout().groups,
                Forward(duplicated, Mode::kStudent).cache_layout().groups);
      ExpectSameBytes(RunAllRows(grouped, Mode::kStudent, GoldenTokens()),
                      RunAllRows(duplicated, Mode::kStudent, GoldenTokens()));
    }
  });
}

}  // namespace
}  // namespace swiftkv
