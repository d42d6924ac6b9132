#include "base/distinct_names.h"

#include <filesystem>
#include <map>
#include <set>
#include <utility>

#include "base/file.h"

namespace swiftkv {

std::vector<std::string> DistinctNames(const std::vector<std::string>& paths) {
  struct Named {
    std::filesystem::path path;
    std::filesystem::path above;  // folders that the name has not yet
    std::string name;
  };
  std::vector<Named> files;
  for (const std::string& path : paths) {
    const auto normal = WithoutTrailingSlash(path);
    files.push_back({normal, normal.relative_path().parent_path(), normal.filename().string()});
  }
  for (bool changed = true; changed;) {
    changed = false;
    std::map<std::string, std::set<std::filesystem::path>> bearers;
    for (const Named& file : files) bearers[file.name].insert(file.path);
    for (Named& file : files) {
      if (bearers[file.name].size() < 2 || file.above.empty()) continue;
      file.name = (file.above.filename() / file.name).string();
      file.above = file.above.parent_path();
      changed = true;
    }
  }
  std::vector<std::string> names;
  names.reserve(files.size());
  for (Named& file : files) names.push_back(std::move(file.name));
  return names;
}

}  // namespace swiftkv
