// swiftkv inspect: what a checkpoint is, from its metadata alone.
#include <fmt/format.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "cli/commands.h"
#include "cli/generation.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "engine/load.h"
#include "engine/model_costs.h"

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;

std::string_view Name(RopeType type) {
  switch (type) {
    case RopeType::kDefault:
      return "default";
    case RopeType::kLinear:
      return "linear";
    case RopeType::kLlama3:
      return "llama3";
    case RopeType::kYarn:
      return "yarn";
  }
  return "";
}

// Stored elements by type, "BF16": 134515008, ..., of both sources.
std::map<std::string, int64_t> StoredElements(const ModelFiles& files) {
  std::map<std::string, int64_t> elements;
  for (const TensorSource* source : {files.base.get(), files.adapter.get()}) {
    if (source == nullptr) continue;
    for (const std::string& name : source->names()) {
      const StoredTensor* tensor = source->Find(name);
      elements[std::string(Name(tensor->dtype))] += tensor->rows() * tensor->columns();
    }
  }
  return elements;
}

// Whether the files hold the original q/k/v of the layers that SwiftKV skips, so that --mode base works.
bool HasTeacher(const ModelFiles& files) {
  const int64_t last = files.config.num_hidden_layers - 1;
  return files.base->Find(fmt::format("model.layers.{}.self_attn.k_proj.weight", last)) != nullptr;
}

Json Describe(const ModelFiles& files, bool has_template) {
  const ModelConfig& config = files.config;
  const ModelCosts costs = ComputeModelCosts(config);
  Json json = {{"origin", files.origin},
               {"family", Name(config.family)},
               {"swiftkv", config.is_swiftkv()},
               {"num_hidden_layers", config.num_hidden_layers},
               {"num_key_value_layers", config.num_key_value_layers},
               {"key_value_group_size", config.key_value_group_size},
               {"hidden_size", config.hidden_size},
               {"intermediate_size", config.intermediate_size},
               {"num_attention_heads", config.num_attention_heads},
               {"num_key_value_heads", config.num_key_value_heads},
               {"head_dim", config.head_dim},
               {"vocab_size", config.vocab_size},
               {"tie_word_embeddings", config.tie_word_embeddings},
               {"max_position_embeddings", config.max_position_embeddings}};
  json["rope"] = {{"type", Name(config.rope.rope_type)}, {"theta", config.rope.rope_theta}};
  if (config.rope.rope_type != RopeType::kDefault) json["rope"]["factor"] = config.rope.factor;
  json["parameters"] = {{"base", costs.base_parameters},
                        {"swiftkv", costs.swiftkv_parameters},
                        {"teacher_only", costs.teacher_only_parameters},
                        {"loaded_base", costs.parameters(Mode::kTeacher)},
                        {"loaded_swiftkv", costs.parameters(Mode::kStudent)}};
  json["has_base_mode"] = HasTeacher(files);
  json["stored_elements"] = StoredElements(files);
  // The cache holds BF16 unless --dtype f32 is asked for.
  json["kv_bytes_per_token_bf16"] = {{"base", 2 * costs.base_kv_elements}, {"swiftkv", 2 * costs.swiftkv_kv_elements}};
  json["prefill_macs_per_token"] = {{"base", costs.base_prefill_macs}, {"swiftkv", costs.swiftkv_prefill_macs}};
  json["skipped_prefill_share"] = costs.skipped_prefill_share();
  json["tokenizer"] = files.folder.empty() ? "gguf" : "tokenizer.json";
  json["chat_template"] = has_template;
  return json;
}

std::string Text(const Json& json) {
  const auto number = [&](const char* name) { return json.at(name).get<int64_t>(); };
  const Json& parameters = json.at("parameters");
  const Json& kv = json.at("kv_bytes_per_token_bf16");
  const auto count = [](const Json& value) {
    return fmt::format("{:.2f} M", static_cast<double>(value.get<int64_t>()) / 1e6);
  };
  std::string text;
  const auto line = [&](std::string_view name, const std::string& value) {
    text += fmt::format("{:<18} {}\n", name, value);
  };
  const bool swiftkv = json.at("swiftkv").get<bool>();
  line("model", json.at("origin").get<std::string>());
  line("family", json.at("family").get<std::string>() + (swiftkv ? ", SwiftKV" : ", plain"));
  line("layers", fmt::format("L = {}, n = {}, g = {}", number("num_hidden_layers"), number("num_key_value_layers"),
                             number("key_value_group_size")));
  line("sizes", fmt::format("hidden {}, MLP {}, {} heads, {} KV heads of {}, vocabulary {}{}", number("hidden_size"),
                            number("intermediate_size"), number("num_attention_heads"), number("num_key_value_heads"),
                            number("head_dim"), number("vocab_size"),
                            json.at("tie_word_embeddings").get<bool>() ? ", tied" : ""));
  line("parameters",
       swiftkv ? fmt::format("{} base, {} SwiftKV, {} of the base for mode base only", count(parameters.at("base")),
                             count(parameters.at("swiftkv")), count(parameters.at("teacher_only")))
               : count(parameters.at("base")));
  std::string stored;
  for (const auto& [type, elements] : json.at("stored_elements").items()) {
    stored += fmt::format("{}{} {}", stored.empty() ? "" : ", ", type, count(elements));
  }
  line("stored", stored);
  line("modes", !swiftkv ? "base" : json.at("has_base_mode").get<bool>() ? "base, swiftkv" : "swiftkv");
  line("KV cache", swiftkv ? fmt::format("{} bytes a token in BF16; base {}", kv.at("swiftkv").get<int64_t>(),
                                         kv.at("base").get<int64_t>())
                           : fmt::format("{} bytes a token in BF16", kv.at("base").get<int64_t>()));
  line("prefill skipped",
       fmt::format("{:.1f} % of projections and MLPs", 100 * json.at("skipped_prefill_share").get<double>()));
  line("context",
       fmt::format("{} tokens, rope {} theta {}", number("max_position_embeddings"),
                   json.at("rope").at("type").get<std::string>(), json.at("rope").at("theta").get<double>()));
  line("text", fmt::format("tokenizer from {}, chat template {}", json.at("tokenizer").get<std::string>(),
                           json.at("chat_template").get<bool>() ? "yes" : "no"));
  return text;
}

Status Inspect(const ModelFlags& model, const OutputFlags& output) {
  SWIFTKV_ASSIGN_OR_RETURN(const ModelFiles files, OpenModelFiles(model.model, model.adapter));
  const Result<std::string> chat_template = ReadChatTemplate(files);
  const Json json = Describe(files, chat_template && !chat_template->empty());
  return WriteOutput(output.json ? JsonLine(json) : Text(json));
}

}  // namespace

RunCommand AddInspectCommand(CLI::App* program) {
  struct Flags {
    ModelFlags model;
    OutputFlags output;
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* command = program->add_subcommand("inspect", "Say what a checkpoint is, without loading its weights");
  flags->model.AddModel(command);
  flags->output.Add(command);
  FinishCommand(
      command,
      "Examples:\n  swiftkv inspect smollm2-135m\n  swiftkv inspect smollm2-135m --adapter my-adapter --json\n");
  return [flags] { return Inspect(flags->model, flags->output); };
}

}  // namespace swiftkv
