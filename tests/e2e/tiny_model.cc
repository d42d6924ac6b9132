#include "e2e/tiny_model.h"

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/float16.h"

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kVocab = 96;  // the printable ASCII characters, and the end token
constexpr int64_t kHidden = 32;
constexpr int64_t kKv = 16;
constexpr int64_t kMlp = 48;
constexpr int64_t kLayers = 4;
constexpr int64_t kKeyValueLayers = 2;
constexpr int64_t kGroup = 2;

void Write(const std::string& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

Json Config(bool swiftkv, bool float16) {
  Json json = {{"architectures", {swiftkv ? "LlamaSwiftKVForCausalLM" : "LlamaForCausalLM"}},
               {"model_type", swiftkv ? "llama_swiftkv" : "llama"},
               {"vocab_size", kVocab},
               {"hidden_size", kHidden},
               {"intermediate_size", kMlp},
               {"num_hidden_layers", kLayers},
               {"num_attention_heads", 4},
               {"num_key_value_heads", 2},
               {"head_dim", 8},
               {"max_position_embeddings", 512},
               {"rms_norm_eps", 1e-5},
               {"rope_theta", 10000.0},
               {"hidden_act", "silu"},
               {"tie_word_embeddings", true},
               {"bos_token_id", nullptr},
               {"eos_token_id", kVocab - 1},
               {"torch_dtype", float16 ? "float16" : "float32"}};
  if (swiftkv) {
    json["swiftkv"] = true;
    json["num_key_value_layers"] = kKeyValueLayers;
    json["key_value_group_size"] = kGroup;
  }
  return json;
}

Json TokenizerJson() {
  Json vocab;
  for (int64_t id = 0; id < kVocab - 1; ++id) {
    // U+0120 is byte-level BPE's spelling of a space.
    vocab[id == 0 ? std::string("\u0120") : std::string(1, static_cast<char>(' ' + id))] = id;
  }
  const Json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  const Json end = {{"id", kVocab - 1}, {"content", "<|end|>"}, {"single_word", false}, {"lstrip", false},
                    {"rstrip", false},  {"normalized", false},  {"special", true}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", Json::array({end})},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"post_processor", nullptr},
          {"decoder", byte_level},
          {"model", {{"type", "BPE"}, {"unk_token", nullptr}, {"vocab", vocab}, {"merges", Json::array()}}}};
}

// Collects tensors of pseudo-random values, then writes them as one safetensors file.
class TensorFile {
 public:
  explicit TensorFile(bool float16) : float16_(float16) {}
  void Add(const std::string& name, const std::vector<int64_t>& shape, float center, float spread) {
    int64_t elements = 1;
    for (const int64_t size : shape) elements *= size;
    const size_t begin = data_.size();
    for (int64_t i = 0; i < elements; ++i) {
      state_ = state_ * 6364136223846793005u + 1442695040888963407u;
      const float unit = static_cast<float>(state_ >> 40) / static_cast<float>(1 << 24);
      const float value = center + spread * (2 * unit - 1);
      const uint16_t half = FloatToHalf(value);
      data_.append(float16_ ? reinterpret_cast<const char*>(&half) : reinterpret_cast<const char*>(&value),
                   float16_ ? sizeof half : sizeof value);
    }
    header_[name] = {{"dtype", float16_ ? "F16" : "F32"}, {"shape", shape}, {"data_offsets", {begin, data_.size()}}};
  }
  void Save(const std::string& path) const {
    const std::string header = header_.dump();
    const uint64_t size = header.size();
    Write(path, std::string(reinterpret_cast<const char*>(&size), sizeof size) + header + data_);
  }

 private:
  bool float16_;
  uint64_t state_ = 1;
  Json header_;
  std::string data_;
};

void AddBase(TensorFile* file) {
  file->Add("model.embed_tokens.weight", {kVocab, kHidden}, 0, 1);
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    file->Add(prefix + "input_layernorm.weight", {kHidden}, 1, 0.1f);
    file->Add(prefix + "post_attention_layernorm.weight", {kHidden}, 1, 0.1f);
    file->Add(prefix + "self_attn.q_proj.weight", {kHidden, kHidden}, 0, 0.3f);
    file->Add(prefix + "self_attn.k_proj.weight", {kKv, kHidden}, 0, 0.3f);
    file->Add(prefix + "self_attn.v_proj.weight", {kKv, kHidden}, 0, 0.3f);
    file->Add(prefix + "self_attn.o_proj.weight", {kHidden, kHidden}, 0, 0.3f);
    file->Add(prefix + "mlp.gate_proj.weight", {kMlp, kHidden}, 0, 0.3f);
    file->Add(prefix + "mlp.up_proj.weight", {kMlp, kHidden}, 0, 0.3f);
    file->Add(prefix + "mlp.down_proj.weight", {kHidden, kMlp}, 0, 0.3f);
  }
  file->Add("model.norm.weight", {kHidden}, 1, 0.1f);
}

void AddSwiftKv(TensorFile* file) {
  file->Add("model.norm_swiftkv.weight", {kHidden}, 1, 0.1f);
  for (int64_t layer = kKeyValueLayers; layer < kLayers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".self_attn.";
    file->Add(prefix + "q_proj_swiftkv.weight", {kHidden, kHidden}, 0, 0.3f);
    if ((layer - kKeyValueLayers) % kGroup != 0) continue;
    file->Add(prefix + "k_proj_swiftkv.weight", {kKv, kHidden}, 0, 0.3f);
    file->Add(prefix + "v_proj_swiftkv.weight", {kKv, kHidden}, 0, 0.3f);
  }
}

}  // namespace

std::string WriteTinyModel(const std::string& folder, const TinyModelOptions& options) {
  std::filesystem::create_directories(folder);
  Write(folder + "/config.json", Config(options.swiftkv || options.adapter_only, options.float16).dump(2));
  TensorFile file(options.float16);
  if (!options.adapter_only) {
    AddBase(&file);
    Write(folder + "/tokenizer.json", TokenizerJson().dump());
    Json config = {{"eos_token", "<|end|>"}};
    if (options.chat_template) {
      config["chat_template"] =
          "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }} {% endfor %}"
          "{% if add_generation_prompt %}[assistant] {% endif %}";
    }
    Write(folder + "/tokenizer_config.json", config.dump(2));
  }
  if (options.swiftkv || options.adapter_only) AddSwiftKv(&file);
  file.Save(folder + "/model.safetensors");
  return folder;
}

}  // namespace swiftkv
