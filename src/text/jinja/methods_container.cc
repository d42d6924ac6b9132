// Methods of dicts, lists, tuples, ranges and numbers.
#include <cmath>
#include <iterator>

#include "text/jinja/builtins.h"
#include "text/jinja/ops.h"

namespace swiftkv::jinja {
namespace {

template <DictViewObject::Part part>
Result<Value> View(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_RETURN_IF_ERROR(Bind(arguments, "dict view", {}, 0));
  return Value::FromObject(Kind::kDictView, new DictViewObject(&runtime.budget, self, part));
}

Result<Value> Get(Runtime& runtime, const Value& self, const Arguments& arguments) {
  if (!arguments.keyword.empty()) return InvalidInput("dict.get() takes no keyword arguments");
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "get", {"key", "default"}, 1));
  SWIFTKV_RETURN_IF_ERROR(CheckHashable(&runtime.budget, *bound[0]));
  if (const Value* found = self.dict().Find(&runtime.budget, *bound[0]); found != nullptr) return *found;
  return bound[1] != nullptr ? *bound[1] : Value::None();
}

Result<Value> Copy(Runtime&, const Value& self, const Arguments& arguments) {
  SWIFTKV_RETURN_IF_ERROR(Bind(arguments, "copy", {}, 0));
  return self;  // neither the copy nor the original can change
}

Result<Value> Count(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "count", {"value"}, 1));
  SWIFTKV_ASSIGN_OR_RETURN(const std::vector<Value> items, ToVector(runtime, self));
  int64_t count = 0;
  for (const Value& item : items) count += Equals(&runtime.budget, item, *bound[0]) ? 1 : 0;
  return Value::Integer(count);
}

Result<Value> Index(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "index", {"value", "start", "stop"}, 1));
  SWIFTKV_ASSIGN_OR_RETURN(const std::vector<Value> items, ToVector(runtime, self));
  const auto size = static_cast<int64_t>(items.size());
  int64_t range[2] = {0, size};
  for (size_t i = 0; i < 2; ++i) {
    if (bound[i + 1] == nullptr) continue;
    SWIFTKV_ASSIGN_OR_RETURN(range[i], ToIndex(*bound[i + 1]));
    if (range[i] < 0) range[i] = std::max<int64_t>(range[i] + size, 0);
  }
  for (int64_t i = range[0]; i < std::min(range[1], size); ++i) {
    if (Equals(&runtime.budget, items[static_cast<size_t>(i)], *bound[0])) return Value::Integer(i);
  }
  return InvalidInput("the value is not in the {}", TypeName(self));
}

Result<Value> IsInteger(Runtime&, const Value& self, const Arguments& arguments) {
  SWIFTKV_RETURN_IF_ERROR(Bind(arguments, "is_integer", {}, 0));
  return Value::Bool(std::isfinite(self.real()) && std::trunc(self.real()) == self.real());
}

Result<Value> BitLength(Runtime&, const Value& self, const Arguments& arguments) {
  SWIFTKV_RETURN_IF_ERROR(Bind(arguments, "bit_length", {}, 0));
  auto rest = self.integer() < 0 ? -static_cast<unsigned __int128>(self.integer())
                                 : static_cast<unsigned __int128>(self.integer());
  int bits = 0;
  for (; rest != 0; rest >>= 1) ++bits;
  return Value::Integer(bits);
}

constexpr NamedBuiltin kDictMethods[] = {
    {"get", Get},
    {"items", View<DictViewObject::Part::kItems>},
    {"keys", View<DictViewObject::Part::kKeys>},
    {"values", View<DictViewObject::Part::kValues>},
    {"copy", Copy},
};
constexpr NamedBuiltin kSequenceMethods[] = {{"count", Count}, {"index", Index}};
constexpr NamedBuiltin kFloatMethods[] = {{"is_integer", IsInteger}};
constexpr NamedBuiltin kIntMethods[] = {{"bit_length", BitLength}};

}  // namespace

Builtin FindContainerMethod(Kind kind, std::string_view name) {
  switch (kind) {
    case Kind::kDict:
      return FindIn(std::begin(kDictMethods), std::end(kDictMethods), name);
    case Kind::kList:
      if (name == "copy") return Copy;
      [[fallthrough]];
    case Kind::kTuple:
    case Kind::kRange:
      return FindIn(std::begin(kSequenceMethods), std::end(kSequenceMethods), name);
    case Kind::kFloat:
      return FindIn(std::begin(kFloatMethods), std::end(kFloatMethods), name);
    case Kind::kInt:
    case Kind::kBool:
      return FindIn(std::begin(kIntMethods), std::end(kIntMethods), name);
    default:
      return nullptr;
  }
}

}  // namespace swiftkv::jinja
