// The start of a student and the layout of what is written.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "checkpoint/json_file.h"
#include "model/checkpoint_output.h"
#include "model/quality.h"
#include "model/swiftkv_config.h"
#include "model/swiftkv_transform.h"
#include "model/tiny_model.h"

namespace swiftkv {
namespace {

std::vector<float> Values(const TensorSource& source, const std::string& name) {
  const StoredTensor* tensor = source.Find(name);
  EXPECT_NE(tensor, nullptr) << name;
  if (tensor == nullptr) return {};
  std::vector<float> values(static_cast<size_t>(tensor->rows() * tensor->columns()));
  EXPECT_TRUE(DecodeRows(*tensor, 0, tensor->rows(), values.data()));
  return values;
}

std::vector<std::string> Names(const ModelConfig& student) {
  std::vector<std::string> names;
  for (const SwiftKvTensor& tensor : SwiftKvTensors(student)) names.push_back(tensor.name);
  return names;
}

TEST(StudentConfig, Limits) {
  const ModelConfig base = TinyConfig();
  EXPECT_TRUE(StudentConfig(base, 2, 4));
  EXPECT_TRUE(StudentConfig(base, 6, 1));
  for (const auto& [n, g] : std::vector<std::pair<int, int>>{{0, 1}, {7, 1}, {2, 3}, {2, 0}, {2, -1}}) {
    const auto student = StudentConfig(base, n, g);
    ASSERT_FALSE(student) << n << " " << g;
    EXPECT_EQ(student.error().code, ErrorCode::kInvalidInput);
  }
}

TEST(SwiftKvTensors, OfficialNamesAndOwners) {
  const ModelConfig student = *StudentConfig(TinyConfig(Family::kQwen2), 4, 2);
  const std::string a = "model.layers.4.self_attn.";
  const std::string b = "model.layers.5.self_attn.";
  EXPECT_THAT(Names(student), testing::ElementsAre(
                                  a + "q_proj_swiftkv.weight", a + "q_proj_swiftkv.bias", a + "k_proj_swiftkv.weight",
                                  a + "k_proj_swiftkv.bias", a + "v_proj_swiftkv.weight", a + "v_proj_swiftkv.bias",
                                  b + "q_proj_swiftkv.weight", b + "q_proj_swiftkv.bias", "model.norm_swiftkv.weight"));
  EXPECT_TRUE(SwiftKvTensors(TinyConfig()).empty());
}

TEST(SwiftKvTensors, QwenNorms) {
  const auto names = Names(*StudentConfig(TinyConfig(Family::kQwen3), 4, 2));
  EXPECT_THAT(names, testing::IsSupersetOf({"model.layers.4.self_attn.q_norm_swiftkv.weight",
                                            "model.layers.4.self_attn.k_norm_swiftkv.weight",
                                            "model.layers.5.self_attn.q_norm_swiftkv.weight"}));
  EXPECT_THAT(names, testing::Not(testing::Contains("model.layers.5.self_attn.k_norm_swiftkv.weight")));
}

TEST(InitStudent, ReferenceCopiesAndAverages) {
  const ModelConfig base = TinyConfig(Family::kQwen2);
  const MemoryTensors tensors = TinyTensors(base);
  const auto student = InitStudent(*StudentConfig(base, 2, 2), tensors, Init::kReference, DType::kF32);
  ASSERT_TRUE(student) << student.error().message;
  EXPECT_EQ(Values(*student, "model.norm_swiftkv.weight"), Values(tensors, "model.layers.2.input_layernorm.weight"));
  EXPECT_EQ(Values(*student, "model.layers.5.self_attn.q_proj_swiftkv.bias"),
            Values(tensors, "model.layers.5.self_attn.q_proj.bias"));
  for (const std::string part : {"k_proj", "v_proj"}) {
    for (const std::string parameter : {"weight", "bias"}) {
      const auto mean = Values(*student, "model.layers.4.self_attn." + part + "_swiftkv." + parameter);
      const auto first = Values(tensors, "model.layers.4.self_attn." + part + "." + parameter);
      const auto second = Values(tensors, "model.layers.5.self_attn." + part + "." + parameter);
      ASSERT_EQ(mean.size(), first.size());
      for (size_t i = 0; i < mean.size(); ++i) EXPECT_FLOAT_EQ(mean[i], (first[i] + second[i]) / 2);
    }
  }
}

TEST(InitStudent, ScaledMovesColumnsToTheSharedNorm) {
  const ModelConfig base = TinyConfig();
  MemoryTensors tensors = TinyTensors(base);
  std::vector<float> norm = Values(tensors, "model.layers.3.input_layernorm.weight");
  norm[7] = 0;  // nothing to divide by
  tensors.Set("model.layers.3.input_layernorm.weight", {32}, norm);
  const auto student = InitStudent(*StudentConfig(base, 3, 1), tensors, Init::kScaled, DType::kF32);
  ASSERT_TRUE(student);
  const auto shared = Values(*student, "model.norm_swiftkv.weight");
  const auto own = Values(tensors, "model.layers.5.input_layernorm.weight");
  const auto from = Values(tensors, "model.layers.5.self_attn.k_proj.weight");
  const auto to = Values(*student, "model.layers.5.self_attn.k_proj_swiftkv.weight");
  EXPECT_GT(std::abs(shared[7]), 1e-3f);
  for (size_t i = 0; i < to.size(); ++i) {
    // The same function of the normalised hidden state, whatever the norms are.
    EXPECT_NEAR(to[i] * shared[i % 32], from[i] * own[i % 32], 1e-6);
  }
}

TEST(InitStudent, LayerNOfTheReferenceIsExact) {
  // With n = L - 1 only one layer is rewired, and it reads the very state that its norm came from.
  const ModelConfig base = TinyConfig();
  const MemoryTensors tensors = TinyTensors(base);
  const ModelConfig config = *StudentConfig(base, 5, 1);
  const auto student = InitStudent(config, tensors, Init::kReference, DType::kF32);
  const auto weights = LoadWeights(config, tensors, &*student, {.dtype = DType::kF32, .teacher = true});
  ASSERT_TRUE(weights) << weights.error().message;
  const auto quality = MeasureQuality(*weights, TinySequences(base, 3, 20, 5));
  ASSERT_TRUE(quality) << quality.error().message;
  EXPECT_NEAR(quality->kl, 0, 1e-6);
  EXPECT_EQ(quality->agreement, 1);
  EXPECT_NEAR(quality->teacher_nll, quality->student_nll, 1e-5);
  EXPECT_EQ(quality->tokens, 60);
}

class Output : public testing::Test {
 protected:
  Output() {
    std::string pattern = testing::TempDir() + "swiftkv_output_XXXXXX";
    root_ = mkdtemp(pattern.data());
    files_.config = TinyConfig();
    files_.origin = "tiny";
    files_.base = std::make_unique<MemoryTensors>(TinyTensors(files_.config));
    files_.config.bos_token_id = 1;
    files_.config.eos_token_id = {2, 95};
    student_ = *StudentConfig(files_.config, 2, 2);
  }
  ~Output() override { std::filesystem::remove_all(root_); }

  Status Write(const OutputOptions& options) {
    SWIFTKV_ASSIGN_OR_RETURN(const MemoryTensors tensors,
                             InitStudent(student_, *files_.base, Init::kReference, DType::kF32));
    return WriteCheckpoint(files_, student_, tensors, "# card\n", {{"tokenizer.json", "{}"}}, options);
  }
  std::vector<std::string> Entries() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(root_)) names.push_back(entry.path().filename());
    return names;
  }

  std::string root_;
  ModelFiles files_;
  ModelConfig student_;
};

TEST_F(Output, WholeCheckpointReadsBack) {
  ASSERT_TRUE(Write({.folder = root_ + "/new/student/"}));
  const std::string folder = root_ + "/new/student";
  const auto json = ReadJsonFile(folder + "/config.json");
  ASSERT_TRUE(json);
  EXPECT_EQ((*json)["architectures"][0], "LlamaSwiftKVForCausalLM");
  EXPECT_EQ((*json)["model_type"], "llama_swiftkv");
  const auto config = ParseHfConfig(*json, folder);
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->num_key_value_layers, 2);
  EXPECT_EQ(config->key_value_group_size, 2);
  const auto source = OpenSafetensors(folder);
  ASSERT_TRUE(source) << source.error().message;
  EXPECT_EQ((*source)->names().size(), BaseTensors(student_).size() + SwiftKvTensors(student_).size());
  for (const std::string& name : files_.base->names()) EXPECT_EQ(Values(**source, name), Values(*files_.base, name));
  EXPECT_TRUE(std::filesystem::exists(folder + "/README.md"));
  EXPECT_TRUE(std::filesystem::exists(folder + "/tokenizer.json"));
  const auto generation = ReadJsonFile(folder + "/generation_config.json");
  ASSERT_TRUE(generation) << generation.error().message;
  EXPECT_EQ((*generation)["bos_token_id"], 1);
  EXPECT_EQ((*generation)["eos_token_id"], nlohmann::ordered_json({2, 95}));
}

TEST_F(Output, AdapterHoldsSwiftKvTensorsAlone) {
  ASSERT_TRUE(Write({.folder = root_ + "/adapter", .adapter = true}));
  const auto source = OpenSafetensors(root_ + "/adapter");
  ASSERT_TRUE(source);
  EXPECT_EQ((*source)->names().size(), SwiftKvTensors(student_).size());
  ModelConfig config = files_.config;
  const auto json = ReadJsonFile(root_ + "/adapter/config.json");
  ASSERT_TRUE(json);
  ASSERT_TRUE(MergeAdapterConfig(*json, "adapter", &config));
  EXPECT_EQ(config.num_key_value_layers, 2);
  EXPECT_TRUE(LoadWeights(config, *files_.base, source->get(), {.dtype = DType::kF32, .teacher = true}));
}

TEST_F(Output, QuantizedProjectionsReadBack) {
  EXPECT_FALSE(Write({.folder = root_ + "/out", .quantization = CompressedFormat::kInt4})) << "48 input features";
  files_.config.intermediate_size = student_.intermediate_size = 64;
  files_.base = std::make_unique<MemoryTensors>(TinyTensors(files_.config));
  for (const auto& [quantization, format, packed] : {std::tuple{CompressedFormat::kInt8, "int-quantized", DType::kQ8_K},
                                                     {CompressedFormat::kInt4, "pack-quantized", DType::kQ4_K}}) {
    const std::string folder = root_ + "/" + format;
    ASSERT_TRUE(Write({.folder = folder, .quantization = quantization}));
    const auto json = ReadJsonFile(folder + "/config.json");
    ASSERT_TRUE(json);
    EXPECT_EQ((*json)["quantization_config"]["format"], format);
    const auto config = ParseHfConfig(*json, folder);
    ASSERT_TRUE(config) << config.error().message;
    const auto source = OpenSafetensors(folder);
    ASSERT_TRUE(source) << source.error().message;
    for (const BaseTensor& tensor : BaseTensors(student_)) {
      const StoredTensor* stored = (*source)->Find(tensor.name);
      ASSERT_NE(stored, nullptr) << tensor.name;
      EXPECT_EQ(stored->scale != nullptr, tensor.name.ends_with("_proj.weight")) << tensor.name;
    }
    // With student and teacher in the folder's own bits: the same logits as in BF16.
    const std::vector<TokenSequence> tokens = TinySequences(files_.config, 2, 9, 7);
    const auto logits = [&](Quantization in_memory, Mode mode) {
      const auto weights = LoadWeights(*config, **source, nullptr, {.quantization = in_memory, .teacher = true});
      EXPECT_TRUE(weights) << weights.error().message;
      if (in_memory == Quantization::kStored) {
        EXPECT_EQ(weights->layers[0].down_proj.dtype, packed);
        EXPECT_EQ(weights->later.kv_proj.dtype, packed);
      }
      SequenceRunner runner(*weights, mode);
      EXPECT_TRUE(runner.Run(tokens));
      std::vector<float> out(static_cast<size_t>(18 * config->vocab_size));
      runner.Logits(0, 18, out.data());
      return out;
    };
    for (const Mode mode : {Mode::kTeacher, Mode::kStudent}) {
      EXPECT_EQ(logits(Quantization::kStored, mode), logits(Quantization::kNone, mode)) << format;
    }
    for (const Quantization in_memory : {Quantization::kInt8, Quantization::kInt4, Quantization::kQ8_0}) {
      EXPECT_FALSE(logits(in_memory, Mode::kStudent).empty());
    }
  }
}

TEST_F(Output, NeverReplacesUnasked) {
  ASSERT_TRUE(Write({.folder = root_ + "/out"}));
  EXPECT_FALSE(Write({.folder = root_ + "/out"}));
  std::ofstream(root_ + "/out/extra") << "x";
  ASSERT_TRUE(Write({.folder = root_ + "/out", .adapter = true, .overwrite = true}));
  EXPECT_FALSE(std::filesystem::exists(root_ + "/out/extra"));
  std::filesystem::create_directory(root_ + "/photos");
  std::ofstream(root_ + "/photos/cat.jpg") << "x";
  EXPECT_FALSE(Write({.folder = root_ + "/photos", .overwrite = true}));
  std::ofstream(root_ + "/file") << "x";
  EXPECT_FALSE(Write({.folder = root_ + "/file", .overwrite = true}));
  EXPECT_THAT(Entries(), testing::UnorderedElementsAre("out", "photos", "file"));
}

TEST_F(Output, NeverReplacesItsInputs) {
  ASSERT_TRUE(Write({.folder = root_ + "/models/gguf"}));
  ASSERT_TRUE(Write({.folder = root_ + "/adapter", .adapter = true}));
  const auto error = [&](const std::string& folder) {
    const Status status = CheckOutput(files_, {.folder = folder, .overwrite = true});
    return status ? "no error" : status.error().message;
  };
  files_.origin = root_ + "/models/gguf/model.gguf";
  EXPECT_EQ(error(root_ + "/models/gguf"), "no error") << "there is no such file";
  std::ofstream(files_.origin) << "x";
  std::ofstream(root_ + "/models/config.json") << "{}";
  EXPECT_THAT(error(root_ + "/models/gguf"), testing::HasSubstr("is the input model or holds it"));
  EXPECT_THAT(error(root_ + "/models/"), testing::HasSubstr("model.gguf"));
  EXPECT_THAT(error(root_ + "/models/x/../gguf"), testing::HasSubstr("model.gguf"));
  // Neither a link nor what it leads to.
  std::filesystem::create_symlink(files_.origin, root_ + "/adapter/link.gguf");
  files_.origin = root_ + "/adapter/link.gguf";
  EXPECT_THAT(error(root_ + "/adapter"), testing::HasSubstr("link.gguf"));
  EXPECT_THAT(error(root_ + "/models/gguf"), testing::HasSubstr("link.gguf"));
  files_.origin = "tiny";
  EXPECT_EQ(error(root_ + "/adapter"), "no error");
  files_.adapter = *OpenSafetensors(root_ + "/adapter/");
  EXPECT_THAT(error(root_ + "/adapter"), testing::HasSubstr("is the input model or holds it"));
  EXPECT_EQ(error(root_ + "/adapter2"), "no error");
}

TEST_F(Output, WhatCannotBeRenamedToIsRefusedBeforeTheWork) {
  const auto error = [&](const std::string& folder) {
    const Status status = CheckOutput(files_, {.folder = folder});
    return status ? "no error" : status.error().message;
  };
  EXPECT_THAT(error("/proc"), testing::HasSubstr("is a mount point"));
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::create_directories(root_ + "/here/new");
  std::filesystem::current_path(root_ + "/here");
  for (const char* folder : {".", "./", "../here", ".."}) {
    EXPECT_THAT(error(folder), testing::HasSubstr("is or holds the current folder")) << folder;
  }
  EXPECT_EQ(error("new"), "no error");
  EXPECT_TRUE(Write({.folder = "./new"}));
  std::filesystem::current_path(before);
  EXPECT_TRUE(std::filesystem::exists(root_ + "/here/new/config.json"));
}

TEST_F(Output, ErrorLeavesNothing) {
  files_.config.vocab_size = 97;  // the base has 96 rows
  student_.vocab_size = 97;
  EXPECT_FALSE(Write({.folder = root_ + "/out"}));
  EXPECT_TRUE(Entries().empty());
}

TEST(SwiftKvConfig, Families) {
  nlohmann::ordered_json json;
  ASSERT_TRUE(SetSwiftKvFields(*StudentConfig(TinyConfig(Family::kQwen3), 3, 1), DType::kBF16, &json));
  EXPECT_EQ(json["model_type"], "qwen3_swiftkv");
  ModelConfig mistral = *StudentConfig(TinyConfig(Family::kMistral), 3, 1);
  ASSERT_TRUE(SetSwiftKvFields(mistral, DType::kBF16, &json));
  EXPECT_EQ(json["model_type"], "llama_swiftkv");
  mistral.sliding_window[1] = 16;
  EXPECT_FALSE(SetSwiftKvFields(mistral, DType::kBF16, &json));
}

}  // namespace
}  // namespace swiftkv
