// Template text -> syntax tree, by jinja2's grammar with the loopcontrols and generation tags that transformers adds.
// Tags that need other templates (block, extends, include, import) are refused.
#ifndef SWIFTKV_TEXT_JINJA_PARSER_H_
#define SWIFTKV_TEXT_JINJA_PARSER_H_

#include <memory>
#include <string_view>

#include "text/jinja/ast.h"
#include "text/jinja/lexer.h"

namespace swiftkv::jinja {

// Of expressions and blocks within each other; CPython compiles no more than this either.
constexpr int32_t kMaxNesting = 200;

// The whole template as a function without parameters, its variables resolved.
tl::expected<std::unique_ptr<Function>, SyntaxError> ParseTemplate(std::string_view source);

}  // namespace swiftkv::jinja

#endif  // SWIFTKV_TEXT_JINJA_PARSER_H_
