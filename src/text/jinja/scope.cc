#include "text/jinja/scope.h"

#include <unordered_map>

#include "text/jinja/builtins.h"

namespace swiftkv::jinja {
namespace {

// The names that one scope has variables for.
struct Scope {
  Scope* parent;
  Function* function;
  std::vector<SlotLoad>* loads;
  bool condition = false;  // directly inside an if: missing filters are found only when reached
  std::unordered_map<std::string, int32_t> slots = {};
};

class Resolver {
 public:
  std::optional<SyntaxError> Run(Function* root) {
    Scope scope{nullptr, root, &root->body.loads};
    ResolveScope(&root->body, &scope);
    return error_;
  }

 private:
  // ---- Variables.

  static VariableRef Find(const Scope* scope, const std::string& name) {
    VariableRef ref;
    for (const Scope* at = scope; at != nullptr; at = at->parent) {
      if (const auto slot = at->slots.find(name); slot != at->slots.end()) {
        ref.slot = slot->second;
        return ref;
      }
      if (at->parent != nullptr && at->parent->function != at->function) ++ref.hops;
    }
    return {};
  }

  static int32_t Declare(Scope* scope, const std::string& name) {
    const auto [entry, added] = scope->slots.try_emplace(name, scope->function->slots);
    if (added) ++scope->function->slots;
    return entry->second;
  }

  static void DeclareWithLoad(Scope* scope, const std::string& name, SlotLoad::From from, VariableRef outer) {
    scope->loads->push_back({Declare(scope, name), from, name, outer});
  }

  static void Load(Scope* scope, const std::string& name) {
    if (Find(scope, name).slot < 0) DeclareWithLoad(scope, name, SlotLoad::From::kContext, {});
  }

  // An assignment. Within an if the variable may stay unset, and then means the rendering's variable of that name.
  static void Store(Scope* scope, const std::string& name, bool in_condition) {
    if (scope->slots.count(name) != 0) return;
    if (const VariableRef outer = Find(scope, name); outer.slot >= 0) {
      DeclareWithLoad(scope, name, SlotLoad::From::kVariable, outer);
    } else {
      DeclareWithLoad(scope, name, in_condition ? SlotLoad::From::kContext : SlotLoad::From::kNothing, {});
    }
  }

  // ---- First pass over a scope: its variables, in the order in which jinja2 sees them.

  static void CollectNames(const Expr* expr, Scope* scope) {
    if (expr == nullptr) return;
    if (expr->kind == ExprKind::kName) Load(scope, expr->name);
    for (const ExprPtr& operand : expr->operands) CollectNames(operand.get(), scope);
    for (const auto& [name, value] : expr->keywords) CollectNames(value.get(), scope);
    CollectNames(expr->star.get(), scope);
    CollectNames(expr->double_star.get(), scope);
  }

  static void CollectTarget(const Expr* target, Scope* scope, bool in_condition) {
    if (target->kind == ExprKind::kName) Store(scope, target->name, in_condition);
    if (target->kind == ExprKind::kMember) Load(scope, target->name);
    for (const ExprPtr& item : target->operands) CollectTarget(item.get(), scope, in_condition);
  }

  static void DeclareTarget(const Expr* target, Scope* scope) {
    if (target->kind == ExprKind::kName) Declare(scope, target->name);
    for (const ExprPtr& item : target->operands) DeclareTarget(item.get(), scope);
  }

  static void CollectBlock(const Block& block, Scope* scope, bool in_condition) {
    for (const Stmt& stmt : block.statements) CollectStatement(stmt, scope, in_condition);
  }

  static void CollectStatement(const Stmt& stmt, Scope* scope, bool in_condition) {
    switch (stmt.kind) {
      case StmtKind::kOutput:
      case StmtKind::kWith:
        for (const ExprPtr& expr : stmt.expressions) CollectNames(expr.get(), scope);
        break;
      case StmtKind::kFor:
      case StmtKind::kCallBlock:
      case StmtKind::kFilterBlock:
        CollectNames(stmt.value.get(), scope);
        break;
      case StmtKind::kIf:
        for (const auto& [test, body] : stmt.branches) {
          CollectNames(test.get(), scope);
          CollectBlock(body, scope, true);
        }
        CollectBlock(stmt.otherwise, scope, true);
        break;
      case StmtKind::kSet:
        CollectNames(stmt.value.get(), scope);
        CollectTarget(stmt.target.get(), scope, in_condition);
        break;
      case StmtKind::kSetBlock:
        CollectTarget(stmt.target.get(), scope, in_condition);
        break;
      case StmtKind::kMacro:
        Store(scope, stmt.function->name, in_condition);
        break;
      case StmtKind::kText:
      case StmtKind::kGeneration:
      case StmtKind::kBreak:
      case StmtKind::kContinue:
        break;
    }
  }

  // ---- Second pass: names to slots, and the scopes within.

  void ResolveScope(Block* block, Scope* scope) {
    CollectBlock(*block, scope, false);
    ResolveBlock(block, scope);
  }

  // A block with a scope of its own; `declare` adds what the block's tag sets.
  template <class DeclareNames>
  void ResolveInner(Block* block, Scope* outer, const DeclareNames& declare) {
    Scope scope{outer, outer->function, &block->loads};
    declare(&scope);
    ResolveScope(block, &scope);
  }

  void ResolveBlock(Block* block, Scope* scope) {
    for (Stmt& stmt : block->statements) ResolveStatement(&stmt, scope);
  }

  void ResolveExpr(Expr* expr, Scope* scope) {
    if (expr == nullptr) return;
    const bool was_condition = scope->condition;
    if (expr->kind == ExprKind::kConditional) scope->condition = true;
    if (expr->kind == ExprKind::kName || expr->kind == ExprKind::kMember) {
      // A filter of a set block may name what only the outer scopes' first passes did not see.
      Load(scope, expr->name);
      expr->ref = Find(scope, expr->name);
    }
    if (expr->kind == ExprKind::kFilter) FindBuiltin(expr, "filter", FindFilter(expr->text), scope);
    if (expr->kind == ExprKind::kTest) FindBuiltin(expr, "test", FindTest(expr->text), scope);
    for (const ExprPtr& operand : expr->operands) ResolveExpr(operand.get(), scope);
    for (const auto& [name, value] : expr->keywords) ResolveExpr(value.get(), scope);
    ResolveExpr(expr->star.get(), scope);
    ResolveExpr(expr->double_star.get(), scope);
    scope->condition = was_condition;
  }

  void FindBuiltin(Expr* expr, const char* what, Builtin builtin, const Scope* scope) {
    expr->builtin = builtin;
    if (builtin != nullptr || scope->condition || error_) return;
    error_ = SyntaxError{fmt::format("No {} named '{}'.", what, expr->text), expr->line};
  }

  void ResolveStatement(Stmt* stmt, Scope* scope) {
    switch (stmt->kind) {
      case StmtKind::kOutput:
        for (const ExprPtr& expr : stmt->expressions) ResolveExpr(expr.get(), scope);
        break;
      case StmtKind::kFor:
        return ResolveFor(stmt, scope);
      case StmtKind::kIf:
        return ResolveIf(stmt, scope);
      case StmtKind::kSet:
        ResolveExpr(stmt->value.get(), scope);
        ResolveExpr(stmt->target.get(), scope);
        break;
      case StmtKind::kSetBlock:
      case StmtKind::kFilterBlock:
        if (stmt->target != nullptr) ResolveExpr(stmt->target.get(), scope);
        ResolveExpr(stmt->value.get(), scope);
        ResolveInner(&stmt->body, scope, [](Scope*) {});
        break;
      case StmtKind::kMacro:
        stmt->ref = Find(scope, stmt->function->name);
        ResolveFunction(stmt->function.get(), scope);
        break;
      case StmtKind::kCallBlock:
        ResolveFunction(stmt->function.get(), scope);
        ResolveExpr(stmt->value.get(), scope);
        break;
      case StmtKind::kWith:
        return ResolveWith(stmt, scope);
      case StmtKind::kGeneration:
        ResolveInner(&stmt->body, scope, [](Scope*) {});
        break;
      case StmtKind::kText:
      case StmtKind::kBreak:
      case StmtKind::kContinue:
        break;
    }
  }

  void ResolveIf(Stmt* stmt, Scope* scope) {
    const bool was_condition = scope->condition;
    scope->condition = true;
    for (auto& [test, body] : stmt->branches) {
      ResolveExpr(test.get(), scope);
      ResolveBlock(&body, scope);
    }
    ResolveBlock(&stmt->otherwise, scope);
    scope->condition = was_condition;
  }

  void ResolveWith(Stmt* stmt, Scope* scope) {
    for (const ExprPtr& expr : stmt->expressions) ResolveExpr(expr.get(), scope);
    ResolveInner(&stmt->body, scope, [&](Scope* inner) {
      for (const ExprPtr& target : stmt->targets) {
        DeclareTarget(target.get(), inner);
        ResolveExpr(target.get(), inner);
      }
    });
  }

  static ExprPtr CloneTarget(const Expr& target) {
    auto clone = std::make_unique<Expr>();
    clone->kind = target.kind;
    clone->line = target.line;
    clone->name = target.name;
    for (const ExprPtr& item : target.operands) clone->operands.push_back(CloneTarget(*item));
    return clone;
  }

  void ResolveFor(Stmt* stmt, Scope* scope) {
    ResolveExpr(stmt->value.get(), scope);
    if (!stmt->recursive) return ResolveLoop(stmt, scope);
    stmt->function = std::make_unique<Function>();
    stmt->function->has_functions = true;
    scope->function->has_functions = true;
    Scope inner{scope, stmt->function.get(), &stmt->function->body.loads};
    ResolveLoop(stmt, &inner);
  }

  void ResolveLoop(Stmt* stmt, Scope* scope) {
    if (stmt->test != nullptr) {
      stmt->test_target = CloneTarget(*stmt->target);
      Scope test{scope, scope->function, &stmt->test_loads};
      DeclareTarget(stmt->test_target.get(), &test);
      CollectNames(stmt->test.get(), &test);
      ResolveExpr(stmt->test_target.get(), &test);
      ResolveExpr(stmt->test.get(), &test);
    }
    ResolveInner(&stmt->body, scope, [&](Scope* inner) {
      if (stmt->uses_loop) stmt->loop_slot = Declare(inner, "loop");
      DeclareTarget(stmt->target.get(), inner);
      ResolveExpr(stmt->target.get(), inner);
    });
    ResolveInner(&stmt->otherwise, scope, [](Scope*) {});
  }

  void ResolveFunction(Function* function, Scope* outer) {
    outer->function->has_functions = true;
    Scope scope{outer, function, &function->body.loads};
    for (auto& parameter : function->parameters) parameter.slot = Declare(&scope, parameter.name);
    if (function->uses_caller) function->caller_slot = Declare(&scope, "caller");
    if (function->uses_keyword_arguments) function->keyword_arguments_slot = Declare(&scope, "kwargs");
    if (function->uses_more_arguments) function->more_arguments_slot = Declare(&scope, "varargs");
    for (auto& parameter : function->parameters) CollectNames(parameter.default_value.get(), &scope);
    CollectBlock(function->body, &scope, false);
    for (auto& parameter : function->parameters) ResolveExpr(parameter.default_value.get(), &scope);
    ResolveBlock(&function->body, &scope);
  }

  std::optional<SyntaxError> error_;
};

}  // namespace

std::optional<SyntaxError> ResolveNames(Function* root) { return Resolver().Run(root); }

}  // namespace swiftkv::jinja
