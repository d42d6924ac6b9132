#include "model/model_files.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "base/printable.h"
#include "checkpoint/folder.h"
#include "checkpoint/json_file.h"
#include "model/gguf_config.h"
#include "model/hub_cache.h"

namespace swiftkv {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr char kDefaultModelFile[] = "models/smollm2-135m-instruct-q4_1.gguf";
constexpr char kSwiftKvNorm[] = "model.norm_swiftkv.weight";

fs::path SwiftKvHome() {
  return FromEnvironment("SWIFTKV_HOME", FromEnvironment("HOME", "/root") / ".cache" / "swiftkv");
}

Result<std::string> ResolveDefaultModel() {
  const fs::path file = SwiftKvHome() / kDefaultModelFile;
  std::error_code error;
  if (!fs::exists(file, error)) {
    return NotFound(
        "{}: the default model {} is not there; run scripts/setup or, of a package, "
        "share/swiftkv/get-default-model",
        file.string(), kDefaultModel);
  }
  return file.string();
}

// Where adapters are found by name: the user's, an installed program's, those of the repository it was built in.
std::array<fs::path, 3> AdapterFolders() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error).parent_path();
  return {SwiftKvHome() / "models", program / "../share/swiftkv/models", program / "../../models"};
}

bool IsAdapterFolder(const fs::path& folder) {
  std::error_code error;
  return fs::is_regular_file(folder / "config.json", error);
}

Result<Json> ReadFolderJson(const std::string& folder, const char* name) {
  SWIFTKV_ASSIGN_OR_RETURN(const std::string path, FileInFolder(folder, name));
  return ReadJsonFile(path);
}

// In a quantised checkpoint numbers of 8 bits mean nothing without their scales; elsewhere they may stand for
// themselves.
Status CheckScales(const Json& config, const TensorSource& tensors) {
  if (!config.contains("quantization_config") || config["quantization_config"].is_null()) return Ok();
  for (const std::string& name : tensors.names()) {
    const StoredTensor& tensor = *tensors.Find(name);
    if (tensor.dtype == DType::kF8E4M3 && tensor.scale == nullptr) {
      return InvalidInput("{}: there is no {}_scale, which a checkpoint with a quantization_config needs",
                          tensors.origin(), Printable(name));
    }
  }
  return Ok();
}

Status OpenFolder(const std::string& folder, ModelFiles* files) {
  files->folder = folder;
  SWIFTKV_ASSIGN_OR_RETURN(const Json json, ReadFolderJson(folder, "config.json"));
  SWIFTKV_ASSIGN_OR_RETURN(files->config, ParseHfConfig(json, folder + "/config.json"));
  const Result<Json> generation = ReadFolderJson(folder, "generation_config.json");
  if (generation) {
    SWIFTKV_RETURN_IF_ERROR(MergeGenerationConfig(*generation, folder + "/generation_config.json", &files->config));
  } else if (generation.error().code != ErrorCode::kNotFound) {
    return tl::unexpected(generation.error());
  }
  SWIFTKV_ASSIGN_OR_RETURN(files->base, OpenSafetensors(folder));
  SWIFTKV_RETURN_IF_ERROR(CheckScales(json, *files->base));
  if (files->base->Find("model.embed_tokens.weight") == nullptr && files->base->Find(kSwiftKvNorm) != nullptr) {
    return InvalidInput("{}: this folder is an adapter; name its base model and give the folder with --adapter",
                        folder);
  }
  return Ok();
}

Status OpenGguf(const std::string& path, ModelFiles* files) {
  SWIFTKV_ASSIGN_OR_RETURN(std::unique_ptr<GgufFile> gguf, GgufFile::Open(path));
  SWIFTKV_ASSIGN_OR_RETURN(files->config, ParseGgufConfig(*gguf));
  files->gguf = gguf.get();
  files->base = std::move(gguf);
  return Ok();
}

Status ApplyAdapter(const std::string& folder, ModelFiles* files) {
  SWIFTKV_ASSIGN_OR_RETURN(const Json json, ReadFolderJson(folder, "config.json"));
  SWIFTKV_RETURN_IF_ERROR(MergeAdapterConfig(json, folder + "/config.json", &files->config));
  SWIFTKV_ASSIGN_OR_RETURN(files->adapter, OpenSafetensors(folder));
  SWIFTKV_RETURN_IF_ERROR(CheckScales(json, *files->adapter));
  if (files->adapter->Find(kSwiftKvNorm) == nullptr) {
    return InvalidInput("{}: not an adapter, there is no tensor {}", folder, kSwiftKvNorm);
  }
  return Ok();
}

}  // namespace

Result<std::string> ResolveModelPath(const std::string& model) {
  if (model.empty()) return InvalidInput("the model argument is empty");
  if (model.find('\0') != std::string::npos) return InvalidInput("the model argument holds a zero byte");
  std::error_code error;
  if (fs::exists(model, error)) return model;
  if (model == kDefaultModel) return ResolveDefaultModel();
  return ResolveHubModel(model);
}

Result<std::string> ResolveAdapterPath(const std::string& adapter) {
  std::error_code error;
  if (adapter.empty() || adapter.find('/') != std::string::npos || fs::exists(adapter, error)) return adapter;
  for (const fs::path& folder : AdapterFolders()) {
    if (IsAdapterFolder(folder / adapter)) return (folder / adapter).lexically_normal().string();
  }
  return NotFound("there is no folder {}, and no adapter of that name in {} or beside this program", adapter,
                  (SwiftKvHome() / "models").string());
}

std::vector<std::string> AdaptersByName() {
  std::vector<std::string> names;
  std::error_code error;
  for (const fs::path& folder : AdapterFolders()) {
    for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
      if (IsAdapterFolder(entry.path())) names.push_back(entry.path().filename());
    }
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

Result<ModelFiles> OpenModelFiles(const std::string& model, const std::string& adapter) {
  SWIFTKV_ASSIGN_OR_RETURN(const std::string path, ResolveModelPath(model));
  ModelFiles files;
  files.origin = path;
  std::error_code error;
  SWIFTKV_RETURN_IF_ERROR(fs::is_directory(path, error) ? OpenFolder(path, &files) : OpenGguf(path, &files));
  if (!adapter.empty()) SWIFTKV_RETURN_IF_ERROR(ApplyAdapter(adapter, &files));
  return files;
}

}  // namespace swiftkv
