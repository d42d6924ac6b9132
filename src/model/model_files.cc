#include "model/model_files.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

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

Result<std::string> ResolveDefaultModel() {
  const fs::path home = FromEnvironment("SWIFTKV_HOME", FromEnvironment("HOME", "/root") / ".cache" / "swiftkv");
  const fs::path file = home / kDefaultModelFile;
  std::error_code error;
  if (!fs::exists(file, error)) {
    return NotFound("{}: the default model {} is not there; run scripts/setup", file.string(), kDefaultModel);
  }
  return file.string();
}

Result<Json> ReadFolderJson(const std::string& folder, const char* name) {
  SWIFTKV_ASSIGN_OR_RETURN(const std::string path, FileInFolder(folder, name));
  return ReadJsonFile(path);
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
