#include "model/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>

#include "base/parallel.h"
#include "checkpoint/test_blocks.h"
#include "model/tiny_model.h"

namespace swiftkv {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;

// Float32 tensors in memory.
class FakeTensors : public TensorSource {
 public:
  void Set(const std::string& name, const std::vector<int64_t>& shape, std::vector<float> values) {
    values_[name] = std::move(values);
    StoredTensor& tensor = tensors_[name];
    tensor.name = name;
    tensor.shape = shape;
    tensor.data = std::as_bytes(std::span<const float>(values_[name]));
  }
  void SetFilled(const std::string& name, const std::vector<int64_t>& shape, float value) {
    size_t size = 1;
    for (const int64_t dimension : shape) size *= static_cast<size_t>(dimension);
    Set(name, shape, std::vector<float>(size, value));
  }
  void Remove(const std::string& name) { tensors_.erase(name); }
  float& Value(const std::string& name, size_t index) { return values_.at(name).at(index); }
  const std::vector<std::string>& names() const override { return names_; }
  const StoredTensor* Find(std::string_view name) const override {
    const auto found = tensors_.find(name);
    return found == tensors_.end() ? nullptr : &found->second;
  }
  std::string origin() const override { return "folder"; }

 private:
  std::map<std::string, std::vector<float>, std::less<>> values_;
  std::map<std::string, StoredTensor, std::less<>> tensors_;
  std::vector<std::string> names_;
};

// Three layers, n = 1, g = 2; row sizes that are no multiple of 64.
ModelConfig SmallConfig() {
  ModelConfig config;
  config.vocab_size = 90;
  config.hidden_size = 24;
  config.intermediate_size = 40;
  config.num_hidden_layers = 3;
  config.num_attention_heads = 5;
  config.num_key_value_heads = 1;
  config.head_dim = 6;
  config.max_position_embeddings = 32;
  config.sliding_window = {0, 0, 0};
  config.num_key_value_layers = 1;
  config.key_value_group_size = 2;
  return config;
}

FakeTensors SmallTensors() {
  FakeTensors tensors;
  tensors.SetFilled("model.embed_tokens.weight", {90, 24}, 1);
  tensors.SetFilled("lm_head.weight", {90, 24}, 2);
  tensors.SetFilled("model.norm.weight", {24}, 3);
  tensors.SetFilled("model.norm_swiftkv.weight", {24}, 4);
  for (int layer = 0; layer < 3; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    const auto value = static_cast<float>(100 * layer);
    tensors.SetFilled(prefix + "input_layernorm.weight", {24}, value + 1);
    tensors.SetFilled(prefix + "post_attention_layernorm.weight", {24}, value + 2);
    tensors.SetFilled(prefix + "self_attn.q_proj.weight", {30, 24}, value + 3);
    tensors.SetFilled(prefix + "self_attn.k_proj.weight", {6, 24}, value + 4);
    tensors.SetFilled(prefix + "self_attn.v_proj.weight", {6, 24}, value + 5);
    tensors.SetFilled(prefix + "self_attn.o_proj.weight", {24, 30}, value + 6);
    tensors.SetFilled(prefix + "mlp.gate_proj.weight", {40, 24}, value + 7);
    tensors.SetFilled(prefix + "mlp.up_proj.weight", {40, 24}, value + 8);
    tensors.SetFilled(prefix + "mlp.down_proj.weight", {24, 40}, value + 9);
    if (layer == 0) continue;
    tensors.SetFilled(prefix + "self_attn.q_proj_swiftkv.weight", {30, 24}, value + 10);
    if (layer == 2) continue;
    tensors.SetFilled(prefix + "self_attn.k_proj_swiftkv.weight", {6, 24}, value + 11);
    tensors.SetFilled(prefix + "self_attn.v_proj_swiftkv.weight", {6, 24}, value + 12);
  }
  return tensors;
}

const LoadOptions kBoth = {.dtype = DType::kF32, .teacher = true, .student = true, .backend = &kernels::RefBackend()};

// The first value of each row of a packed matrix.
std::vector<float> FirstColumn(const kernels::PackedMatrix& w) {
  std::vector<float> column;
  std::vector<float> row(static_cast<size_t>(w.k));
  for (int32_t id = 0; id < w.n; ++id) {
    kernels::RefBackend().UnpackRows(w, &id, 1, row.data());
    column.push_back(row[0]);
  }
  return column;
}

std::vector<float> Runs(std::initializer_list<std::pair<size_t, float>> runs) {
  std::vector<float> values;
  for (const auto& [count, value] : runs) values.insert(values.end(), count, value);
  return values;
}

TEST(WeightsTest, StacksProjectionsAndOwnersOfGroups) {
  const FakeTensors tensors = SmallTensors();
  const auto weights = LoadWeights(SmallConfig(), tensors, nullptr, kBoth);
  ASSERT_TRUE(weights.has_value()) << weights.error().message;
  EXPECT_EQ(FirstColumn(weights->layers[1].qkv_proj), Runs({{30, 103}, {6, 104}, {6, 105}}));
  EXPECT_EQ(FirstColumn(weights->layers[2].gate_up_proj), Runs({{40, 207}, {40, 208}}));
  EXPECT_EQ(FirstColumn(weights->layers[2].q_proj_swiftkv), Runs({{30, 210}}));
  EXPECT_EQ(FirstColumn(weights->later.kv_proj), Runs({{6, 111}, {6, 112}}));
  EXPECT_EQ(FirstColumn(weights->embed_tokens), Runs({{90, 1}}));
  EXPECT_EQ(FirstColumn(weights->lm_head), Runs({{90, 2}}));
  EXPECT_EQ(weights->later.norm_swiftkv, Runs({{24, 4}}));
}

TEST(WeightsTest, LoadsOnlyWhatTheModesUse) {
  FakeTensors tensors = SmallTensors();
  for (const char* name : {"q_proj", "k_proj", "v_proj"}) {
    tensors.Remove("model.layers.2.self_attn." + std::string(name) + ".weight");
  }
  LoadOptions options = kBoth;
  options.teacher = false;
  const auto student = LoadWeights(SmallConfig(), tensors, nullptr, options);
  ASSERT_TRUE(student.has_value()) << student.error().message;
  EXPECT_FALSE(student->has_teacher);
  EXPECT_EQ(student->layers[1].qkv_proj.n, 0);
  EXPECT_GT(student->layers[0].qkv_proj.n, 0);

  options = kBoth;
  options.student = false;
  tensors = SmallTensors();
  tensors.Remove("model.norm_swiftkv.weight");
  const auto teacher = LoadWeights(SmallConfig(), tensors, nullptr, options);
  ASSERT_TRUE(teacher.has_value()) << teacher.error().message;
  EXPECT_FALSE(teacher->has_student);
  EXPECT_EQ(teacher->later.kv_proj.n, 0);

  options.teacher = false;
  EXPECT_FALSE(LoadWeights(SmallConfig(), tensors, nullptr, options).has_value());
}

TEST(WeightsTest, TakesSwiftKvTensorsFromTheAdapterFirst) {
  FakeTensors adapter;
  adapter.SetFilled("model.norm_swiftkv.weight", {24}, 40);
  adapter.SetFilled("model.norm.weight", {24}, 41);  // no SwiftKV tensor: the base's stands
  const FakeTensors tensors = SmallTensors();
  const auto weights = LoadWeights(SmallConfig(), tensors, &adapter, kBoth);
  ASSERT_TRUE(weights.has_value()) << weights.error().message;
  EXPECT_EQ(weights->later.norm_swiftkv, Runs({{24, 40}}));
  EXPECT_EQ(weights->norm, Runs({{24, 3}}));
}

TEST(WeightsTest, TiedEmbeddingsAreStoredOnce) {
  ModelConfig config = SmallConfig();
  config.tie_word_embeddings = true;
  FakeTensors tensors = SmallTensors();
  tensors.Remove("lm_head.weight");
  const auto weights = LoadWeights(config, tensors, nullptr, kBoth);
  ASSERT_TRUE(weights.has_value()) << weights.error().message;
  EXPECT_EQ(weights->embed_tokens.n, 0);
  EXPECT_EQ(FirstColumn(weights->lm_head), Runs({{90, 1}}));
}

TEST(WeightsTest, RefusesWhatIsMissingMisshapenOrNotFinite) {
  FakeTensors tensors = SmallTensors();
  tensors.Remove("model.layers.1.mlp.up_proj.weight");
  auto weights = LoadWeights(SmallConfig(), tensors, nullptr, kBoth);
  ASSERT_FALSE(weights.has_value());
  EXPECT_EQ(weights.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(weights.error().message, HasSubstr("folder: model.layers.1.mlp.up_proj.weight: the"));

  tensors = SmallTensors();
  tensors.SetFilled("model.layers.1.self_attn.o_proj.weight", {30, 24}, 0);
  weights = LoadWeights(SmallConfig(), tensors, nullptr, kBoth);
  ASSERT_FALSE(weights.has_value());
  EXPECT_THAT(
      weights.error().message,
      HasSubstr("folder: model.layers.1.self_attn.o_proj.weight: shape [30, 24], the config asks for [24, 30]"));

  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  for (const auto& [name, value] : {std::pair{"model.embed_tokens.weight", nan},
                                    {"lm_head.weight", -infinity},
                                    {"model.layers.2.input_layernorm.weight", nan}}) {
    tensors = SmallTensors();
    tensors.Value(name, 23) = value;
    weights = LoadWeights(SmallConfig(), tensors, nullptr, kBoth);
    ASSERT_FALSE(weights.has_value()) << name;
    EXPECT_EQ(weights.error().code, ErrorCode::kInvalidInput);
    EXPECT_THAT(weights.error().message, HasSubstr(name));
  }
}

// 3.4e38 is a float32, but bfloat16 would make it infinite.
TEST(WeightsTest, RefusesWhatBFloat16CannotHold) {
  FakeTensors tensors = SmallTensors();
  tensors.Value("lm_head.weight", 0) = 3.4e38f;
  EXPECT_TRUE(LoadWeights(SmallConfig(), tensors, nullptr, kBoth).has_value());
  LoadOptions options = kBoth;
  options.dtype = DType::kBF16;
  EXPECT_FALSE(LoadWeights(SmallConfig(), tensors, nullptr, options).has_value());
}

TEST(WeightsTest, Int4KeepsEightBitsForTheVocabularyAndSwiftKv) {
  ModelConfig config = SmallConfig();
  config.hidden_size = 64;
  config.intermediate_size = 96;
  const LoadOptions options = {.quantization = Quantization::kInt4, .teacher = true};
  const auto weights = RandomWeights(config, 1, options);
  ASSERT_TRUE(weights.has_value()) << weights.error().message;
  for (const auto* matrix : {&weights->layers[0].qkv_proj, &weights->layers[2].down_proj}) {
    EXPECT_EQ(matrix->dtype, DType::kQ4_1);
    EXPECT_TRUE(matrix->int8_inputs);
  }
  for (const auto* matrix : {&weights->lm_head, &weights->embed_tokens, &weights->later.kv_proj}) {
    EXPECT_EQ(matrix->dtype, DType::kQ8_0);
    EXPECT_TRUE(matrix->int8_inputs);
  }
  // 30 input features are no whole blocks.
  EXPECT_EQ(weights->layers[1].o_proj.dtype, DType::kBF16);
  EXPECT_FALSE(weights->layers[1].o_proj.int8_inputs);
  EXPECT_EQ(ProductDType(*weights), DType::kI8);
}

// The base of `config` with its matrices in blocks.
class BlockTensors : public TensorSource {
 public:
  BlockTensors(const ModelConfig& config, DType dtype) : floats_(TinyTensors(config)) {
    for (const BaseTensor& tensor : BaseTensors(config)) {
      if (tensor.shape.size() != 2) continue;
      std::vector<std::byte>& bytes = bytes_[tensor.name];
      bytes = RandomBlocks(dtype, tensor.shape[0] * tensor.shape[1], static_cast<uint32_t>(bytes_.size()));
      tensors_[tensor.name] = {.name = tensor.name, .dtype = dtype, .shape = tensor.shape, .data = bytes};
    }
  }
  std::byte* Bytes(const std::string& name) { return bytes_.at(name).data(); }
  const std::vector<std::string>& names() const override { return floats_.names(); }
  const StoredTensor* Find(std::string_view name) const override {
    const auto found = tensors_.find(name);
    return found == tensors_.end() ? floats_.Find(name) : &found->second;
  }

 private:
  MemoryTensors floats_;
  std::map<std::string, std::vector<std::byte>> bytes_;
  std::map<std::string, StoredTensor, std::less<>> tensors_;
};

ModelConfig BlockConfig(int64_t layers = 6) {
  ModelConfig config = TinyConfig(Family::kLlama, layers);
  config.hidden_size = config.intermediate_size = 256;
  config.head_dim = 64;
  return config;
}

TEST(WeightsTest, StoredMakesOfSwiftKvWhatItStandsInForInBlocks) {
  const ModelConfig base = BlockConfig();
  const ModelConfig student = *StudentConfig(base, 4, 2);
  const MemoryTensors floats = TinyTensors(base);
  const BlockTensors blocks(base, DType::kQ4_1);
  const auto types = [&](const TensorSource& source, Quantization quantization) {
    const auto adapter = InitStudent(student, source, Init::kReference, DType::kBF16);
    const auto weights = LoadWeights(student, source, &*adapter, {.quantization = quantization});
    return std::array{weights->layers[0].qkv_proj.dtype, weights->layers[5].q_proj_swiftkv.dtype,
                      weights->later.kv_proj.dtype};
  };
  EXPECT_THAT(types(blocks, Quantization::kStored), ElementsAre(DType::kQ4_1, DType::kQ8_0, DType::kQ8_0));
  EXPECT_THAT(types(blocks, Quantization::kNone), Each(DType::kBF16));
  EXPECT_THAT(types(floats, Quantization::kStored), Each(DType::kBF16));
}

TEST(WeightsTest, StoredBlocksGiveTheLogitsOfBFloat16) {
  const ModelConfig config = BlockConfig(2);
  const std::vector<TokenSequence> tokens = TinySequences(config, 2, 9, 7);
  for (const auto& [stored, packed] : {std::pair{DType::kQ8_0, DType::kQ8_0},
                                       {DType::kQ4_0, DType::kQ4_1},
                                       {DType::kQ4_1, DType::kQ4_1},
                                       {DType::kQ5_0, DType::kQ8_0},
                                       {DType::kQ5_1, DType::kQ5_K},
                                       {DType::kQ4_K, DType::kQ4_K},
                                       {DType::kQ5_K, DType::kQ5_K},
                                       {DType::kQ6_K, DType::kQ6_K}}) {
    const BlockTensors blocks(config, stored);
    for (const kernels::Backend* backend : kernels::AvailableBackends()) {
      const auto logits = [&](Quantization quantization, DType type) {
        const auto weights = LoadWeights(config, blocks, nullptr, {.quantization = quantization, .backend = backend});
        EXPECT_EQ(weights->layers[0].down_proj.dtype, type);
        SequenceRunner runner(*weights, Mode::kTeacher);
        EXPECT_TRUE(runner.Run(tokens).has_value());
        std::vector<float> out(static_cast<size_t>(18 * config.vocab_size));
        runner.Logits(0, 18, out.data());
        return out;
      };
      EXPECT_EQ(logits(Quantization::kStored, packed), logits(Quantization::kNone, DType::kBF16))
          << Name(stored) << " on " << backend->name();
    }
  }
}

TEST(WeightsTest, Int4KeepsTheCodesOfQ4K) {
  const ModelConfig config = BlockConfig(1);
  const BlockTensors blocks(config, DType::kQ4_K);
  const auto exact = LoadWeights(config, blocks, nullptr, {.quantization = Quantization::kStored});
  const auto int4 = LoadWeights(config, blocks, nullptr, {.quantization = Quantization::kInt4});
  ASSERT_TRUE(exact.has_value() && int4.has_value());
  for (const auto matrix : {&LayerWeights::down_proj, &LayerWeights::gate_up_proj}) {
    EXPECT_EQ((int4->layers[0].*matrix).dtype, DType::kQ4_1);
    EXPECT_TRUE((int4->layers[0].*matrix).int8_inputs);
    const int32_t row = 17;
    std::vector<float> expected(256);
    std::vector<float> actual(256);
    exact->backend->UnpackRows(exact->layers[0].*matrix, &row, 1, expected.data());
    int4->backend->UnpackRows(int4->layers[0].*matrix, &row, 1, actual.data());
    // Scales are rounded to 11 bits, values to 8; a step is a fifteenth of what a block reaches.
    for (size_t i = 0; i < 256; ++i) EXPECT_NEAR(actual[i], expected[i], std::abs(expected[i]) * 0x1p-7f + 0.02f);
  }
  EXPECT_EQ(int4->lm_head.dtype, DType::kQ4_1);
}

TEST(WeightsTest, RefusesScalesThatAreTooLargeToPack) {
  const ModelConfig config = BlockConfig(1);
  BlockTensors blocks(config, DType::kQ4_K);
  // A float16 of 65,504 times a group's 63: float32 holds it, float16 does not.
  const std::array<uint8_t, 5> scales = {0xff, 0x7b, 0, 0, 63};
  std::memcpy(blocks.Bytes("model.layers.0.mlp.down_proj.weight"), scales.data(), scales.size());
  EXPECT_TRUE(LoadWeights(config, blocks, nullptr, {.quantization = Quantization::kStored}).has_value());
  const auto int4 = LoadWeights(config, blocks, nullptr, {.quantization = Quantization::kInt4});
  ASSERT_FALSE(int4.has_value());
  EXPECT_THAT(int4.error().message, HasSubstr("model.layers.0.mlp.down_proj.weight: scales are too large"));
}

TEST(WeightsTest, RandomWeightsDependOnTheSeedAlone) {
  const int before = Threads();
  std::vector<std::vector<float>> columns;
  for (const auto& [seed, threads] : {std::pair{1, 1}, {1, 3}, {2, 1}}) {
    SetThreads(threads);
    const auto weights = RandomWeights(SmallConfig(), static_cast<uint64_t>(seed), kBoth);
    ASSERT_TRUE(weights.has_value()) << weights.error().message;
    columns.push_back(FirstColumn(weights->layers[1].gate_up_proj));
  }
  SetThreads(before);
  EXPECT_EQ(columns[0], columns[1]);
  EXPECT_NE(columns[0], columns[2]);
}

}  // namespace
}  // namespace swiftkv
