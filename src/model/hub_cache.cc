#include "model/hub_cache.h"

#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <system_error>

#include "base/file.h"
#include "base/printable.h"

namespace swiftkv {
namespace {

namespace fs = std::filesystem;

fs::path CacheHome() { return FromEnvironment("XDG_CACHE_HOME", FromEnvironment("HOME", "/root") / ".cache"); }

bool IsPlainName(std::string_view name) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
  };
  return !name.empty() && name.size() <= 128 && name != "." && name != ".." &&
         std::all_of(name.begin(), name.end(), allowed);
}

}  // namespace

std::filesystem::path FromEnvironment(const char* name, const std::filesystem::path& missing) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): nothing sets variables
  return value == nullptr || *value == '\0' ? missing : fs::path(value);
}

std::string HubCache() {
  return FromEnvironment("HF_HUB_CACHE", FromEnvironment("HF_HOME", CacheHome() / "huggingface") / "hub").string();
}

// models--org--name/refs/main holds the revision, snapshots/<revision> its files.
Result<std::string> ResolveHubModel(const std::string& model) {
  const size_t slash = model.find('/');
  const std::string org = model.substr(0, slash);
  const std::string name = slash == std::string::npos ? "" : model.substr(slash + 1);
  if (!IsPlainName(org) || !IsPlainName(name)) {
    return NotFound("{}: no such folder or .gguf file, nor the name of a hub model (org/name)", Printable(model));
  }
  const fs::path folder = fs::path(HubCache()) / fmt::format("models--{}--{}", org, name);
  std::error_code error;
  if (!fs::exists(folder, error)) {
    return NotFound("{}: neither a path nor a model in the local hub cache {}", model, HubCache());
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

}  // namespace swiftkv
