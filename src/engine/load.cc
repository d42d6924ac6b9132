#include "engine/load.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "base/file.h"
#include "checkpoint/folder.h"
#include "checkpoint/json_file.h"
#include "engine/memory.h"
#include "engine/model_costs.h"
#include "text/conversation.h"

namespace swiftkv {
namespace {

constexpr int64_t kMaxTemplateBytes = 4 << 20;

Result<Mode> ChooseMode(const ModelFiles& files, std::optional<Mode> wanted) {
  if (!wanted) return files.config.is_swiftkv() ? Mode::kStudent : Mode::kTeacher;
  if (*wanted == Mode::kStudent && !files.config.is_swiftkv()) {
    return InvalidInput("{}: a plain model has no mode swiftkv; give --adapter, or convert it first", files.origin);
  }
  return *wanted;
}

// Of the weights that the options ask for, packed; of int8 what they are made from, which is more.
int64_t PackedBytes(const ModelFiles& files, Mode mode, const LoadModelOptions& options) {
  const ModelCosts costs = ComputeModelCosts(files.config);
  const int64_t parameters =
      options.both_modes ? costs.base_parameters + costs.swiftkv_parameters : costs.parameters(mode);
  const auto bytes = [](int64_t elements, DType dtype) { return elements / BlockElements(dtype) * BlockBytes(dtype); };
  if (options.quantization == Quantization::kQ8_0) return bytes(parameters, DType::kQ8_0);
  if (options.quantization == Quantization::kQ4_1 || options.quantization == Quantization::kInt4) {
    return bytes(parameters, DType::kQ4_1);
  }
  if (options.quantization == Quantization::kFp8) return bytes(parameters, DType::kF8E4M3);
  const DType dtype = options.dtype.value_or(DType::kBF16);
  int64_t total = bytes(parameters, dtype);
  if (options.quantization == Quantization::kNone) return total;
  for (const std::string& name : files.base->names()) {
    const StoredTensor& tensor = *files.base->Find(name);
    const int64_t elements = tensor.rows() * tensor.columns();
    if (const auto type = BlockRowsType(tensor)) {
      total -= bytes(elements, dtype) - elements / kernels::kQuantizedBlock * kernels::QuantizedBlockBytes(*type);
    }
  }
  return total;
}

Result<GgufVocabulary> ReadGgufVocabulary(const GgufFile& gguf) {
  const auto strings = [&](std::string_view key) -> Result<std::vector<std::string>> {
    if (!gguf.Contains(key)) return std::vector<std::string>();
    SWIFTKV_ASSIGN_OR_RETURN(const std::vector<std::string_view> views, gguf.Strings(key));
    return std::vector<std::string>(views.begin(), views.end());
  };
  const auto token_id = [&](std::string_view key) -> std::optional<int32_t> {
    const Result<int64_t> id = gguf.Int(key);
    if (!id || *id < 0 || *id > INT32_MAX) return std::nullopt;
    return static_cast<int32_t>(*id);
  };
  const auto flag = [&](std::string_view key) -> std::optional<bool> {
    const Result<bool> value = gguf.Bool(key);
    return value ? std::optional<bool>(*value) : std::nullopt;
  };

  GgufVocabulary vocabulary;
  SWIFTKV_ASSIGN_OR_RETURN(vocabulary.model, gguf.String("tokenizer.ggml.model"));
  if (const auto pre = gguf.String("tokenizer.ggml.pre")) vocabulary.pre = *pre;
  SWIFTKV_ASSIGN_OR_RETURN(vocabulary.tokens, strings("tokenizer.ggml.tokens"));
  SWIFTKV_ASSIGN_OR_RETURN(vocabulary.merges, strings("tokenizer.ggml.merges"));
  if (gguf.Contains("tokenizer.ggml.scores")) {
    SWIFTKV_ASSIGN_OR_RETURN(vocabulary.scores, gguf.Floats("tokenizer.ggml.scores"));
  }
  if (gguf.Contains("tokenizer.ggml.token_type")) {
    SWIFTKV_ASSIGN_OR_RETURN(vocabulary.types, gguf.Ints("tokenizer.ggml.token_type"));
  }
  vocabulary.bos_token_id = token_id("tokenizer.ggml.bos_token_id");
  vocabulary.eos_token_id = token_id("tokenizer.ggml.eos_token_id");
  vocabulary.unknown_token_id = token_id("tokenizer.ggml.unknown_token_id");
  vocabulary.padding_token_id = token_id("tokenizer.ggml.padding_token_id");
  vocabulary.add_bos_token = flag("tokenizer.ggml.add_bos_token");
  vocabulary.add_eos_token = flag("tokenizer.ggml.add_eos_token");
  vocabulary.add_space_prefix = flag("tokenizer.ggml.add_space_prefix");
  return vocabulary;
}

// tokenizer_config.json's chat_template: a string, or a list of named ones of which "default" counts.
std::string TemplateField(const nlohmann::ordered_json& config) {
  const auto field = config.find("chat_template");
  if (field == config.end()) return {};
  if (field->is_string()) return field->get<std::string>();
  if (!field->is_array()) return {};
  for (const auto& entry : *field) {
    if (!entry.is_object() || entry.value("name", nlohmann::ordered_json()) != "default") continue;
    if (const auto text = entry.find("template"); text != entry.end() && text->is_string()) {
      return text->get<std::string>();
    }
  }
  return {};
}

}  // namespace

Result<std::string> ReadChatTemplate(const ModelFiles& files) {
  if (files.folder.empty()) {
    constexpr std::string_view kKey = "tokenizer.chat_template";
    if (files.gguf == nullptr || !files.gguf->Contains(kKey)) return std::string();
    SWIFTKV_ASSIGN_OR_RETURN(const std::string_view text, files.gguf->String(kKey));
    return std::string(text);
  }
  const Result<std::string> jinja = FileInFolder(files.folder, "chat_template.jinja");
  if (jinja) return ReadFile(*jinja, kMaxTemplateBytes);
  if (jinja.error().code != ErrorCode::kNotFound) return tl::unexpected<Error>(jinja.error());
  const Result<std::string> config_path = FileInFolder(files.folder, "tokenizer_config.json");
  if (!config_path && config_path.error().code == ErrorCode::kNotFound) return std::string();
  if (!config_path) return tl::unexpected<Error>(config_path.error());
  SWIFTKV_ASSIGN_OR_RETURN(const nlohmann::ordered_json config, ReadJsonFile(*config_path));
  return TemplateField(config);
}

Result<TokenizerFiles> ExportTextModel(const ModelFiles& files) {
  if (files.gguf == nullptr) return InvalidInput("{}: is no GGUF file", files.origin);
  SWIFTKV_ASSIGN_OR_RETURN(const GgufVocabulary vocabulary, ReadGgufVocabulary(*files.gguf));
  TokenizerExport options{.model_max_length = files.config.max_position_embeddings};
  SWIFTKV_ASSIGN_OR_RETURN(options.chat_template, ReadChatTemplate(files));
  return ExportTokenizer(vocabulary, options, files.origin);
}

Result<std::vector<FileToWrite>> TextFilesToWrite(const ModelFiles& files, bool adapter) {
  if (adapter || files.gguf == nullptr) return std::vector<FileToWrite>();
  SWIFTKV_ASSIGN_OR_RETURN(TokenizerFiles exported, ExportTextModel(files));
  return std::vector<FileToWrite>{{"tokenizer.json", std::move(exported.tokenizer_json)},
                                  {"tokenizer_config.json", std::move(exported.tokenizer_config_json)}};
}

Result<TextModel> LoadTextModel(const ModelFiles& files, const std::optional<std::string>& chat_template_file) {
  TextModel text;
  if (files.folder.empty()) {
    if (files.gguf == nullptr) return InvalidInput("{}: there is no tokenizer", files.origin);
    SWIFTKV_ASSIGN_OR_RETURN(const GgufVocabulary vocabulary, ReadGgufVocabulary(*files.gguf));
    SWIFTKV_ASSIGN_OR_RETURN(text.tokenizer, Tokenizer::FromGguf(vocabulary, files.origin));
  } else {
    for (const char* name : {"tokenizer.json", "tokenizer_config.json"}) {
      const Result<std::string> path = FileInFolder(files.folder, name);
      if (!path && path.error().code != ErrorCode::kNotFound) return tl::unexpected<Error>(path.error());
    }
    SWIFTKV_ASSIGN_OR_RETURN(text.tokenizer, Tokenizer::FromFolder(files.folder));
  }
  std::string source;
  std::string origin = files.origin + ": chat template";
  if (chat_template_file) {
    origin = *chat_template_file;
    SWIFTKV_ASSIGN_OR_RETURN(source, ReadFile(*chat_template_file, kMaxTemplateBytes));
  } else {
    SWIFTKV_ASSIGN_OR_RETURN(source, ReadChatTemplate(files));
  }
  if (source.empty()) {
    text.chat_template =
        InvalidInput("{}: the model has no chat template; give one with --chat-template FILE", files.origin);
  } else {
    text.chat_template = ChatTemplate::Parse(source, origin);
  }
  return text;
}

Result<LoadedModel> LoadModel(const LoadModelOptions& options) {
  SWIFTKV_RETURN_IF_ERROR(kernels::CheckBackendChoice());
  SWIFTKV_ASSIGN_OR_RETURN(const ModelFiles files, OpenModelFiles(options.model, options.adapter));
  const DType dtype = options.dtype.value_or(DType::kBF16);
  LoadedModel model;
  model.origin = files.origin;
  SWIFTKV_ASSIGN_OR_RETURN(model.mode, ChooseMode(files, options.mode));
  const kernels::Backend& backend = options.backend != nullptr ? *options.backend : kernels::DefaultBackend();
  SWIFTKV_RETURN_IF_ERROR(CheckWeightsFit(files.origin, PackedBytes(files, model.mode, options), backend.memory()));
  SWIFTKV_ASSIGN_OR_RETURN(model.text, LoadTextModel(files, options.chat_template_file));
  const LoadOptions load{.dtype = dtype,
                         .quantization = options.quantization,
                         .teacher = model.mode == Mode::kTeacher || options.both_modes,
                         .student = model.mode == Mode::kStudent || options.both_modes,
                         .backend = &backend};
  SWIFTKV_ASSIGN_OR_RETURN(model.weights, LoadWeights(files.config, *files.base, files.adapter.get(), load));
  return model;
}

Result<std::string> RenderChat(const TextModel& text, const nlohmann::ordered_json& messages,
                               const nlohmann::ordered_json& variables) {
  if (!text.chat_template) return tl::unexpected<Error>(text.chat_template.error());
  return RenderConversation(*text.chat_template, *text.tokenizer, messages, variables);
}

}  // namespace swiftkv
