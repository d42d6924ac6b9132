#include "checkpoint/folder.h"

#include <filesystem>
#include <system_error>

#include "base/printable.h"

namespace swiftkv {
namespace {

namespace fs = std::filesystem;

// The folder that files may come from: of a hub snapshot the whole model's, else the folder itself.
fs::path Root(const fs::path& folder) {
  const fs::path snapshots = folder.parent_path();
  const fs::path model = snapshots.parent_path();
  const bool hub = snapshots.filename() == "snapshots" && model.filename().string().starts_with("models--");
  return hub ? model : folder;
}

bool IsInside(const fs::path& path, const fs::path& root) {
  const fs::path relative = path.lexically_relative(root);
  return !relative.empty() && *relative.begin() != "..";
}

}  // namespace

Result<std::string> FileInFolder(const std::string& folder, std::string_view name) {
  if (name.empty() || name == "." || name == ".." || name.find('/') != std::string_view::npos ||
      name.find('\0') != std::string_view::npos) {
    return InvalidInput("{}: \"{}\" is no plain file name", folder, Printable(name));
  }
  std::error_code error;
  const fs::path real_folder = fs::canonical(folder, error);
  if (error) return NotFound("{}: no such folder", folder);
  const fs::path real_file = fs::canonical(real_folder / name, error);
  if (error == std::errc::no_such_file_or_directory) {
    return NotFound("{}: there is no file {}", folder, Printable(name));
  }
  if (error) return InvalidInput("{}: cannot follow {}: {}", folder, Printable(name), error.message());
  if (!IsInside(real_file, Root(real_folder))) {
    return InvalidInput("{}: {} is a link that leads out of the folder", folder, Printable(name));
  }
  return real_file.string();
}

}  // namespace swiftkv
