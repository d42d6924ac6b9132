#include "model/checkpoint_output.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/fault_injector.h"
#include "checkpoint/encode_values.h"
#include "checkpoint/json_file.h"
#include "checkpoint/tensor_table.h"
#include "checkpoint/test_blocks.h"
#include "checkpoint/test_files.h"
#include "model/tiny_model.h"

namespace swiftkv {
namespace {

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
                             InitStudent(student_, *files_.base, Init::kReference, files_.config.dtype));
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
  const std::byte* before = nullptr;
  for (const BaseTensor& tensor : CheckpointTensors(student_)) {
    const StoredTensor* stored = (*source)->Find(tensor.name);
    ASSERT_NE(stored, nullptr) << tensor.name;
    EXPECT_GT(stored->data.data(), before) << tensor.name;
    before = stored->data.data();
  }
  EXPECT_TRUE(std::filesystem::exists(folder + "/README.md"));
  EXPECT_TRUE(std::filesystem::exists(folder + "/tokenizer.json"));
  const auto generation = ReadJsonFile(folder + "/generation_config.json");
  ASSERT_TRUE(generation) << generation.error().message;
  EXPECT_EQ((*generation)["bos_token_id"], 1);
  EXPECT_EQ((*generation)["eos_token_id"], nlohmann::ordered_json({2, 95}));
}

// The tiny model as a file may have it; `permuted`: q and k in llama.cpp's order.
class StoredModel : public TensorSource {
 public:
  StoredModel(const ModelConfig& config, DType vectors, DType matrices, bool permuted) {
    const MemoryTensors plain = TinyTensors(config);
    std::vector<StoredTensor> tensors;
    for (const std::string& name : plain.names()) {
      StoredTensor tensor = *plain.Find(name);
      tensor.dtype = tensor.shape.size() == 2 ? matrices : vectors;
      const std::vector<float> values = Values(plain, name);
      bytes_.push_back(IsPlainFloat(tensor.dtype)
                           ? EncodeValues(values, tensor.dtype)
                           : RandomBlocks(tensor.dtype, std::ssize(values), static_cast<uint32_t>(bytes_.size())));
      tensor.data = bytes_.back();
      if (permuted && name.ends_with("q_proj.weight")) tensor.permuted_heads = config.num_attention_heads;
      if (permuted && name.ends_with("k_proj.weight")) tensor.permuted_heads = config.num_key_value_heads;
      tensors.push_back(std::move(tensor));
    }
    table_ = *TensorTable::Create(std::move(tensors), "tiny");
  }
  const std::vector<std::string>& names() const override { return table_->names(); }
  const StoredTensor* Find(std::string_view name) const override { return table_->Find(name); }

 private:
  std::vector<std::vector<std::byte>> bytes_;
  std::unique_ptr<TensorTable> table_;
};

std::vector<float> Logits(const ModelConfig& config, const TensorSource& source, Mode mode, const LoadOptions& load) {
  const auto weights = LoadWeights(config, source, nullptr, load);
  EXPECT_TRUE(weights) << weights.error().message;
  SequenceRunner runner(*weights, mode);
  EXPECT_TRUE(runner.Run(TinySequences(config, 2, 9, 7)));
  std::vector<float> logits(static_cast<size_t>(18 * config.vocab_size));
  EXPECT_TRUE(runner.Logits(0, 18, logits.data()));
  return logits;
}

TEST_F(Output, TheTeacherIsTheBaseToTheLastBit) {
  files_.config.intermediate_size = student_.intermediate_size = 64;
  struct Base {
    const char* name;
    DType dtype;  // of its config
    DType vectors, matrices;
    bool permuted;
    DType written;  // its matrices
  };
  for (const Base& base :
       {Base{"float16", DType::kF16, DType::kF16, DType::kF16, false, DType::kF16},
        Base{"bfloat16 with norms in float32", DType::kBF16, DType::kF32, DType::kBF16, false, DType::kBF16},
        Base{"GGUF in F16", DType::kF16, DType::kF32, DType::kF16, true, DType::kF16},
        Base{"GGUF in F16 with blocks", DType::kF16, DType::kF32, DType::kQ8_0, true, DType::kBF16},
        Base{"GGUF in Q8_0", DType::kBF16, DType::kF32, DType::kQ8_0, true, DType::kBF16}}) {
    SCOPED_TRACE(base.name);
    files_.config.dtype = student_.dtype = base.dtype;
    files_.base = std::make_unique<StoredModel>(files_.config, base.vectors, base.matrices, base.permuted);
    const std::string folder = root_ + "/" + base.name;
    ASSERT_TRUE(Write({.folder = folder}));
    const auto written = OpenModelFiles(folder, "");
    ASSERT_TRUE(written) << written.error().message;
    EXPECT_EQ(written->config.dtype, base.dtype);
    for (const BaseTensor& tensor : BaseTensors(student_)) {
      EXPECT_EQ(written->base->Find(tensor.name)->dtype, tensor.shape.size() == 2 ? base.written : base.vectors);
    }
    EXPECT_EQ(written->base->Find("model.norm_swiftkv.weight")->dtype, base.dtype);
    for (const DType dtype : {DType::kBF16, DType::kF32}) {
      if (dtype == DType::kF32 && base.written != base.matrices) continue;  // blocks became BF16
      const LoadOptions load{.dtype = dtype, .teacher = true};
      EXPECT_EQ(Logits(written->config, *written->base, Mode::kTeacher, load),
                Logits(files_.config, *files_.base, Mode::kTeacher, load));
    }
  }
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
                                                     {CompressedFormat::kInt4, "pack-quantized", DType::kQ4_K},
                                                     {CompressedFormat::kFp8, "float-quantized", DType::kBF16}}) {
    const std::string folder = root_ + "/" + format;
    ASSERT_TRUE(Write({.folder = folder, .quantization = quantization}));
    const auto json = ReadJsonFile(folder + "/config.json");
    ASSERT_TRUE(json);
    EXPECT_EQ((*json)["quantization_config"]["format"], format);
    const auto written = OpenModelFiles(folder, "");
    ASSERT_TRUE(written) << written.error().message;
    for (const BaseTensor& tensor : CheckpointTensors(student_)) {
      const StoredTensor* stored = written->base->Find(tensor.name);
      ASSERT_NE(stored, nullptr) << tensor.name;
      EXPECT_EQ(stored->scale != nullptr, tensor.name.find("_proj") != std::string::npos) << tensor.name;
    }
    // With student and teacher in the folder's own bits: the same logits as in BF16.
    const auto logits = [&](Quantization in_memory, Mode mode) {
      return Logits(written->config, *written->base, mode, {.quantization = in_memory, .teacher = true});
    };
    const auto weights = LoadWeights(written->config, *written->base, nullptr, {.quantization = Quantization::kStored});
    ASSERT_TRUE(weights) << weights.error().message;
    EXPECT_EQ(weights->layers[0].down_proj.dtype, packed);
    EXPECT_EQ(weights->later.kv_proj.dtype, packed);
    for (const Mode mode : {Mode::kTeacher, Mode::kStudent}) {
      EXPECT_EQ(logits(Quantization::kStored, mode), logits(Quantization::kNone, mode)) << format;
    }
    for (const Quantization in_memory : {Quantization::kInt8, Quantization::kInt4, Quantization::kQ8_0}) {
      EXPECT_FALSE(logits(in_memory, Mode::kStudent).empty());
    }
  }
}

TEST_F(Output, Fp8ProjectionsAreNearTheBases) {
  // 48 input features: no groups are needed. Scales of a base in float16 are float32.
  files_.config.dtype = student_.dtype = DType::kF16;
  ASSERT_TRUE(Write({.folder = root_ + "/out", .quantization = CompressedFormat::kFp8}));
  const auto written = OpenModelFiles(root_ + "/out", "");
  ASSERT_TRUE(written) << written.error().message;
  for (const BaseTensor& tensor : CheckpointTensors(student_)) {
    if (tensor.name.find("_proj") == std::string::npos) continue;
    const StoredTensor& stored = *written->base->Find(tensor.name);
    EXPECT_EQ(stored.dtype, DType::kF8E4M3);
    EXPECT_EQ(stored.scale->dtype, DType::kF32);
    EXPECT_EQ(stored.scale->shape, (std::vector<int64_t>{tensor.shape[0], 1}));
    if (files_.base->Find(tensor.name) == nullptr) continue;
    const std::vector<float> expected = Values(*files_.base, tensor.name);
    const std::vector<float> actual = Values(*written->base, tensor.name);
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_NEAR(actual[i], expected[i], std::max(std::abs(expected[i]) / 16, 1e-5f)) << tensor.name;
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

TEST_F(Output, WhicheverCallFailsTheFolderIsWholeOrAsBefore) {
  namespace fs = std::filesystem;
  const auto tensors = InitStudent(student_, *files_.base, Init::kReference, DType::kF32);
  ASSERT_TRUE(tensors);
  for (const bool replaces : {false, true}) {
    for (const Faults::Then then : {Faults::kGoOn, Faults::kKilled, Faults::kPowerLost}) {
      for (int64_t call = 0;; ++call) {
        SCOPED_TRACE(fmt::format("replaces {}, call {} fails, then {}", replaces, call, static_cast<int>(then)));
        const TemporaryFolder parent(MemoryTempDir());
        const fs::path folder = parent.path() + (replaces ? "/out" : "/new/out");
        if (replaces) parent.Write("out/config.json", "{}");
        if (replaces) parent.Write("out/original/weights", "old");
        FaultInjector faults({.failing_call = call, .error = call % 2 == 0 ? ENOSPC : EIO, .then = then});
        const auto write = [&] {
          return WriteCheckpoint(files_, student_, *tensors, "# card\n", {}, {.folder = folder, .overwrite = true});
        };
        const bool succeeded = write().has_value();
        file_calls::Unlink((parent.path() + "/nothing").c_str());  // so that the last death comes when all is done
        file_calls::SetObserver(nullptr);
        if (fs::exists(folder / "README.md")) {
          EXPECT_TRUE(OpenModelFiles(folder, ""));
          EXPECT_FALSE(fs::exists(folder / "original"));
          EXPECT_TRUE(succeeded || then != Faults::kGoOn);
        } else {
          EXPECT_FALSE(succeeded);
          EXPECT_EQ(fs::exists(folder), replaces);
          EXPECT_EQ(fs::exists(folder / "original/weights"), replaces);
        }
        if (then == Faults::kGoOn && !succeeded && fs::exists(folder.parent_path())) {
          for (const auto& entry : fs::directory_iterator(folder.parent_path())) EXPECT_EQ(entry.path(), folder);
        }
        EXPECT_TRUE(write());
        if (testing::Test::HasFailure() || !faults.failed()) break;
      }
    }
  }
}

TEST_F(Output, ErrorLeavesNothing) {
  files_.config.vocab_size = 97;  // the base has 96 rows
  student_.vocab_size = 97;
  EXPECT_FALSE(Write({.folder = root_ + "/out"}));
  EXPECT_TRUE(Entries().empty());
}

}  // namespace
}  // namespace swiftkv
