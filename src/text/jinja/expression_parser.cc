#include "text/jinja/expression_parser.h"

#include <algorithm>

#include "text/jinja/format.h"
#include "text/jinja/parser.h"

namespace swiftkv::jinja {
namespace {

constexpr int32_t kMaxRecursion = 500;  // of the parser's own functions, several for each level of nesting
constexpr size_t kMaxKeywords = 255;    // of one call

}  // namespace

std::string Quoted(std::string_view text) {
  std::string out;
  AppendStringRepr(&out, text);
  return out;
}

std::string Describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kName:
    case TokenKind::kOperator:
      return Quoted(token.text);
    case TokenKind::kBlockBegin:
      return "'begin of statement block'";
    case TokenKind::kBlockEnd:
      return "'end of statement block'";
    case TokenKind::kVariableBegin:
      return "'begin of print statement'";
    case TokenKind::kVariableEnd:
      return "'end of print statement'";
    case TokenKind::kData:
      return "'template data / text'";
    case TokenKind::kString:
      return "'string'";
    case TokenKind::kInteger:
      return "'integer'";
    case TokenKind::kFloat:
      return "'float'";
    case TokenKind::kEnd:
      break;
  }
  return "'end of template'";
}

ExpressionParser::Recursion::Recursion(ExpressionParser* parser) : parser_(parser) {
  if (++parser_->recursion_ > kMaxRecursion) parser_->Fail("nested too deeply");
}

Token ExpressionParser::Next() {
  const Token& token = tokens_[position_];
  if (token.kind != TokenKind::kEnd) ++position_;
  return token;
}

void ExpressionParser::Fail(std::string message, int32_t line) {
  if (!error_) error_ = SyntaxError{std::move(message), line != 0 ? line : Current().line};
  position_ = tokens_.size() - 1;
}

void ExpressionParser::FailUnexpected(std::string_view expected) {
  if (Current().kind == TokenKind::kEnd) {
    Fail(fmt::format("unexpected end of template, expected {}.", expected));
  } else {
    Fail(fmt::format("expected token {}, got {}", expected, Describe(Current())));
  }
}

bool ExpressionParser::SkipIfName(std::string_view name) {
  if (!Current().IsName(name)) return false;
  Next();
  return true;
}

bool ExpressionParser::SkipIfOperator(std::string_view name) {
  if (!Current().IsOperator(name)) return false;
  Next();
  return true;
}

void ExpressionParser::ExpectOperator(std::string_view name) {
  if (!SkipIfOperator(name)) FailUnexpected(Quoted(name));
}

void ExpressionParser::ExpectName(std::string_view name) {
  if (!SkipIfName(name)) FailUnexpected(Quoted(name));
}

void ExpressionParser::Expect(TokenKind kind) {
  Token wanted;
  wanted.kind = kind;
  if (Current().kind != kind) return FailUnexpected(Describe(wanted));
  Next();
}

std::string ExpressionParser::ExpectAnyName() {
  if (Current().kind != TokenKind::kName) {
    FailUnexpected("'name'");
    return {};
  }
  return Next().text;
}

ExprPtr ExpressionParser::MakeExpr(ExprKind kind, int32_t line) {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->line = line;
  return expr;
}

ExprPtr ExpressionParser::Constant(Value value, int32_t line) {
  ExprPtr expr = MakeExpr(ExprKind::kConst, line);
  expr->value = std::move(value);
  return expr;
}

ExprPtr ExpressionParser::Finish(ExprPtr expr) {
  int32_t below = 0;
  const auto see = [&](const ExprPtr& child) {
    if (child != nullptr) below = std::max(below, child->height);
  };
  for (const ExprPtr& operand : expr->operands) see(operand);
  for (const auto& [name, value] : expr->keywords) see(value);
  see(expr->star);
  see(expr->double_star);
  expr->height = below + 1;
  if (expr->height > kMaxNesting) Fail("the expression is nested too deeply", expr->line);
  return expr;
}

ExprPtr ExpressionParser::Pair(ExprKind kind, ExprPtr left, ExprPtr right, int32_t line) {
  ExprPtr expr = MakeExpr(kind, line);
  expr->operands.push_back(std::move(left));
  expr->operands.push_back(std::move(right));
  return Finish(std::move(expr));
}

ExprPtr ExpressionParser::Single(ExprKind kind, ExprPtr operand, int32_t line) {
  ExprPtr expr = MakeExpr(kind, line);
  expr->operands.push_back(std::move(operand));
  return Finish(std::move(expr));
}

bool ExpressionParser::IsConstantName(std::string_view name) {
  return name == "true" || name == "false" || name == "none" || name == "True" || name == "False" || name == "None";
}

ExprPtr ExpressionParser::ParseTarget(std::string_view end, bool with_namespace) {
  const int32_t line = Current().line;
  std::vector<ExprPtr> items;
  bool tuple = false;
  while (!failed()) {
    if (!items.empty()) ExpectOperator(",");
    if (IsTupleEnd(end)) break;
    items.push_back(ParseTargetItem(with_namespace));
    if (!Current().IsOperator(",")) break;
    tuple = true;
  }
  if (!tuple && items.size() == 1) return std::move(items[0]);
  if (items.empty()) Fail("Expected an expression, got " + Describe(Current()));
  ExprPtr expr = MakeExpr(ExprKind::kTuple, line);
  expr->operands = std::move(items);
  return Finish(std::move(expr));
}

ExprPtr ExpressionParser::ParseTargetItem(bool with_namespace) {
  Recursion recursion(this);
  const Token token = Current();
  if (SkipIfOperator("(")) {
    ExprPtr target = ParseTarget({}, with_namespace);
    ExpectOperator(")");
    return target;
  }
  ExprPtr expr = MakeExpr(ExprKind::kName, token.line);
  if (token.kind != TokenKind::kName || IsConstantName(token.text)) {
    Fail("can't assign to " + Describe(token));
    return expr;
  }
  Next();
  expr->name = token.text;
  if (with_namespace && SkipIfOperator(".")) {
    expr->kind = ExprKind::kMember;
    expr->text = ExpectAnyName();
  } else if (token.text == "loop") {
    CountLoopAssignment();
  }
  return expr;
}

bool ExpressionParser::IsTupleEnd(std::string_view end) const {
  const Token& token = Current();
  return token.kind == TokenKind::kVariableEnd || token.kind == TokenKind::kBlockEnd || token.kind == TokenKind::kEnd ||
         token.IsOperator(")") || (!end.empty() && token.IsName(end));
}

ExprPtr ExpressionParser::ParseTuple(bool with_conditional, std::string_view end, bool parentheses) {
  const int32_t line = Current().line;
  std::vector<ExprPtr> items;
  bool tuple = false;
  while (!failed()) {
    if (!items.empty()) ExpectOperator(",");
    if (IsTupleEnd(end)) break;
    items.push_back(with_conditional ? ParseExpression() : ParseOr());
    if (!Current().IsOperator(",")) break;
    tuple = true;
  }
  if (!tuple && !items.empty()) return std::move(items[0]);
  if (!tuple && !parentheses) Fail("Expected an expression, got " + Describe(Current()));
  ExprPtr expr = MakeExpr(ExprKind::kTuple, line);
  expr->operands = std::move(items);
  return Finish(std::move(expr));
}

ExprPtr ExpressionParser::ParseExpression() {
  Recursion recursion(this);
  const int32_t line = Current().line;
  ExprPtr result = ParseOr();
  while (SkipIfName("if")) {
    ExprPtr conditional = MakeExpr(ExprKind::kConditional, line);
    conditional->operands.push_back(ParseOr());
    conditional->operands.push_back(std::move(result));
    conditional->operands.push_back(SkipIfName("else") ? ParseExpression() : nullptr);
    result = Finish(std::move(conditional));
  }
  return result;
}

ExprPtr ExpressionParser::ParseOr() {
  const int32_t line = Current().line;
  ExprPtr left = ParseAnd();
  while (SkipIfName("or")) left = Pair(ExprKind::kOr, std::move(left), ParseAnd(), line);
  return left;
}

ExprPtr ExpressionParser::ParseAnd() {
  const int32_t line = Current().line;
  ExprPtr left = ParseNot();
  while (SkipIfName("and")) left = Pair(ExprKind::kAnd, std::move(left), ParseNot(), line);
  return left;
}

ExprPtr ExpressionParser::ParseNot() {
  Recursion recursion(this);
  const int32_t line = Current().line;
  if (SkipIfName("not")) return Single(ExprKind::kNot, ParseNot(), line);
  return ParseCompare();
}

std::optional<Operator> ExpressionParser::SkipComparison() {
  static constexpr std::pair<std::string_view, Operator> kComparisons[] = {
      {"==", Operator::kEqual},     {"!=", Operator::kNotEqual}, {"<", Operator::kLess},
      {"<=", Operator::kLessEqual}, {">", Operator::kGreater},   {">=", Operator::kGreaterEqual}};
  for (const auto& [name, op] : kComparisons) {
    if (SkipIfOperator(name)) return op;
  }
  if (SkipIfName("in")) return Operator::kIn;
  if (!Current().IsName("not") || !Look().IsName("in")) return std::nullopt;
  Next();
  Next();
  return Operator::kNotIn;
}

ExprPtr ExpressionParser::ParseCompare() {
  const int32_t line = Current().line;
  ExprPtr first = ParseSum();
  std::optional<Operator> op = SkipComparison();
  if (!op) return first;
  ExprPtr compare = MakeExpr(ExprKind::kCompare, line);
  compare->operands.push_back(std::move(first));
  for (; op; op = SkipComparison()) {
    compare->operators.push_back(*op);
    compare->operands.push_back(ParseSum());
  }
  return Finish(std::move(compare));
}

ExprPtr ExpressionParser::Binary(Operator op, ExprPtr left, ExprPtr right, int32_t line) {
  ExprPtr expr = Pair(ExprKind::kBinary, std::move(left), std::move(right), line);
  expr->operators.push_back(op);
  return expr;
}

ExprPtr ExpressionParser::ParseSum() {
  const int32_t line = Current().line;
  ExprPtr left = ParseConcat();
  while (Current().IsOperator("+") || Current().IsOperator("-")) {
    const Operator op = Next().text == "+" ? Operator::kAdd : Operator::kSubtract;
    left = Binary(op, std::move(left), ParseConcat(), line);
  }
  return left;
}

ExprPtr ExpressionParser::ParseConcat() {
  const int32_t line = Current().line;
  ExprPtr first = ParseProduct();
  if (!Current().IsOperator("~")) return first;
  ExprPtr concat = MakeExpr(ExprKind::kConcat, line);
  concat->operands.push_back(std::move(first));
  while (SkipIfOperator("~")) concat->operands.push_back(ParseProduct());
  return Finish(std::move(concat));
}

ExprPtr ExpressionParser::ParseProduct() {
  static constexpr std::pair<std::string_view, Operator> kProducts[] = {
      {"*", Operator::kMultiply}, {"/", Operator::kDivide}, {"//", Operator::kFloorDivide}, {"%", Operator::kModulo}};
  const int32_t line = Current().line;
  ExprPtr left = ParsePower();
  for (bool found = true; found;) {
    found = false;
    for (const auto& [name, op] : kProducts) {
      if (!SkipIfOperator(name)) continue;
      left = Binary(op, std::move(left), ParsePower(), line);
      found = true;
    }
  }
  return left;
}

ExprPtr ExpressionParser::ParsePower() {
  const int32_t line = Current().line;
  ExprPtr left = ParseUnary(true);
  while (SkipIfOperator("**")) left = Binary(Operator::kPower, std::move(left), ParseUnary(true), line);
  return left;
}

ExprPtr ExpressionParser::ParseUnary(bool with_filter) {
  Recursion recursion(this);
  const int32_t line = Current().line;
  ExprPtr expr;
  if (SkipIfOperator("-")) {
    expr = Single(ExprKind::kNegative, ParseUnary(false), line);
  } else if (SkipIfOperator("+")) {
    expr = Single(ExprKind::kPositive, ParseUnary(false), line);
  } else {
    expr = ParsePrimary();
  }
  expr = ParsePostfix(std::move(expr));
  return with_filter ? ParseFilterExpression(std::move(expr)) : std::move(expr);
}

ExprPtr ExpressionParser::ParsePrimary() {
  const Token token = Current();
  switch (token.kind) {
    case TokenKind::kName:
      Next();
      return ParseName(token);
    case TokenKind::kString: {
      ExprPtr expr = Constant({}, token.line);
      while (Current().kind == TokenKind::kString) expr->text += Next().text;
      expr->value = Value::Text(expr->text);
      return expr;
    }
    case TokenKind::kInteger:
      return Constant(Value::Integer(Next().integer), token.line);
    case TokenKind::kFloat:
      return Constant(Value::Float(Next().real), token.line);
    default:
      break;
  }
  if (SkipIfOperator("(")) {
    ExprPtr expr = ParseTuple(true, {}, true);
    ExpectOperator(")");
    return expr;
  }
  if (SkipIfOperator("[")) return ParseItems(ExprKind::kList, "]", token.line);
  if (SkipIfOperator("{")) return ParseItems(ExprKind::kDict, "}", token.line);
  Fail("unexpected " + Describe(token));
  return Constant(Value::None(), token.line);
}

ExprPtr ExpressionParser::ParseName(const Token& token) {
  if (token.text == "true" || token.text == "True") return Constant(Value::Bool(true), token.line);
  if (token.text == "false" || token.text == "False") return Constant(Value::Bool(false), token.line);
  if (token.text == "none" || token.text == "None") return Constant(Value::None(), token.line);
  mentions_.loop += token.text == "loop";
  mentions_.caller += token.text == "caller";
  mentions_.kwargs += token.text == "kwargs";
  mentions_.varargs += token.text == "varargs";
  ExprPtr expr = MakeExpr(ExprKind::kName, token.line);
  expr->name = token.text;
  return expr;
}

ExprPtr ExpressionParser::ParseItems(ExprKind kind, std::string_view end, int32_t line) {
  ExprPtr expr = MakeExpr(kind, line);
  while (!failed() && !Current().IsOperator(end)) {
    if (!expr->operands.empty()) ExpectOperator(",");
    if (Current().IsOperator(end)) break;
    expr->operands.push_back(ParseExpression());
    if (kind != ExprKind::kDict) continue;
    ExpectOperator(":");
    expr->operands.push_back(ParseExpression());
  }
  ExpectOperator(end);
  return Finish(std::move(expr));
}

ExprPtr ExpressionParser::ParsePostfix(ExprPtr expr) {
  while (true) {
    const int32_t line = Current().line;
    if (SkipIfOperator(".")) {
      expr = ParseAttribute(std::move(expr), line);
    } else if (SkipIfOperator("[")) {
      expr = ParseSubscript(std::move(expr), line);
    } else if (Current().IsOperator("(")) {
      expr = ParseCall(std::move(expr));
    } else {
      return expr;
    }
  }
}

ExprPtr ExpressionParser::ParseFilterExpression(ExprPtr expr) {
  while (true) {
    if (Current().IsOperator("|")) {
      expr = ParseFilters(std::move(expr));
    } else if (Current().IsName("is")) {
      expr = ParseTest(std::move(expr));
    } else if (Current().IsOperator("(")) {
      expr = ParseCall(std::move(expr));
    } else {
      return expr;
    }
  }
}

ExprPtr ExpressionParser::ParseAttribute(ExprPtr object, int32_t line) {
  const Token token = Next();
  if (token.kind == TokenKind::kInteger) {
    return Pair(ExprKind::kGetitem, std::move(object), Constant(Value::Integer(token.integer), line), line);
  }
  if (token.kind != TokenKind::kName) Fail("expected name or number", token.line);
  ExprPtr expr = Single(ExprKind::kGetattr, std::move(object), line);
  expr->text = token.text;
  return expr;
}

ExprPtr ExpressionParser::ParseSubscript(ExprPtr object, int32_t line) {
  std::vector<ExprPtr> parts;
  bool slice = false, tuple = false;
  ParseSubscribed(&parts, &slice);
  while (!failed() && !slice && Current().IsOperator(",")) {
    Next();
    tuple = true;
    if (Current().IsOperator("]")) break;
    parts.push_back(ParseExpression());
  }
  ExpectOperator("]");
  if (!slice && !tuple) return Pair(ExprKind::kGetitem, std::move(object), std::move(parts[0]), line);
  if (tuple) {
    ExprPtr key = MakeExpr(ExprKind::kTuple, line);
    key->operands = std::move(parts);
    return Pair(ExprKind::kGetitem, std::move(object), Finish(std::move(key)), line);
  }
  ExprPtr expr = MakeExpr(ExprKind::kSlice, line);
  expr->operands.push_back(std::move(object));
  for (ExprPtr& part : parts) expr->operands.push_back(std::move(part));
  return Finish(std::move(expr));
}

void ExpressionParser::ParseSubscribed(std::vector<ExprPtr>* parts, bool* slice) {
  parts->push_back(Current().IsOperator(":") ? nullptr : ParseExpression());
  if (!SkipIfOperator(":")) return;
  *slice = true;
  const auto absent = [this] { return Current().IsOperator(":") || Current().IsOperator("]") || failed(); };
  parts->push_back(absent() ? nullptr : ParseExpression());
  const bool step = SkipIfOperator(":");
  parts->push_back(!step || absent() ? nullptr : ParseExpression());
}

ExprPtr ExpressionParser::ParseCall(ExprPtr callee) {
  ExprPtr expr = MakeExpr(ExprKind::kCall, Current().line);
  expr->operands.push_back(std::move(callee));
  ParseArguments(expr.get());
  return Finish(std::move(expr));
}

void ExpressionParser::ParseArguments(Expr* call) {
  const int32_t line = Current().line;
  const auto ensure = [&](bool valid) {
    if (!valid) Fail("invalid syntax for function call expression", line);
  };
  ExpectOperator("(");
  bool first = true;
  while (!failed() && !Current().IsOperator(")")) {
    if (!first) ExpectOperator(",");
    if (!first && Current().IsOperator(")")) break;
    first = false;
    if (SkipIfOperator("*")) {
      ensure(call->star == nullptr && call->double_star == nullptr);
      call->star = ParseExpression();
    } else if (SkipIfOperator("**")) {
      ensure(call->double_star == nullptr);
      call->double_star = ParseExpression();
    } else if (Current().kind == TokenKind::kName && Look().IsOperator("=")) {
      ensure(call->double_star == nullptr);
      ParseKeyword(call);
    } else {
      ensure(call->star == nullptr && call->double_star == nullptr && call->keywords.empty());
      call->operands.push_back(ParseExpression());
    }
  }
  ExpectOperator(")");
}

void ExpressionParser::ParseKeyword(Expr* call) {
  std::string name = Next().text;
  Next();
  for (const auto& [other, value] : call->keywords) {
    if (other == name) Fail("keyword argument repeated: " + name);
  }
  ExprPtr value = ParseExpression();
  call->keywords.emplace_back(std::move(name), std::move(value));
  if (call->keywords.size() > kMaxKeywords) Fail("too many keyword arguments");
}

std::string ExpressionParser::ParseDottedName() {
  std::string name = ExpectAnyName();
  while (SkipIfOperator(".")) name.append(1, '.').append(ExpectAnyName());
  return name;
}

ExprPtr ExpressionParser::ParseFilters(ExprPtr expr) {
  while (SkipIfOperator("|")) expr = ParseFilter(std::move(expr));
  return expr;
}

ExprPtr ExpressionParser::ParseFilter(ExprPtr input) {
  ExprPtr expr = MakeExpr(ExprKind::kFilter, Current().line);
  expr->text = ParseDottedName();
  expr->operands.push_back(std::move(input));
  if (Current().IsOperator("(")) ParseArguments(expr.get());
  return Finish(std::move(expr));
}

ExprPtr ExpressionParser::ParseTest(ExprPtr input) {
  const int32_t line = Next().line;
  const bool negated = SkipIfName("not");
  ExprPtr expr = MakeExpr(ExprKind::kTest, line);
  expr->text = ParseDottedName();
  expr->operands.push_back(std::move(input));
  const Token& token = Current();
  if (token.IsOperator("(")) {
    ParseArguments(expr.get());
  } else if (token.kind == TokenKind::kString || token.kind == TokenKind::kInteger || token.kind == TokenKind::kFloat ||
             token.IsOperator("[") || token.IsOperator("{") ||
             (token.kind == TokenKind::kName && !token.IsName("else") && !token.IsName("or") && !token.IsName("and"))) {
    if (token.IsName("is")) Fail("You cannot chain multiple tests with is");
    ExprPtr argument = ParsePrimary();
    expr->operands.push_back(ParsePostfix(std::move(argument)));
  }
  expr = Finish(std::move(expr));
  return negated ? Single(ExprKind::kNot, std::move(expr), line) : std::move(expr);
}

}  // namespace swiftkv::jinja
