#include "model/model_files.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "base/printable.h"
#include "checkpoint/folder.h"
#include "checkpoint/json_file.h"
#include "model/gguf_config.h"

namespace swiftkv {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr char kDefaultModelFile[] = "models/smollm2-135m-instruct-q4_1.gguf";
constexpr char kSwiftKvNorm[] = "model.norm_swiftkv.weight";

// The value of an environment variable; `missing` if it is unset or empty.
fs::path FromEnvironment(const char* name, const fs::path& missing) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): nothing sets variables
  return value == nullptr || *value == '\0' ? missing : fs::path(value);
}

fs::path CacheHome() { return FromEnvironment("XDG_CACHE_HOME", FromEnvironment("HOME", "/root") / ".cache"); }

// As huggingface_hub finds it.
fs::path HubCache() {
  return FromEnvironment("HF_HUB_CACHE", FromEnvironment("HF_HOME", CacheHome() / "huggingface") / "hub");
}

Result<std::string> ResolveDefaultModel() {
  const fs::path home = FromEnvironment("SWIFTKV_HOME", FromEnvironment("HOME", "/root") / ".cache" / "swiftkv");
  const fs::path file = home / kDefaultModelFile;
  std::error_code error;
  if (!fs::exists(file, error)) {
    return NotFound("{}: the default model {} is not there; run scripts/setup", file.string(), kDefaultModel);
  }
  return file.string();
}

bool IsPlainName(std::string_view name) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
  };
  return !name.empty() && name.size() <= 128 && name != "." && name != ".." &&
         std::all_of(name.begin(), name.end(), allowed);
}

// models--org--name/refs/main holds the revision, snapshots/<revision> its files.
Result<std::string> ResolveHubModel(const std::string& model) {
  const size_t slash = model.find('/');
  const std::string org = model.substr(0, slash);
  const std::string name = slash == std::string::npos ? "" : model.substr(slash + 1);
  if (!IsPlainName(org) || !IsPlainName(name)) {
    return NotFound("{}: no such folder or .gguf file, nor the name of a hub model (org/name)", Printable(model));
  }
  const fs::path folder = HubCache() / fmt::format("models--{}--{}", org, name);
  std::error_code error;
  if (!fs::exists(folder, error)) {
    return NotFound("{}: neither a path nor a model in the local hub cache {}", model, HubCache().string());
  }
  SWIFTKV_ASSIGN_OR_RETURN(std::string revision, ReadFile((folder / "refs" / "main").string(), 256));
  while (!revision.empty() && (revision.back() == '\n' || revision.back() == '\r')) revision.pop_back();
  const fs::path snapshots = fs::canonical(folder / "snapshots", error);
  if (!IsPlainName(revision)) return InvalidInput("{}: refs/main holds no revision", folder.string());
  const fs::path snapshot = fs::canonical(folder / "snapshots" / revision, error);
  if (error) return NotFound("{}: there is no snapshot {}", folder.string(), revision);
  if (snapshot.parent_path() != snapshots) {
    return InvalidInput("{}: the snapshot {} is a link that leads elsewhere", folder.string(), revision);
  }
  return snapshot.string();
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
