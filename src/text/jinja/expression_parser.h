// Expressions, in jinja2's grammar, from the weakest binding to the strongest.
//
// After the first error the current token is the end of the template, so that every loop ends; the tree is then of no
// use, but without null pointers where there must not be any.
#ifndef SWIFTKV_TEXT_JINJA_EXPRESSION_PARSER_H_
#define SWIFTKV_TEXT_JINJA_EXPRESSION_PARSER_H_

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/lexer.h"

namespace swiftkv::jinja {

// As Python's repr.
std::string Quoted(std::string_view text);
std::string Describe(const Token& token);

// The parser of statements derives from it.
class ExpressionParser {
 protected:
  explicit ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  // Counts nested calls of the parser's functions; an error past the limit.
  class Recursion {
   public:
    explicit Recursion(ExpressionParser* parser);
    ~Recursion() { --parser_->recursion_; }
    Recursion(const Recursion&) = delete;
    Recursion& operator=(const Recursion&) = delete;

   private:
    ExpressionParser* parser_;
  };

  // How often names were read that make a loop or macro provide a variable.
  struct Mentions {
    int loop = 0;
    int caller = 0;
    int kwargs = 0;
    int varargs = 0;
    int loop_assignments = 0;
  };

  const Token& Current() const { return tokens_[position_]; }
  const Token& Look() const { return tokens_[std::min(position_ + 1, tokens_.size() - 1)]; }
  bool failed() const { return error_.has_value(); }
  const std::optional<SyntaxError>& error() const { return error_; }
  const Mentions& mentions() const { return mentions_; }
  void CountLoopAssignment() { ++mentions_.loop_assignments; }

  Token Next();
  // At the current line unless another is given.
  void Fail(std::string message, int32_t line = 0);
  bool SkipIfName(std::string_view name);
  bool SkipIfOperator(std::string_view name);
  void ExpectOperator(std::string_view name);
  void ExpectName(std::string_view name);
  void Expect(TokenKind kind);
  std::string ExpectAnyName();

  static bool IsConstantName(std::string_view name);
  // One name or several with commas; `end` is the name that ends them.
  ExprPtr ParseTarget(std::string_view end, bool with_namespace);
  // An expression, or several with commas; `end` is a name that ends them too.
  ExprPtr ParseTuple(bool with_conditional, std::string_view end, bool parentheses);
  ExprPtr ParseExpression();
  // Filters, each with its "|".
  ExprPtr ParseFilters(ExprPtr expr);
  // What follows "|".
  ExprPtr ParseFilter(ExprPtr input);

 private:
  void FailUnexpected(std::string_view expected);

  static ExprPtr MakeExpr(ExprKind kind, int32_t line);
  static ExprPtr Constant(Value value, int32_t line);
  // Bounds the height of the tree, on which evaluation and destruction recurse.
  ExprPtr Finish(ExprPtr expr);
  ExprPtr Pair(ExprKind kind, ExprPtr left, ExprPtr right, int32_t line);
  ExprPtr Single(ExprKind kind, ExprPtr operand, int32_t line);
  ExprPtr Binary(Operator op, ExprPtr left, ExprPtr right, int32_t line);

  ExprPtr ParseTargetItem(bool with_namespace);
  bool IsTupleEnd(std::string_view end) const;
  ExprPtr ParseOr();
  ExprPtr ParseAnd();
  ExprPtr ParseNot();
  std::optional<Operator> SkipComparison();
  ExprPtr ParseCompare();
  ExprPtr ParseSum();
  ExprPtr ParseConcat();
  ExprPtr ParseProduct();
  ExprPtr ParsePower();
  ExprPtr ParseUnary(bool with_filter);
  ExprPtr ParsePrimary();
  ExprPtr ParseName(const Token& token);
  // What follows "[" or "{" of a literal.
  ExprPtr ParseItems(ExprKind kind, std::string_view end, int32_t line);
  ExprPtr ParsePostfix(ExprPtr expr);
  ExprPtr ParseFilterExpression(ExprPtr expr);
  ExprPtr ParseAttribute(ExprPtr object, int32_t line);
  ExprPtr ParseSubscript(ExprPtr object, int32_t line);
  // One expression, or the three parts of a slice.
  void ParseSubscribed(std::vector<ExprPtr>* parts, bool* slice);
  ExprPtr ParseCall(ExprPtr callee);
  void ParseArguments(Expr* call);
  void ParseKeyword(Expr* call);
  std::string ParseDottedName();
  // What starts with "is".
  ExprPtr ParseTest(ExprPtr input);

  std::vector<Token> tokens_;
  size_t position_ = 0;
  int32_t recursion_ = 0;
  Mentions mentions_;
  std::optional<SyntaxError> error_;
};

}  // namespace swiftkv::jinja

#endif  // SWIFTKV_TEXT_JINJA_EXPRESSION_PARSER_H_
