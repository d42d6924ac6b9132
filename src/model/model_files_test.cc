#include "model/model_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace swiftkv {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr char kConfig[] = R"({"model_type": "llama", "vocab_size": 6, "hidden_size": 32, "intermediate_size": 64,
  "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
  "tie_word_embeddings": true, "eos_token_id": 5})";

std::string Golden(const std::string& name) { return SWIFTKV_SOURCE_DIR "/tests/golden/checkpoint/" + name; }

class ModelFilesTest : public testing::Test {
 protected:
  ModelFilesTest() {
    std::string pattern = testing::TempDir() + "swiftkv_XXXXXX";
    root_ = mkdtemp(pattern.data());
    for (const char* name : {"SWIFTKV_HOME", "HF_HOME"}) setenv(name, (root_ + "/" + name).c_str(), 1);
    unsetenv("HF_HUB_CACHE");
  }
  ~ModelFilesTest() override { fs::remove_all(root_); }

  std::string Write(const std::string& name, const std::string& content) const {
    const fs::path path = fs::path(root_) / name;
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }
  // A folder with the golden model.
  std::string Folder(const std::string& name) const {
    Write(name + "/config.json", kConfig);
    fs::copy(Golden("tiny.safetensors"), root_ + "/" + name + "/model.safetensors");
    return root_ + "/" + name;
  }
  static std::string Message(const std::string& model, const std::string& adapter = "") {
    const auto files = OpenModelFiles(model, adapter);
    return files ? "no error" : files.error().message;
  }

  std::string root_;
};

std::string Safetensors(const std::string& header, const std::string& data) {
  const uint64_t size = header.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof(size)) + header + data;
}

TEST_F(ModelFilesTest, OpensAFolder) {
  const std::string folder = Folder("model");
  Write("model/generation_config.json", R"({"eos_token_id": [5, 3]})");
  const auto files = OpenModelFiles(folder, "");
  ASSERT_TRUE(files) << files.error().message;
  EXPECT_EQ(files->folder, folder);
  EXPECT_EQ(files->origin, folder);
  EXPECT_EQ(files->gguf, nullptr);
  EXPECT_EQ(files->config.eos_token_id, (std::vector<int32_t>{5, 3}));
  EXPECT_NE(files->base->Find("model.norm.weight"), nullptr);
  EXPECT_EQ(files->adapter, nullptr);
  Write("model/generation_config.json", "{");
  EXPECT_THAT(Message(folder), HasSubstr("generation_config.json: not valid JSON"));
  fs::remove(folder + "/config.json");
  EXPECT_THAT(Message(folder), HasSubstr("there is no file config.json"));
}

TEST_F(ModelFilesTest, FindsAnAdapterByName) {
  Write("SWIFTKV_HOME/models/mine/config.json", "{}");
  Write("SWIFTKV_HOME/models/empty/README.md", "");
  EXPECT_EQ(ResolveAdapterPath("mine"), root_ + "/SWIFTKV_HOME/models/mine");
  EXPECT_EQ(ResolveAdapterPath(""), "");
  EXPECT_EQ(ResolveAdapterPath("some/path"), "some/path");
  EXPECT_EQ(ResolveAdapterPath("."), ".");
  for (const char* name : {"empty", "yours", ".."}) {
    EXPECT_EQ(ResolveAdapterPath(name).has_value(), fs::exists(name)) << name;
  }
  const auto missing = ResolveAdapterPath("yours");
  EXPECT_THAT(missing.error().message, HasSubstr("there is no folder yours, and no adapter of that name in " + root_));
  EXPECT_THAT(AdaptersByName(), testing::Contains("mine"));
  EXPECT_THAT(AdaptersByName(), testing::Not(testing::Contains("empty")));
}

TEST_F(ModelFilesTest, OpensAGgufFileAndTheDefaultModel) {
  const auto files = OpenModelFiles(Golden("tiny.gguf"), "");
  ASSERT_TRUE(files) << files.error().message;
  EXPECT_EQ(files->gguf, files->base.get());
  EXPECT_TRUE(files->folder.empty());
  EXPECT_THAT(Message("smollm2-135m"), HasSubstr("run scripts/setup"));
  Write("SWIFTKV_HOME/models/smollm2-135m-instruct-q4_1.gguf", "");
  fs::copy(Golden("tiny.gguf"), root_ + "/SWIFTKV_HOME/models/smollm2-135m-instruct-q4_1.gguf",
           fs::copy_options::overwrite_existing);
  EXPECT_EQ(Message("smollm2-135m"), "no error");
}

TEST_F(ModelFilesTest, OpensASnapshotOfTheHubCache) {
  const std::string model = "HF_HOME/hub/models--org--name";
  Write(model + "/refs/main", "abc123");
  Write(model + "/blobs/c", kConfig);
  fs::copy(Golden("tiny.safetensors"), root_ + "/" + model + "/blobs/m");
  const std::string snapshot = root_ + "/" + model + "/snapshots/abc123";
  fs::create_directories(snapshot);
  fs::create_symlink("../../blobs/c", snapshot + "/config.json");
  fs::create_symlink("../../blobs/m", snapshot + "/model.safetensors");
  const auto files = OpenModelFiles("org/name", "");
  ASSERT_TRUE(files) << files.error().message;
  EXPECT_EQ(files->folder, fs::canonical(snapshot).string());

  EXPECT_THAT(Message("org/other"), HasSubstr("local hub cache"));
  Write(model + "/refs/main", "../../../../etc");
  EXPECT_THAT(Message("org/name"), HasSubstr("refs/main holds no revision"));
  Write(model + "/refs/main", "missing");
  EXPECT_THAT(Message("org/name"), HasSubstr("no snapshot missing"));
  fs::create_directory_symlink(root_, root_ + "/" + model + "/snapshots/away");
  Write(model + "/refs/main", "away");
  EXPECT_THAT(Message("org/name"), HasSubstr("leads elsewhere"));
}

TEST_F(ModelFilesTest, RefusesWhatIsNoModel) {
  for (const char* name : {"no-such-model", "a/b/c", "../no-such-x", "org/..", "/none", "org/", "a\nb/c"}) {
    EXPECT_THAT(Message(name), HasSubstr("no such folder")) << name;
  }
  EXPECT_THAT(Message(""), HasSubstr("empty"));
  EXPECT_THAT(Message(std::string("a\0b", 3)), HasSubstr("zero byte"));
  EXPECT_THAT(Message(Write("text.gguf", "hello")), HasSubstr("not a GGUF file"));
  EXPECT_THAT(Message("/dev/null"), HasSubstr("not a regular file"));
  ASSERT_EQ(mkfifo((root_ + "/fifo.gguf").c_str(), 0600), 0);
  EXPECT_THAT(Message(root_ + "/fifo.gguf"), HasSubstr("not a regular file"));
}

TEST_F(ModelFilesTest, EightBitsOfAQuantisedCheckpointNeedTheirScales) {
  const std::string folder = Folder("model");
  Write("model/model.safetensors",
        Safetensors(R"({"w.weight":{"dtype":"F8_E4M3","shape":[2,2],"data_offsets":[0,4]}})", "1234"));
  EXPECT_EQ(Message(folder), "no error");
  const std::string config(kConfig);
  Write("model/config.json",
        config.substr(0, config.size() - 1) + R"(, "quantization_config": {"quant_method": "fbgemm_fp8"}})");
  EXPECT_THAT(Message(folder), HasSubstr("model: there is no w.weight_scale"));
}

TEST_F(ModelFilesTest, AppliesAnAdapter) {
  std::string config(kConfig);
  config.replace(config.find("\"llama\""), 7, "\"llama_swiftkv\"");
  config.insert(config.size() - 1, R"(, "num_key_value_layers": 1, "key_value_group_size": 1)");
  Write("adapter/config.json", config);
  const std::string norm = R"({"model.norm_swiftkv.weight":{"dtype":"F32","shape":[32],"data_offsets":[0,128]}})";
  Write("adapter/model.safetensors", Safetensors(norm, std::string(128, '\0')));
  const std::string adapter = root_ + "/adapter";

  const auto files = OpenModelFiles(Golden("tiny.gguf"), adapter);
  ASSERT_TRUE(files) << files.error().message;
  ASSERT_NE(files->adapter, nullptr);
  EXPECT_NE(files->adapter->Find("model.norm_swiftkv.weight"), nullptr);

  EXPECT_THAT(Message(adapter), HasSubstr("is an adapter"));
  EXPECT_THAT(Message(Golden("tiny.gguf"), root_ + "/none"), HasSubstr("no such folder"));
  EXPECT_THAT(Message(Golden("tiny.gguf"), Folder("plain")), HasSubstr("no SwiftKV model"));
  fs::copy(Golden("tiny.safetensors"), adapter + "/model.safetensors", fs::copy_options::overwrite_existing);
  EXPECT_THAT(Message(Golden("tiny.gguf"), adapter), HasSubstr("no tensor model.norm_swiftkv.weight"));
}

}  // namespace
}  // namespace swiftkv
