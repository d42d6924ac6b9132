// From the model argument of the command line to a config and tensors.
//
//   SWIFTKV_ASSIGN_OR_RETURN(ModelFiles files, OpenModelFiles("smollm2-135m", /*adapter=*/""));
//   SWIFTKV_ASSIGN_OR_RETURN(Weights weights, LoadWeights(files.config, *files.base, files.adapter.get(), options));
//
// Accepted: a Hugging Face folder, a .gguf file, `org/name` in the local hub cache ($HF_HUB_CACHE, $HF_HOME/hub or
// ~/.cache/huggingface/hub), and `smollm2-135m`, the default model that scripts/get-default-model puts under
// $SWIFTKV_HOME
// (~/.cache/swiftkv).
#ifndef SWIFTKV_MODEL_MODEL_FILES_H_
#define SWIFTKV_MODEL_MODEL_FILES_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/gguf.h"
#include "checkpoint/tensor_source.h"
#include "model/config.h"

namespace swiftkv {

inline constexpr std::string_view kDefaultModel = "smollm2-135m";

struct ModelFiles {
  std::string origin;                     // what messages call this model: the folder or file
  ModelConfig config;                     // with the adapter's SwiftKV fields, if there is one
  std::unique_ptr<TensorSource> base;     // never null
  std::unique_ptr<TensorSource> adapter;  // null without an adapter
  // Where the tokenizer and the chat template are: a folder (tokenizer.json, ...) or, if that is empty, the GGUF file.
  std::string folder;
  const GgufFile* gguf = nullptr;  // `base`, if it is a GGUF file
};

// `adapter`: a folder with config.json and the SwiftKV tensors alone, or empty. Errors: kNotFound (no such model; the
// message says where it was looked for), kInvalidInput (the files are no supported model, or the adapter doesn't fit).
Result<ModelFiles> OpenModelFiles(const std::string& model, const std::string& adapter);

// The folder or .gguf file that a model argument names; finds files but opens none.
Result<std::string> ResolveModelPath(const std::string& model);

// The folder that --adapter names: a path (or empty), or the name of an adapter in $SWIFTKV_HOME/models, in the
// installed program's share/swiftkv/models, or in models/ of the repository that the program was built in. Errors:
// kNotFound (a name that none of them has; a path need not exist).
Result<std::string> ResolveAdapterPath(const std::string& adapter);

// The names that it finds, sorted.
std::vector<std::string> AdaptersByName();

}  // namespace swiftkv

#endif  // SWIFTKV_MODEL_MODEL_FILES_H_
