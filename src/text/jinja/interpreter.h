// Runs a parsed template.
#ifndef SWIFTKV_TEXT_JINJA_INTERPRETER_H_
#define SWIFTKV_TEXT_JINJA_INTERPRETER_H_

#include <string>
#include <string_view>
#include <unordered_map>

#include "text/jinja/ast.h"
#include "text/jinja/runtime.h"

namespace swiftkv::jinja {

using Variables = std::unordered_map<std::string_view, Value>;

// The rendered text. runtime->line tells where an error happened.
Result<std::string> RunTemplate(const Function& root, const Variables& variables, Runtime* runtime);

}  // namespace swiftkv::jinja

#endif  // SWIFTKV_TEXT_JINJA_INTERPRETER_H_
