// Errors as values.
//
//   Result<Config> ReadConfig(const std::string& path) {
//     SWIFTKV_ASSIGN_OR_RETURN(std::string text, ReadFile(path));
//     if (text.empty()) return InvalidInput("{}: empty file", path);
//     ...
//   }
//
// A message is one sentence for the person who gave the input: what is wrong, where (file, field), and which limit.
// Nothing that a user, a client or a file can send ends the process; asserts catch our own bugs only.
#ifndef SWIFTKV_BASE_STATUS_H_
#define SWIFTKV_BASE_STATUS_H_

#include <fmt/core.h>

#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace swiftkv {

enum class ErrorCode {
  kInvalidInput,       // the input is wrong: exit code 2, HTTP 400
  kNotFound,           // a named file, model or tensor does not exist: exit code 2, HTTP 404
  kResourceExhausted,  // memory, disk or a configured limit: exit code 1, HTTP 429 or 503
  kIo,                 // the operating system refused: exit code 1
  kCancelled,          // the user or client asked to stop
  kInternal,           // our own fault: exit code 1, HTTP 500
};

struct Error {
  ErrorCode code;
  std::string message;
};

// `std::expected` of C++23, by its packaged forerunner.
template <class T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

inline Status Ok() { return {}; }

template <class... Args>
tl::unexpected<Error> MakeError(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  return tl::unexpected<Error>(Error{code, fmt::format(format, std::forward<Args>(args)...)});
}
template <class... Args>
tl::unexpected<Error> InvalidInput(fmt::format_string<Args...> format, Args&&... args) {
  return MakeError(ErrorCode::kInvalidInput, format, std::forward<Args>(args)...);
}
template <class... Args>
tl::unexpected<Error> NotFound(fmt::format_string<Args...> format, Args&&... args) {
  return MakeError(ErrorCode::kNotFound, format, std::forward<Args>(args)...);
}
template <class... Args>
tl::unexpected<Error> ResourceExhausted(fmt::format_string<Args...> format, Args&&... args) {
  return MakeError(ErrorCode::kResourceExhausted, format, std::forward<Args>(args)...);
}
template <class... Args>
tl::unexpected<Error> IoError(fmt::format_string<Args...> format, Args&&... args) {
  return MakeError(ErrorCode::kIo, format, std::forward<Args>(args)...);
}

// 2 for wrong input, 1 for everything else (design section 6).
inline int ExitCode(const Error& error) {
  return error.code == ErrorCode::kInvalidInput || error.code == ErrorCode::kNotFound ? 2 : 1;
}

}  // namespace swiftkv

#define SWIFTKV_CONCAT_INNER(a, b) a##b
#define SWIFTKV_CONCAT(a, b) SWIFTKV_CONCAT_INNER(a, b)

#define SWIFTKV_RETURN_IF_ERROR(expression)                                  \
  do {                                                                       \
    if (auto status_or = (expression); !status_or) {                         \
      return tl::unexpected<::swiftkv::Error>(std::move(status_or).error()); \
    }                                                                        \
  } while (false)

// `target` may declare a variable: SWIFTKV_ASSIGN_OR_RETURN(auto file, MappedFile::Open(path));
#define SWIFTKV_ASSIGN_OR_RETURN(target, expression) \
  SWIFTKV_ASSIGN_OR_RETURN_INNER(SWIFTKV_CONCAT(result_, __LINE__), target, expression)
#define SWIFTKV_ASSIGN_OR_RETURN_INNER(result, target, expression)                 \
  auto result = (expression);                                                      \
  if (!result) return tl::unexpected<::swiftkv::Error>(std::move(result).error()); \
  target = std::move(*result)

#endif  // SWIFTKV_BASE_STATUS_H_
