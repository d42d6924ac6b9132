// The parsed template. Names of variables are already resolved to slots (scope.h).
#ifndef SWIFTKV_TEXT_JINJA_AST_H_
#define SWIFTKV_TEXT_JINJA_AST_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

namespace swiftkv::jinja {

// A variable: slot of the function that is `hops` functions outside the current one.
struct VariableRef {
  int32_t hops = 0;
  int32_t slot = -1;
};

enum class ExprKind : uint8_t {
  kConst,        // value
  kName,         // name, ref
  kMember,       // name.text: a namespace's attribute as target of an assignment; name, text, ref
  kList,         // operands
  kTuple,        // operands
  kDict,         // operands: key, value, key, value, ...
  kGetattr,      // operands[0].text
  kGetitem,      // operands[0][operands[1]]
  kSlice,        // operands[0][operands[1]:operands[2]:operands[3]], null where left out
  kCall,         // operands[0](operands[1...], keywords, *star, **double_star)
  kFilter,       // operands[0]|text(operands[1...], ...); operands[0] is null in a filter block
  kTest,         // operands[0] is text(operands[1...], ...)
  kNot,          // operands[0]
  kNegative,     // -operands[0]
  kPositive,     // +operands[0]
  kAnd,          // operands[0], operands[1]
  kOr,           // operands[0], operands[1]
  kBinary,       // operators[0] of operands[0], operands[1]
  kCompare,      // operands[0] operators[0] operands[1] operators[1] operands[2] ...
  kConcat,       // operands, joined by ~
  kConditional,  // operands[1] if operands[0] else operands[2]; operands[2] is null where left out
};

enum class Operator : uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn,
};

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct Expr {
  ExprKind kind = ExprKind::kConst;
  int32_t line = 0;
  int32_t height = 1;  // of the tree below, bounded by the parser
  std::string name;
  std::string text;  // also the bytes of a string constant
  Value value;
  VariableRef ref;
  Builtin builtin = nullptr;  // kFilter, kTest: null if there is none of that name
  std::vector<ExprPtr> operands;
  std::vector<Operator> operators;
  std::vector<std::pair<std::string, ExprPtr>> keywords;
  ExprPtr star;
  ExprPtr double_star;
};

// What a variable holds when its scope is entered.
struct SlotLoad {
  enum class From : uint8_t {
    kNothing,   // missing until set
    kContext,   // the variables of the rendering, by name
    kVariable,  // the variable of that name in an outer scope
  };
  int32_t slot;
  From from;
  std::string name;
  VariableRef outer;
};

struct Stmt;
struct Block {
  std::vector<Stmt> statements;
  std::vector<SlotLoad> loads;  // empty unless the block is a scope
};

// "if test" or "elif test" and what follows.
struct Branch {
  ExprPtr test;
  Block body;
};

// A macro, the body of a call block or of a recursive loop, or the whole template: what has variables of its own.
struct Function {
  struct Parameter {
    std::string name;
    ExprPtr default_value;  // may be null
    int32_t slot = -1;
  };
  std::string name;
  std::vector<Parameter> parameters;
  int32_t caller_slot = -1;  // -1: not used in the body
  int32_t keyword_arguments_slot = -1;
  int32_t more_arguments_slot = -1;
  bool uses_caller = false;
  bool uses_keyword_arguments = false;
  bool uses_more_arguments = false;
  int32_t slots = 0;
  bool has_functions = false;  // functions within refer to its variables
  Block body;
};

enum class StmtKind : uint8_t {
  kText,         // text
  kOutput,       // expressions
  kFor,          // target, value, test (may be null), body, otherwise, loop_slot, function if recursive
  kIf,           // branches; otherwise
  kSet,          // target, value
  kSetBlock,     // target, body, filter (may be null)
  kMacro,        // function, ref
  kCallBlock,    // function, value: the call
  kFilterBlock,  // value: the filter, body
  kWith,         // targets, expressions, body
  kGeneration,   // body
  kBreak,
  kContinue,
};

struct Stmt {
  StmtKind kind = StmtKind::kText;
  int32_t line = 0;
  std::string text;
  ExprPtr target;
  ExprPtr value;
  ExprPtr test;
  ExprPtr test_target;  // the loop's target again: the test has variables of its own
  std::vector<SlotLoad> test_loads;
  std::vector<ExprPtr> targets;
  std::vector<ExprPtr> expressions;
  std::vector<Branch> branches;
  Block body;
  Block otherwise;
  bool recursive = false;
  bool uses_loop = false;
  int32_t loop_slot = -1;
  VariableRef ref;
  std::unique_ptr<Function> function;
};

}  // namespace swiftkv::jinja

#endif  // SWIFTKV_TEXT_JINJA_AST_H_
