#include "text/jinja/parser.h"

#include <algorithm>
#include <initializer_list>

#include "text/jinja/expression_parser.h"
#include "text/jinja/scope.h"

namespace swiftkv::jinja {
namespace {

constexpr size_t kMaxParameters = 255;  // of one macro

using Names = std::initializer_list<std::string_view>;

class Parser : private ExpressionParser {
 public:
  explicit Parser(std::vector<Token> tokens) : ExpressionParser(std::move(tokens)) {}

  tl::expected<std::unique_ptr<Function>, SyntaxError> Run() {
    auto root = std::make_unique<Function>();
    root->body = ParseBlock({});
    if (error()) return tl::unexpected<SyntaxError>(*error());
    return root;
  }

 private:
  // Statements up to one of the tags `ends`, which stays the current token; up to the end if there are none.
  Block ParseBlock(Names ends) {
    Block block;
    while (!failed()) {
      const Token token = Current();
      if (token.kind == TokenKind::kEnd) {
        if (ends.size() != 0) Fail("Unexpected end of template." + Wanted(ends));
        break;
      }
      Next();
      if (token.kind == TokenKind::kData) {
        Stmt text = MakeStmt(StmtKind::kText, token.line);
        text.text = token.text;
        block.statements.push_back(std::move(text));
      } else if (token.kind == TokenKind::kVariableBegin) {
        Stmt output = MakeStmt(StmtKind::kOutput, token.line);
        output.expressions.push_back(ParseTuple(true, {}, false));
        block.statements.push_back(std::move(output));
        Expect(TokenKind::kVariableEnd);
      } else {
        if (std::any_of(ends.begin(), ends.end(), [&](std::string_view name) { return Current().IsName(name); })) break;
        block.statements.push_back(ParseStatement(ends));
        Expect(TokenKind::kBlockEnd);
      }
    }
    return block;
  }

  // The body of a tag: ":" and the end of the tag, then statements up to one of `ends`.
  Block ParseBody(Names ends) {
    SkipIfOperator(":");
    Expect(TokenKind::kBlockEnd);
    return ParseBlock(ends);
  }

  Block ParseBodyTo(std::string_view end) {
    Block block = ParseBody({end});
    ExpectName(end);
    return block;
  }

  static std::string Alternatives(Names ends) {
    std::string result;
    for (const std::string_view name : ends) {
      if (!result.empty()) result += " or ";
      result += Quoted(name);
    }
    return result;
  }

  // What is still open, for an error message.
  std::string Wanted(Names ends) const {
    std::string result;
    if (ends.size() != 0) result = fmt::format(" Jinja was looking for the following tags: {}.", Alternatives(ends));
    if (!open_tags_.empty()) {
      result += fmt::format(" The innermost block that needs to be closed is {}.", Quoted(open_tags_.back()));
    }
    return result;
  }

  static Stmt MakeStmt(StmtKind kind, int32_t line) {
    Stmt stmt;
    stmt.kind = kind;
    stmt.line = line;
    return stmt;
  }

  Stmt ParseStatement(Names ends) {
    Recursion recursion(this);
    const Token tag = Current();
    if (tag.kind != TokenKind::kName) {
      Fail("tag name expected");
      return {};
    }
    using Method = Stmt (Parser::*)(int32_t);
    static constexpr std::pair<std::string_view, Method> kTags[] = {
        {"for", &Parser::ParseFor},
        {"if", &Parser::ParseIf},
        {"set", &Parser::ParseSet},
        {"macro", &Parser::ParseMacro},
        {"call", &Parser::ParseCallBlock},
        {"filter", &Parser::ParseFilterBlock},
        {"with", &Parser::ParseWith},
        {"print", &Parser::ParsePrint},
        {"break", &Parser::ParseBreak},
        {"continue", &Parser::ParseContinue},
        {"generation", &Parser::ParseGeneration},
    };
    for (const auto& [name, method] : kTags) {
      if (tag.text != name) continue;
      open_tags_.push_back(tag.text);
      Next();
      Stmt stmt = (this->*method)(tag.line);
      open_tags_.pop_back();
      return stmt;
    }
    for (const std::string_view name : {"block", "extends", "include", "import", "from", "autoescape"}) {
      if (tag.text != name) continue;
      Fail(fmt::format("the tag {} is not supported in chat templates", Quoted(name)), tag.line);
      return {};
    }
    Fail(fmt::format("Encountered unknown tag {}.{}", Quoted(tag.text), Wanted(ends)), tag.line);
    return {};
  }

  Stmt ParseFor(int32_t line) {
    Stmt stmt = MakeStmt(StmtKind::kFor, line);
    const int assignments = mentions().loop_assignments;
    stmt.target = ParseTarget("in", false);
    ExpectName("in");
    stmt.value = ParseTuple(false, "recursive", false);
    if (SkipIfName("if")) stmt.test = ParseExpression();
    stmt.recursive = SkipIfName("recursive");
    const int loop_mentions = mentions().loop;
    ++loops_;
    stmt.body = ParseBody({"endfor", "else"});
    --loops_;
    stmt.uses_loop = stmt.recursive || mentions().loop > loop_mentions;
    if (SkipIfName("else")) {
      stmt.otherwise = ParseBodyTo("endfor");
    } else {
      ExpectName("endfor");
    }
    if (mentions().loop_assignments > assignments)
      Fail("Can't assign to special loop variable in for-loop target", line);
    return stmt;
  }

  Stmt ParseIf(int32_t line) {
    Stmt stmt = MakeStmt(StmtKind::kIf, line);
    do {
      ExprPtr test = ParseTuple(false, {}, false);
      Block body = ParseBody({"elif", "else", "endif"});
      stmt.branches.push_back({std::move(test), std::move(body)});
    } while (SkipIfName("elif"));
    if (SkipIfName("else")) {
      stmt.otherwise = ParseBodyTo("endif");
    } else {
      ExpectName("endif");
    }
    return stmt;
  }

  Stmt ParseSet(int32_t line) {
    Stmt stmt = MakeStmt(StmtKind::kSet, line);
    stmt.target = ParseTarget({}, true);
    if (SkipIfOperator("=")) {
      stmt.value = ParseTuple(true, {}, false);
      return stmt;
    }
    stmt.kind = StmtKind::kSetBlock;
    stmt.value = ParseFilters(nullptr);
    stmt.body = ParseBodyTo("endset");
    return stmt;
  }

  Stmt ParseWith(int32_t line) {
    Stmt stmt = MakeStmt(StmtKind::kWith, line);
    while (!failed() && Current().kind != TokenKind::kBlockEnd) {
      if (!stmt.targets.empty()) ExpectOperator(",");
      stmt.targets.push_back(ParseTarget({}, false));
      ExpectOperator("=");
      stmt.expressions.push_back(ParseExpression());
    }
    stmt.body = ParseBodyTo("endwith");
    return stmt;
  }

  Stmt ParsePrint(int32_t line) {
    Stmt stmt = MakeStmt(StmtKind::kOutput, line);
    while (!failed() && Current().kind != TokenKind::kBlockEnd) {
      if (!stmt.expressions.empty()) ExpectOperator(",");
      stmt.expressions.push_back(ParseExpression());
    }
    return stmt;
  }

  Stmt ParseBreak(int32_t line) {
    if (loops_ == 0) Fail("'break' outside loop", line);
    return MakeStmt(StmtKind::kBreak, line);
  }

  Stmt ParseContinue(int32_t line) {
    if (loops_ == 0) Fail("'continue' not properly in loop", line);
    return MakeStmt(StmtKind::kContinue, line);
  }

  Stmt ParseFilterBlock(int32_t line) {
    Stmt stmt = MakeStmt(StmtKind::kFilterBlock, line);
    stmt.value = ParseFilters(ParseFilter(nullptr));
    stmt.body = ParseBodyTo("endfilter");
    return stmt;
  }

  Stmt ParseGeneration(int32_t line) {
    Stmt stmt = MakeStmt(StmtKind::kGeneration, line);
    const int loops = std::exchange(loops_, 0);
    stmt.body = ParseBodyTo("endgeneration");
    loops_ = loops;
    return stmt;
  }

  Stmt ParseMacro(int32_t line) {
    Stmt stmt = MakeStmt(StmtKind::kMacro, line);
    stmt.function = std::make_unique<Function>();
    stmt.function->name = ExpectAnyName();
    if (stmt.function->name == "loop") CountLoopAssignment();
    ParseSignature(stmt.function.get());
    ParseFunctionBody(stmt.function.get(), "endmacro");
    return stmt;
  }

  Stmt ParseCallBlock(int32_t line) {
    Stmt stmt = MakeStmt(StmtKind::kCallBlock, line);
    stmt.function = std::make_unique<Function>();
    if (Current().IsOperator("(")) ParseSignature(stmt.function.get());
    stmt.value = ParseExpression();
    if (!failed() && stmt.value->kind != ExprKind::kCall) Fail("expected call", line);
    ParseFunctionBody(stmt.function.get(), "endcall");
    return stmt;
  }

  void ParseSignature(Function* function) {
    ExpectOperator("(");
    while (!failed() && !Current().IsOperator(")")) {
      if (!function->parameters.empty()) ExpectOperator(",");
      Function::Parameter parameter;
      parameter.name = ExpectAnyName();
      if (IsConstantName(parameter.name)) Fail("can't assign to 'const'");
      for (const auto& other : function->parameters) {
        if (other.name == parameter.name)
          Fail(fmt::format("duplicate argument {} in macro definition", Quoted(other.name)));
      }
      if (SkipIfOperator("=")) {
        parameter.default_value = ParseExpression();
      } else if (!function->parameters.empty() && function->parameters.back().default_value != nullptr) {
        Fail("non-default argument follows default argument");
      }
      function->parameters.push_back(std::move(parameter));
      if (function->parameters.size() > kMaxParameters) Fail("too many parameters");
    }
    ExpectOperator(")");
  }

  void ParseFunctionBody(Function* function, std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    const Mentions before = mentions();
    function->body = ParseBodyTo(end);
    function->uses_caller = mentions().caller > before.caller;
    function->uses_keyword_arguments = mentions().kwargs > before.kwargs;
    function->uses_more_arguments = mentions().varargs > before.varargs;
    for (const auto& parameter : function->parameters) {
      if (parameter.name == "kwargs") function->uses_keyword_arguments = false;
      if (parameter.name == "varargs") function->uses_more_arguments = false;
      if (parameter.name != "caller" || !function->uses_caller) continue;
      if (parameter.default_value == nullptr) {
        Fail("the special \"caller\" argument must be omitted or be given a default");
      }
      function->uses_caller = false;
    }
    loops_ = loops;
  }

  int loops_ = 0;  // around the current statement, within its function
  std::vector<std::string> open_tags_;
};

}  // namespace

tl::expected<std::unique_ptr<Function>, SyntaxError> ParseTemplate(std::string_view source) {
  auto tokens = Tokenize(source);
  if (!tokens) return tl::unexpected<SyntaxError>(tokens.error());
  auto root = Parser(std::move(*tokens)).Run();
  if (!root) return root;
  if (auto error = ResolveNames(root->get()); error) return tl::unexpected<SyntaxError>(*error);
  return root;
}

}  // namespace swiftkv::jinja
