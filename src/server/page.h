// Files that the server hands out, built into the program.
#ifndef SWIFTKV_SERVER_PAGE_H_
#define SWIFTKV_SERVER_PAGE_H_

#include <string_view>

namespace swiftkv {

extern const std::string_view kPageHtml;     // page/index.html, at /
extern const std::string_view kOpenApiJson;  // openapi.json, at /openapi.json

}  // namespace swiftkv

#endif  // SWIFTKV_SERVER_PAGE_H_
