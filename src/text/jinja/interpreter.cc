#include "text/jinja/interpreter.h"

#include <optional>
#include <utility>

#include "text/jinja/builtins.h"
#include "text/jinja/format.h"
#include "text/jinja/loop.h"
#include "text/jinja/ops.h"

namespace swiftkv::jinja {

// The variables of one call of a function.
struct Activation : Object {
  Activation(Budget* budget, const Function& function, Ref<Activation> outside)
      : Object(budget, static_cast<int64_t>(96 + sizeof(Value) * static_cast<size_t>(function.slots))),
        outer(std::move(outside)),
        slots(static_cast<size_t>(function.slots)) {}
  void Clear() override { slots.clear(); }

  Ref<Activation> outer;
  std::vector<Value> slots;
};

namespace {

enum class Flow : uint8_t { kNormal, kBreak, kContinue };

class Interpreter;

struct MacroObject : FunctionObject {
  MacroObject(Budget* budget, Interpreter* runner, const Function* code, Ref<Activation> scope)
      : FunctionObject(budget, 96), interpreter(runner), function(code), closure(std::move(scope)) {}
  Result<Value> Call(Runtime& runtime, const Arguments& arguments) override;
  Result<bool> Attribute(Runtime& runtime, std::string_view name, Value* value) override;
  std::string Repr() const override {
    return function->name.empty() ? "<Macro anonymous>" : "<Macro '" + function->name + "'>";
  }

  Interpreter* interpreter;
  const Function* function;
  Ref<Activation> closure;
};

class Interpreter {
 public:
  Interpreter(const Variables& variables, Runtime* runtime)
      : variables_(variables), runtime_(*runtime), budget_(&runtime->budget) {}

  Result<std::string> Run(const Function& root) {
    Frame frame(this, root, {});
    SWIFTKV_RETURN_IF_ERROR(RunScope(root.body, frame.get()));
    SWIFTKV_RETURN_IF_ERROR(runtime_.Step());
    return std::move(output_);
  }

  Result<Value> CallMacro(const MacroObject& macro, const Arguments& arguments);

 private:
  // An activation for the time of a call. If a function made in the call keeps it, the two may form a cycle.
  class Frame {
   public:
    Frame(Interpreter* interpreter, const Function& function, Ref<Activation> outer)
        : runtime_(&interpreter->runtime_),
          activation_(new Activation(interpreter->budget_, function, std::move(outer))) {}
    ~Frame() {
      if (activation_->references > 1) runtime_->Keep(activation_.get());
    }
    Frame(const Frame&) = delete;
    Frame& operator=(const Frame&) = delete;
    Activation* get() const { return activation_.get(); }

   private:
    Runtime* runtime_;
    Ref<Activation> activation_;
  };

  // Output goes into a string of its own for the time of a block.
  class Capture {
   public:
    explicit Capture(Interpreter* interpreter)
        : interpreter_(interpreter), outer_(std::exchange(interpreter->output_, std::string())) {}
    ~Capture() {
      Take();
      interpreter_->output_ = std::move(outer_);
    }
    Capture(const Capture&) = delete;
    Capture& operator=(const Capture&) = delete;
    Value Take() {
      interpreter_->budget_->memory_bytes += static_cast<int64_t>(interpreter_->output_.size());
      return Value::String(interpreter_->budget_, std::exchange(interpreter_->output_, std::string()));
    }

   private:
    Interpreter* interpreter_;
    std::string outer_;
  };

  // ---- Variables.

  static Value& Slot(Activation* activation, VariableRef ref) {
    for (int32_t i = 0; i < ref.hops; ++i) activation = activation->outer.get();
    return activation->slots[static_cast<size_t>(ref.slot)];
  }

  Value FromContext(const std::string& name) const {
    if (const auto variable = variables_.find(name); variable != variables_.end()) return variable->second;
    const Builtin global = FindGlobal(name);
    return global == nullptr ? Value() : MakeFunction(budget_, Value::None(), global, name);
  }

  void EnterScope(const std::vector<SlotLoad>& loads, Activation* activation) {
    for (const SlotLoad& load : loads) {
      Value& slot = activation->slots[static_cast<size_t>(load.slot)];
      switch (load.from) {
        case SlotLoad::From::kNothing:
          slot = Value();
          break;
        case SlotLoad::From::kContext:
          slot = FromContext(load.name);
          break;
        case SlotLoad::From::kVariable:
          slot = Slot(activation, load.outer);
          break;
      }
    }
  }

  Status Assign(const Expr& target, Value value, Activation* activation) {
    if (target.kind == ExprKind::kName) {
      Slot(activation, target.ref) = std::move(value);
      return Ok();
    }
    if (target.kind == ExprKind::kMember) return AssignMember(target, std::move(value), activation);
    SWIFTKV_ASSIGN_OR_RETURN(const std::vector<Value> items, Unpack(value, target.operands.size()));
    for (size_t i = 0; i < items.size(); ++i) {
      SWIFTKV_RETURN_IF_ERROR(Assign(*target.operands[i], items[i], activation));
    }
    return Ok();
  }

  Status AssignMember(const Expr& target, Value value, Activation* activation) {
    const Value& space = Slot(activation, target.ref);
    if (!space.Is(Kind::kNamespace)) return InvalidInput("cannot assign attribute on non-namespace object");
    if (target.text[0] == '_') {
      return InvalidInput(
          "Chat templates cannot store underscore-prefixed attributes on a namespace, but got '{}'. "
          "Please rename the attribute.",
          target.text);
    }
    space.name_space().attributes.Set(budget_, Value::Text(target.text), std::move(value));
    return Ok();
  }

  // Python checks a namespace before it evaluates what is to be assigned.
  Status CheckMembers(const Expr& target, Activation* activation) {
    if (target.kind == ExprKind::kMember && !Slot(activation, target.ref).Is(Kind::kNamespace)) {
      return InvalidInput("cannot assign attribute on non-namespace object");
    }
    for (const ExprPtr& item : target.operands) SWIFTKV_RETURN_IF_ERROR(CheckMembers(*item, activation));
    return Ok();
  }

  Result<std::vector<Value>> Unpack(const Value& value, size_t count) {
    auto iterator = Iterator::Over(value);
    if (!iterator) return InvalidInput("cannot unpack non-iterable {} object", TypeName(value));
    std::vector<Value> items;
    Value item;
    while (true) {
      SWIFTKV_ASSIGN_OR_RETURN(const bool more, iterator->Next(runtime_, &item));
      if (!more) break;
      if (items.size() == count) return InvalidInput("too many values to unpack (expected {})", count);
      items.push_back(std::move(item));
    }
    if (items.size() == count) return items;
    return InvalidInput("not enough values to unpack (expected {}, got {})", count, items.size());
  }

  // ---- Statements.

  Status Write(std::string_view text) {
    if (!budget_->MayGrow(output_.size(), text.size())) return runtime_.Exhausted();
    budget_->memory_bytes -= static_cast<int64_t>(text.size());
    output_ += text;
    return Ok();
  }

  Status WriteValue(const Value& value) {
    if (value.Is(Kind::kString)) return Write(value.text());
    return Write(Str(budget_, value));
  }

  Result<Flow> RunScope(const Block& block, Activation* activation) {
    EnterScope(block.loads, activation);
    return RunBlock(block, activation);
  }

  Result<Flow> RunBlock(const Block& block, Activation* activation) {
    DepthGuard guard(&runtime_);
    for (const Stmt& stmt : block.statements) {
      runtime_.line = stmt.line;
      SWIFTKV_RETURN_IF_ERROR(runtime_.Step());
      SWIFTKV_ASSIGN_OR_RETURN(const Flow flow, RunStatement(stmt, activation));
      if (flow != Flow::kNormal) return flow;
    }
    return Flow::kNormal;
  }

  static Result<Flow> Done(const Status& status) {
    if (!status) return tl::unexpected<Error>(status.error());
    return Flow::kNormal;
  }

  Result<Flow> RunStatement(const Stmt& stmt, Activation* activation) {
    switch (stmt.kind) {
      case StmtKind::kText:
        return Done(Write(stmt.text));
      case StmtKind::kOutput:
        return Done(RunOutput(stmt, activation));
      case StmtKind::kFor:
        return Done(RunFor(stmt, activation));
      case StmtKind::kIf:
        return RunIf(stmt, activation);
      case StmtKind::kSet:
        return Done(RunSet(stmt, activation));
      case StmtKind::kSetBlock:
      case StmtKind::kFilterBlock:
        return RunCapturing(stmt, activation);
      case StmtKind::kMacro:
        Slot(activation, stmt.ref) = MakeMacro(*stmt.function, activation);
        return Flow::kNormal;
      case StmtKind::kCallBlock:
        return Done(RunCallBlock(stmt, activation));
      case StmtKind::kWith:
        return RunWith(stmt, activation);
      case StmtKind::kGeneration:
        return RunScope(stmt.body, activation);
      case StmtKind::kBreak:
        return Flow::kBreak;
      case StmtKind::kContinue:
        break;
    }
    return Flow::kContinue;
  }

  Status RunOutput(const Stmt& stmt, Activation* activation) {
    for (const ExprPtr& expr : stmt.expressions) {
      SWIFTKV_ASSIGN_OR_RETURN(const Value value, Eval(*expr, activation));
      SWIFTKV_RETURN_IF_ERROR(WriteValue(value));
    }
    return Ok();
  }

  Result<Flow> RunIf(const Stmt& stmt, Activation* activation) {
    for (const auto& [test, body] : stmt.branches) {
      SWIFTKV_ASSIGN_OR_RETURN(const Value value, Eval(*test, activation));
      if (Truth(value)) return RunBlock(body, activation);
    }
    return RunBlock(stmt.otherwise, activation);
  }

  Status RunSet(const Stmt& stmt, Activation* activation) {
    SWIFTKV_RETURN_IF_ERROR(CheckMembers(*stmt.target, activation));
    SWIFTKV_ASSIGN_OR_RETURN(Value value, Eval(*stmt.value, activation));
    return Assign(*stmt.target, std::move(value), activation);
  }

  Result<Flow> RunWith(const Stmt& stmt, Activation* activation) {
    EnterScope(stmt.body.loads, activation);
    for (size_t i = 0; i < stmt.targets.size(); ++i) {
      SWIFTKV_ASSIGN_OR_RETURN(Value value, Eval(*stmt.expressions[i], activation));
      SWIFTKV_RETURN_IF_ERROR(Assign(*stmt.targets[i], std::move(value), activation));
    }
    return RunBlock(stmt.body, activation);
  }

  // A set block or a filter block.
  Result<Flow> RunCapturing(const Stmt& stmt, Activation* activation) {
    Value text;
    {
      Capture capture(this);
      SWIFTKV_ASSIGN_OR_RETURN(const Flow flow, RunScope(stmt.body, activation));
      if (flow != Flow::kNormal) return flow;
      text = capture.Take();
    }
    if (stmt.value != nullptr) {
      SWIFTKV_ASSIGN_OR_RETURN(text, EvalFilterOver(*stmt.value, text, activation));
    }
    if (stmt.kind == StmtKind::kFilterBlock) return Done(WriteValue(text));
    return Done(Assign(*stmt.target, std::move(text), activation));
  }

  Value MakeMacro(const Function& function, Activation* activation) {
    return Value::FromObject(Kind::kFunction, new MacroObject(budget_, this, &function, Ref<Activation>(activation)));
  }

  Status RunCallBlock(const Stmt& stmt, Activation* activation) {
    const Value caller = MakeMacro(*stmt.function, activation);
    SWIFTKV_ASSIGN_OR_RETURN(const Value value, EvalCall(*stmt.value, activation, &caller));
    return WriteValue(value);
  }

  // ---- Loops.

  Status RunFor(const Stmt& stmt, Activation* activation) {
    SWIFTKV_ASSIGN_OR_RETURN(const Value iterable, Eval(*stmt.value, activation));
    if (!stmt.recursive) return RunLoop(stmt, iterable, activation, Ref<Activation>(), 0);
    SWIFTKV_ASSIGN_OR_RETURN(const Value text, RunRecursive(stmt, iterable, Ref<Activation>(activation), 0));
    return WriteValue(text);
  }

  Result<Value> RunRecursive(const Stmt& stmt, const Value& iterable, const Ref<Activation>& outer, int64_t depth) {
    DepthGuard guard(&runtime_);
    SWIFTKV_RETURN_IF_ERROR(runtime_.Step());
    Frame frame(this, *stmt.function, outer);
    Capture capture(this);
    SWIFTKV_RETURN_IF_ERROR(RunLoop(stmt, iterable, frame.get(), outer, depth));
    return capture.Take();
  }

  Status RunLoop(const Stmt& stmt, const Value& iterable, Activation* activation, const Ref<Activation>& outer,
                 int64_t depth) {
    SWIFTKV_ASSIGN_OR_RETURN(Iterator iterator, Iterator::Over(iterable));
    const Ref<LoopObject> loop(new LoopObject(budget_, iterable, std::move(iterator), depth));
    struct Finisher {
      ~Finisher() { loop->Finish(); }
      LoopObject* loop;
    } const finisher{loop.get()};
    if (stmt.test != nullptr) {
      EnterScope(stmt.test_loads, activation);
      loop->SetTest([this, &stmt, activation](const Value& item) { return TestItem(stmt, item, activation); });
    }
    if (stmt.recursive) {
      loop->SetRecursion(
          [this, &stmt, outer, depth](const Value& items) { return RunRecursive(stmt, items, outer, depth + 1); });
    }
    const Value loop_value = Value::FromObject(Kind::kFunction, loop.get());
    bool completed = false;  // jinja2 sees an iteration only when it reaches the end of the body
    Value item;
    while (true) {
      SWIFTKV_ASSIGN_OR_RETURN(const bool more, loop->Next(runtime_, &item));
      if (!more) break;
      if (stmt.uses_loop) activation->slots[static_cast<size_t>(stmt.loop_slot)] = loop_value;
      SWIFTKV_RETURN_IF_ERROR(Assign(*stmt.target, item, activation));
      SWIFTKV_ASSIGN_OR_RETURN(const Flow flow, RunScope(stmt.body, activation));
      if (flow == Flow::kBreak) break;
      completed = completed || flow == Flow::kNormal;
    }
    return completed ? Ok() : RunElse(stmt, activation);
  }

  Status RunElse(const Stmt& stmt, Activation* activation) {
    SWIFTKV_RETURN_IF_ERROR(RunScope(stmt.otherwise, activation));
    return Ok();
  }

  Result<bool> TestItem(const Stmt& stmt, const Value& item, Activation* activation) {
    SWIFTKV_RETURN_IF_ERROR(Assign(*stmt.test_target, item, activation));
    SWIFTKV_ASSIGN_OR_RETURN(const Value value, Eval(*stmt.test, activation));
    return Truth(value);
  }

  // ---- Expressions.

  Result<Value> Eval(const Expr& expr, Activation* activation) {
    if (expr.kind == ExprKind::kConst) return expr.value;
    DepthGuard guard(&runtime_);
    runtime_.line = expr.line;
    SWIFTKV_RETURN_IF_ERROR(runtime_.Step());
    switch (expr.kind) {
      case ExprKind::kName: {
        const Value& value = Slot(activation, expr.ref);
        return value.Is(Kind::kMissing) ? Value::Undefined(Value::Text(expr.name)) : value;
      }
      case ExprKind::kList:
      case ExprKind::kTuple:
        return EvalItems(expr, activation);
      case ExprKind::kDict:
        return EvalDict(expr, activation);
      case ExprKind::kGetattr: {
        SWIFTKV_ASSIGN_OR_RETURN(const Value object, Eval(*expr.operands[0], activation));
        return GetAttribute(runtime_, object, Value::Text(expr.text));
      }
      case ExprKind::kGetitem: {
        SWIFTKV_ASSIGN_OR_RETURN(const Value object, Eval(*expr.operands[0], activation));
        SWIFTKV_ASSIGN_OR_RETURN(const Value key, Eval(*expr.operands[1], activation));
        return GetItem(runtime_, object, key);
      }
      case ExprKind::kSlice:
        return EvalSlice(expr, activation);
      case ExprKind::kCall:
        return EvalCall(expr, activation, nullptr);
      case ExprKind::kFilter:
      case ExprKind::kTest:
        return EvalBuiltin(expr, nullptr, activation);
      case ExprKind::kConcat:
        return EvalConcat(expr, activation);
      case ExprKind::kCompare:
        return EvalCompare(expr, activation);
      case ExprKind::kConditional:
        return EvalConditional(expr, activation);
      default:
        return EvalOperator(expr, activation);
    }
  }

  Result<Value> EvalOperator(const Expr& expr, Activation* activation) {
    SWIFTKV_ASSIGN_OR_RETURN(Value left, Eval(*expr.operands[0], activation));
    switch (expr.kind) {
      case ExprKind::kNot:
        return Value::Bool(!Truth(left));
      case ExprKind::kNegative:
        return Negate(left);
      case ExprKind::kPositive:
        return Positive(left);
      case ExprKind::kAnd:
        return Truth(left) ? Eval(*expr.operands[1], activation) : std::move(left);
      case ExprKind::kOr:
        return Truth(left) ? std::move(left) : Eval(*expr.operands[1], activation);
      default:
        break;
    }
    SWIFTKV_ASSIGN_OR_RETURN(const Value right, Eval(*expr.operands[1], activation));
    return Arithmetic(runtime_, expr.operators[0], left, right);
  }

  Result<std::vector<Value>> EvalAll(const std::vector<ExprPtr>& exprs, size_t from, Activation* activation) {
    std::vector<Value> values;
    values.reserve(exprs.size() - from);
    for (size_t i = from; i < exprs.size(); ++i) {
      SWIFTKV_ASSIGN_OR_RETURN(Value value, Eval(*exprs[i], activation));
      values.push_back(std::move(value));
    }
    return values;
  }

  Result<Value> EvalItems(const Expr& expr, Activation* activation) {
    SWIFTKV_ASSIGN_OR_RETURN(std::vector<Value> items, EvalAll(expr.operands, 0, activation));
    return expr.kind == ExprKind::kList ? Value::List(budget_, std::move(items))
                                        : Value::Tuple(budget_, std::move(items));
  }

  Result<Value> EvalDict(const Expr& expr, Activation* activation) {
    SWIFTKV_ASSIGN_OR_RETURN(std::vector<Value> values, EvalAll(expr.operands, 0, activation));
    Dict dict;
    for (size_t i = 0; i + 1 < values.size(); i += 2) {
      SWIFTKV_RETURN_IF_ERROR(CheckHashable(budget_, values[i]));
      dict.Set(budget_, values[i], std::move(values[i + 1]));
    }
    return MakeDict(budget_, std::move(dict));
  }

  Result<Value> EvalSlice(const Expr& expr, Activation* activation) {
    Value parts[4] = {Value::None(), Value::None(), Value::None(), Value::None()};
    for (size_t i = 0; i < 4; ++i) {
      if (expr.operands[i] == nullptr) continue;
      SWIFTKV_ASSIGN_OR_RETURN(parts[i], Eval(*expr.operands[i], activation));
    }
    return GetSlice(runtime_, parts[0], parts[1], parts[2], parts[3]);
  }

  Result<Value> EvalConcat(const Expr& expr, Activation* activation) {
    SWIFTKV_ASSIGN_OR_RETURN(const std::vector<Value> values, EvalAll(expr.operands, 0, activation));
    std::string text;
    for (const Value& value : values) {
      if (!budget_->MayGrow(text.size(), value.Is(Kind::kString) ? value.text().size() : 0)) {
        return runtime_.Exhausted();
      }
      AppendStr(budget_, &text, value);
    }
    return Value::String(budget_, std::move(text));
  }

  Result<Value> EvalCompare(const Expr& expr, Activation* activation) {
    SWIFTKV_ASSIGN_OR_RETURN(Value left, Eval(*expr.operands[0], activation));
    for (size_t i = 0; i < expr.operators.size(); ++i) {
      SWIFTKV_ASSIGN_OR_RETURN(Value right, Eval(*expr.operands[i + 1], activation));
      SWIFTKV_ASSIGN_OR_RETURN(const bool holds, jinja::Compare(runtime_, expr.operators[i], left, right));
      if (!holds) return Value::Bool(false);
      left = std::move(right);
    }
    return Value::Bool(true);
  }

  Result<Value> EvalConditional(const Expr& expr, Activation* activation) {
    SWIFTKV_ASSIGN_OR_RETURN(const Value test, Eval(*expr.operands[0], activation));
    if (Truth(test)) return Eval(*expr.operands[1], activation);
    if (expr.operands[2] != nullptr) return Eval(*expr.operands[2], activation);
    return Value::UndefinedBecause(Value::String(
        budget_, fmt::format("the inline if-expression on line {} evaluated to false and no else section was defined.",
                             expr.line)));
  }

  // ---- Calls.

  Result<Arguments> EvalArguments(const Expr& expr, Activation* activation) {
    Arguments arguments;
    SWIFTKV_ASSIGN_OR_RETURN(arguments.positional, EvalAll(expr.operands, 1, activation));
    for (const auto& [name, value_expr] : expr.keywords) {
      SWIFTKV_ASSIGN_OR_RETURN(Value value, Eval(*value_expr, activation));
      arguments.keyword.emplace_back(name, std::move(value));
    }
    if (expr.star != nullptr) {
      SWIFTKV_ASSIGN_OR_RETURN(const Value more, Eval(*expr.star, activation));
      SWIFTKV_ASSIGN_OR_RETURN(const std::vector<Value> items, ToVector(runtime_, more));
      arguments.positional.insert(arguments.positional.end(), items.begin(), items.end());
    }
    if (expr.double_star != nullptr) SWIFTKV_RETURN_IF_ERROR(EvalDoubleStar(expr, activation, &arguments));
    return arguments;
  }

  // **mapping
  Status EvalDoubleStar(const Expr& expr, Activation* activation, Arguments* arguments) {
    SWIFTKV_ASSIGN_OR_RETURN(const Value mapping, Eval(*expr.double_star, activation));
    if (!mapping.Is(Kind::kDict)) {
      return InvalidInput("argument after ** must be a mapping, not {}", TypeName(mapping));
    }
    if (mapping.dict().size() > 1000) return InvalidInput("too many keyword arguments");
    for (const auto& [key, value] : mapping.dict().entries()) {
      if (!key.Is(Kind::kString)) return InvalidInput("keywords must be strings");
      SWIFTKV_RETURN_IF_ERROR(runtime_.Step(static_cast<int64_t>(arguments->keyword.size() >> 3)));
      for (const auto& [name, other] : arguments->keyword) {
        if (name == key.text()) return InvalidInput("got multiple values for keyword argument '{}'", name);
      }
      arguments->keyword.emplace_back(key.text(), value);
    }
    arguments->keyword_owner = mapping;
    return Ok();
  }

  Result<Value> EvalCall(const Expr& expr, Activation* activation, const Value* caller) {
    SWIFTKV_ASSIGN_OR_RETURN(const Value callee, Eval(*expr.operands[0], activation));
    SWIFTKV_ASSIGN_OR_RETURN(Arguments arguments, EvalArguments(expr, activation));
    if (caller != nullptr) arguments.keyword.emplace_back("caller", *caller);
    runtime_.line = expr.line;
    if (callee.Is(Kind::kUndefined)) return UndefinedError(callee);
    if (!callee.Is(Kind::kFunction)) return InvalidInput("'{}' object is not callable", TypeName(callee));
    return callee.function().Call(runtime_, arguments);
  }

  // A filter or test; `input` replaces its first operand where given.
  Result<Value> EvalBuiltin(const Expr& expr, const Value* input, Activation* activation) {
    Value value;
    if (input != nullptr) {
      value = *input;
    } else {
      SWIFTKV_ASSIGN_OR_RETURN(value, Eval(*expr.operands[0], activation));
    }
    SWIFTKV_ASSIGN_OR_RETURN(const Arguments arguments, EvalArguments(expr, activation));
    runtime_.line = expr.line;
    if (expr.builtin == nullptr) {
      return InvalidInput("No {} named '{}' found.", expr.kind == ExprKind::kFilter ? "filter" : "test", expr.text);
    }
    return expr.builtin(runtime_, value, arguments);
  }

  // The filters of a block, the innermost of which has no operand, applied to the block's text.
  Result<Value> EvalFilterOver(const Expr& filter, const Value& text, Activation* activation) {
    if (filter.operands[0] == nullptr) return EvalBuiltin(filter, &text, activation);
    SWIFTKV_ASSIGN_OR_RETURN(const Value input, EvalFilterOver(*filter.operands[0], text, activation));
    return EvalBuiltin(filter, &input, activation);
  }

  Status BindParameters(const Function& function, const Arguments& arguments, Activation* activation);

  const Variables& variables_;
  Runtime& runtime_;
  Budget* budget_;
  std::string output_;
};

// Positional arguments, then keywords, then defaults; what is left goes to varargs and kwargs if the body uses them.
Status Interpreter::BindParameters(const Function& function, const Arguments& arguments, Activation* activation) {
  const auto& parameters = function.parameters;
  std::vector<Value>& slots = activation->slots;
  const size_t positional = std::min(arguments.positional.size(), parameters.size());
  for (size_t i = 0; i < positional; ++i) slots[static_cast<size_t>(parameters[i].slot)] = arguments.positional[i];
  Value caller;
  Dict rest;
  for (const auto& [name, value] : arguments.keyword) {
    SWIFTKV_RETURN_IF_ERROR(runtime_.Step(static_cast<int64_t>(parameters.size() >> 3)));
    const Function::Parameter* parameter = nullptr;
    for (size_t i = positional; i < parameters.size(); ++i) {
      if (parameters[i].name == name) parameter = &parameters[i];
    }
    if (parameter != nullptr) {
      slots[static_cast<size_t>(parameter->slot)] = value;
    } else if (name == "caller" && function.uses_caller) {
      caller = value;
    } else if (function.uses_keyword_arguments) {
      rest.Set(budget_, Value::String(budget_, std::string(name)), value);
    } else {
      return InvalidInput("macro '{}' takes no keyword argument '{}'", function.name, name);
    }
  }
  if (function.uses_caller) {
    slots[static_cast<size_t>(function.caller_slot)] =
        caller.Is(Kind::kMissing) ? Value::UndefinedBecause(Value::Text("No caller defined")) : caller;
  }
  if (function.uses_keyword_arguments) {
    slots[static_cast<size_t>(function.keyword_arguments_slot)] = MakeDict(budget_, std::move(rest));
  }
  if (function.uses_more_arguments) {
    const auto first = arguments.positional.begin() + static_cast<std::ptrdiff_t>(positional);
    slots[static_cast<size_t>(function.more_arguments_slot)] =
        Value::Tuple(budget_, std::vector<Value>(first, arguments.positional.end()));
  } else if (arguments.positional.size() > parameters.size()) {
    return InvalidInput("macro '{}' takes not more than {} argument(s)", function.name, parameters.size());
  }
  EnterScope(function.body.loads, activation);
  for (const auto& parameter : parameters) {
    Value& slot = slots[static_cast<size_t>(parameter.slot)];
    if (!slot.Is(Kind::kMissing)) continue;
    if (parameter.default_value == nullptr) {
      slot = Value::UndefinedBecause(Value::String(budget_, "parameter '" + parameter.name + "' was not provided"));
      continue;
    }
    SWIFTKV_ASSIGN_OR_RETURN(slot, Eval(*parameter.default_value, activation));
  }
  return Ok();
}

Result<Value> Interpreter::CallMacro(const MacroObject& macro, const Arguments& arguments) {
  DepthGuard guard(&runtime_);
  SWIFTKV_RETURN_IF_ERROR(runtime_.Step());
  Frame frame(this, *macro.function, macro.closure);
  SWIFTKV_RETURN_IF_ERROR(BindParameters(*macro.function, arguments, frame.get()));
  Capture capture(this);
  SWIFTKV_RETURN_IF_ERROR(RunBlock(macro.function->body, frame.get()));
  return capture.Take();
}

Result<Value> MacroObject::Call(Runtime&, const Arguments& arguments) {
  return interpreter->CallMacro(*this, arguments);
}

Result<bool> MacroObject::Attribute(Runtime&, std::string_view name, Value* value) {
  if (name != "name") return false;
  *value = function->name.empty() ? Value::None() : Value::Text(function->name);
  return true;
}

}  // namespace

Result<std::string> RunTemplate(const Function& root, const Variables& variables, Runtime* runtime) {
  return Interpreter(variables, runtime).Run(root);
}

}  // namespace swiftkv::jinja
