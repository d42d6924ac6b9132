// Files of a model folder, which may come from anywhere: no name in it may lead out of it.
#ifndef SWIFTKV_CHECKPOINT_FOLDER_H_
#define SWIFTKV_CHECKPOINT_FOLDER_H_

#include <string>
#include <string_view>

#include "base/status.h"

namespace swiftkv {

// The real path of the file `name` in `folder`. `name` is a plain name without slashes. Links are followed, but their
// target must lie in the folder too; in a hub cache (models--org--name/snapshots/<revision>) anywhere in the folder of
// that model, because snapshots consist of links into its blobs. Errors: kNotFound, kInvalidInput.
Result<std::string> FileInFolder(const std::string& folder, std::string_view name);

}  // namespace swiftkv

#endif  // SWIFTKV_CHECKPOINT_FOLDER_H_
