// From the model argument of a command to everything that answering needs.
//
//   SWIFTKV_ASSIGN_OR_RETURN(LoadedModel model, LoadModel({.model = "smollm2-135m"}));
//   auto engine = Engine::Create(model.weights, model.mode, model.tokenizer.get(), {});
#ifndef SWIFTKV_ENGINE_LOAD_H_
#define SWIFTKV_ENGINE_LOAD_H_

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "model/checkpoint_output.h"
#include "model/config.h"
#include "model/model_files.h"
#include "model/weights.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"
#include "text/tokenizer_export.h"

namespace swiftkv {

struct LoadModelOptions {
  std::string model;                // design section 6: a folder, a .gguf, org/name, smollm2-135m
  std::string adapter = {};         // a folder, or empty
  std::optional<Mode> mode = {};    // absent: the student where there is one
  bool both_modes = false;          // the weights of both modes, to compare them
  std::optional<DType> dtype = {};  // kBF16 or kF32; absent: kBF16
  Quantization quantization = Quantization::kNone;
  const kernels::Backend* backend = nullptr;           // null: kernels::DefaultBackend()
  std::optional<std::string> chat_template_file = {};  // instead of the model's own template
};

// The text side of a model, without its weights.
struct TextModel {
  std::unique_ptr<Tokenizer> tokenizer;
  // An error where the model has none, or one that can't be parsed: completions don't need it.
  Result<ChatTemplate> chat_template = NotFound("there is no chat template");
};

struct LoadedModel {
  std::string origin;  // what messages call it
  Weights weights;     // weights.config: L, n, g and the rest
  Mode mode = Mode::kTeacher;
  TextModel text;
};

// Errors: those of OpenModelFiles, LoadWeights and Tokenizer; kInvalidInput if the mode is not in the files;
// kResourceExhausted if the weights are larger than the memory available.
Result<LoadedModel> LoadModel(const LoadModelOptions& options);

// The chat template's source; empty if the model has none.
Result<std::string> ReadChatTemplate(const ModelFiles& files);
// tokenizer.json and tokenizer_config.json of a model that is a GGUF file. Error kInvalidInput: it is none.
Result<TokenizerFiles> ExportTextModel(const ModelFiles& files);
// The same for WriteCheckpoint: none for an adapter, nor where the base's folder has them.
Result<std::vector<FileToWrite>> TextFilesToWrite(const ModelFiles& files, bool adapter);
Result<TextModel> LoadTextModel(const ModelFiles& files, const std::optional<std::string>& chat_template_file);

// A conversation as the prompt that the model was trained on, without BOS added again. `messages`: a JSON array of
// {"role", "content"}; `variables`: more for the template (chat_template_kwargs), an object or null.
// Errors: kInvalidInput (no template; what the template itself raises).
Result<std::string> RenderChat(const TextModel& text, const nlohmann::ordered_json& messages,
                               const nlohmann::ordered_json& variables);

}  // namespace swiftkv

#endif  // SWIFTKV_ENGINE_LOAD_H_
