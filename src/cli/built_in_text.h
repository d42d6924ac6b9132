// models/calibration/novels.txt, put into the program by the build.
#ifndef SWIFTKV_CLI_BUILT_IN_TEXT_H_
#define SWIFTKV_CLI_BUILT_IN_TEXT_H_

#include <string_view>

namespace swiftkv {

extern const std::string_view kBuiltInText;

}  // namespace swiftkv

#endif  // SWIFTKV_CLI_BUILT_IN_TEXT_H_
