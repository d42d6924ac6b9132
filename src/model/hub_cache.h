// Models that huggingface_hub has downloaded to this machine.
//
//   SWIFTKV_ASSIGN_OR_RETURN(const std::string folder, ResolveHubModel("org/name"));
#ifndef SWIFTKV_MODEL_HUB_CACHE_H_
#define SWIFTKV_MODEL_HUB_CACHE_H_

#include <filesystem>
#include <string>

#include "base/status.h"

namespace swiftkv {

// The value of an environment variable; `missing` if it is unset or empty.
std::filesystem::path FromEnvironment(const char* name, const std::filesystem::path& missing);

// The cache's folder, as huggingface_hub finds it: $HF_HUB_CACHE, $HF_HOME/hub, $XDG_CACHE_HOME/huggingface/hub or
// ~/.cache/huggingface/hub. It may be absent.
std::string HubCache();

// The folder of `org/name`'s main revision. Errors: kNotFound; kInvalidInput (a revision that leads elsewhere).
Result<std::string> ResolveHubModel(const std::string& model);

}  // namespace swiftkv

#endif  // SWIFTKV_MODEL_HUB_CACHE_H_
