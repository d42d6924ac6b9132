// Names for files that people tell apart.
#ifndef SWIFTKV_BASE_DISTINCT_NAMES_H_
#define SWIFTKV_BASE_DISTINCT_NAMES_H_

#include <string>
#include <vector>

namespace swiftkv {

// Each path's last part, with as many of the folders above it as tell it from the others.
//
//   DistinctNames({"a/t.txt", "b/t.txt", "b/u.txt"})   // {"a/t.txt", "b/t.txt", "u.txt"}
std::vector<std::string> DistinctNames(const std::vector<std::string>& paths);

}  // namespace swiftkv

#endif  // SWIFTKV_BASE_DISTINCT_NAMES_H_
