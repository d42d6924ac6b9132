// Template text -> tokens, as jinja2's lexer with trim_blocks, lstrip_blocks and no trailing newline kept.
#ifndef SWIFTKV_TEXT_JINJA_LEXER_H_
#define SWIFTKV_TEXT_JINJA_LEXER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/jinja/value.h"

namespace swiftkv::jinja {

enum class TokenKind : uint8_t {
  kData,  // text outside of tags
  kBlockBegin,
  kBlockEnd,
  kVariableBegin,
  kVariableEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  int32_t line = 0;
  std::string text;  // data, name, unescaped string, or the operator itself
  Int integer = 0;
  double real = 0;

  bool IsName(std::string_view name) const { return kind == TokenKind::kName && text == name; }
  bool IsOperator(std::string_view name) const { return kind == TokenKind::kOperator && text == name; }
};

// What went wrong in the template and where.
struct SyntaxError {
  std::string message;
  int32_t line;
};

// The last token is kEnd.
tl::expected<std::vector<Token>, SyntaxError> Tokenize(std::string_view source);

}  // namespace swiftkv::jinja

#endif  // SWIFTKV_TEXT_JINJA_LEXER_H_
