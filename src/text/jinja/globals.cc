// Global functions, with the replacements and additions of transformers.
#include <ctime>
#include <iterator>

#include "text/jinja/builtins.h"
#include "text/jinja/format.h"
#include "text/jinja/ops.h"

namespace swiftkv::jinja {
namespace {

constexpr int64_t kMaxRange = 100'000;  // of jinja2's sandbox

Result<Value> Range(Runtime& runtime, const Value&, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "range", {"start", "stop", "step"}, 1));
  Int parts[3] = {0, 0, 1};
  for (size_t i = 0; i < 3; ++i) {
    if (bound[i] == nullptr) continue;
    SWIFTKV_RETURN_IF_ERROR(ToIndex(*bound[i]));
    parts[i] = bound[i]->integer();
    // No range that may be iterated comes near; keeps the arithmetic below from overflowing.
    constexpr Int kFar = Int{1} << 62;
    if (parts[i] > kFar || parts[i] < -kFar) return InvalidInput("the range's bounds are too large");
  }
  if (bound[1] == nullptr) std::swap(parts[0], parts[1]);
  if (parts[2] == 0) return InvalidInput("range() arg 3 must not be zero");
  auto* range = new RangeObject(&runtime.budget, parts[0], parts[1], parts[2]);
  Value value = Value::FromObject(Kind::kRange, range);
  if (range->size() > kMaxRange) {
    return InvalidInput("Range too big. The sandbox blocks ranges larger than MAX_RANGE ({}).", kMaxRange);
  }
  return value;
}

// dict(mapping or pairs, name=value, ...)
Result<Dict> BuildDict(Runtime& runtime, const Arguments& arguments) {
  if (arguments.positional.size() > 1) {
    return InvalidInput("dict expected at most 1 argument, got {}", arguments.positional.size());
  }
  Dict dict;
  if (!arguments.positional.empty()) {
    const Value& from = arguments.positional[0];
    if (from.Is(Kind::kDict)) {
      SWIFTKV_RETURN_IF_ERROR(runtime.Step(static_cast<int64_t>(from.dict().size())));
      dict = from.dict();
    } else {
      SWIFTKV_ASSIGN_OR_RETURN(const std::vector<Value> pairs, ToVector(runtime, from));
      for (const Value& pair : pairs) {
        SWIFTKV_ASSIGN_OR_RETURN(const std::vector<Value> entry, ToVector(runtime, pair));
        if (entry.size() != 2) {
          return InvalidInput("dictionary update sequence element has length {}; 2 is required", entry.size());
        }
        SWIFTKV_RETURN_IF_ERROR(CheckHashable(&runtime.budget, entry[0]));
        dict.Set(&runtime.budget, entry[0], entry[1]);
      }
    }
  }
  for (const auto& [name, value] : arguments.keyword) {
    dict.Set(&runtime.budget, Value::String(&runtime.budget, std::string(name)), value);
  }
  return dict;
}

Result<Value> MakeDictionary(Runtime& runtime, const Value&, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(Dict dict, BuildDict(runtime, arguments));
  return MakeDict(&runtime.budget, std::move(dict));
}

Result<Value> MakeNamespace(Runtime& runtime, const Value&, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(Dict attributes, BuildDict(runtime, arguments));
  for (const auto& [name, value] : attributes.entries()) {
    if (!name.Is(Kind::kString) || name.text().substr(0, 1) != "_") continue;
    return InvalidInput(
        "Chat templates cannot store underscore-prefixed attributes on a namespace, but got '{}'. "
        "Please rename the attribute.",
        name.text());
  }
  auto* space = new NamespaceObject(&runtime.budget, std::move(attributes));
  runtime.Keep(space);
  return Value::FromObject(Kind::kNamespace, space);
}

Result<Value> RaiseException(Runtime& runtime, const Value&, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "raise_exception", {"message"}, 1));
  runtime.raised = true;
  return InvalidInput("{}", Str(&runtime.budget, *bound[0]));
}

// datetime.now().strftime(format): local time without a zone, so that %z and %Z are empty.
Result<Value> StrftimeNow(Runtime& runtime, const Value&, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "strftime_now", {"format"}, 1));
  if (!bound[0]->Is(Kind::kString)) {
    return InvalidInput("strftime() argument 1 must be str, not {}", TypeName(*bound[0]));
  }
  using std::chrono::microseconds;
  const auto now = runtime.now.value_or(std::chrono::system_clock::now());
  const auto since_epoch = std::chrono::floor<microseconds>(now.time_since_epoch()).count();
  const std::time_t seconds = since_epoch >= 0 ? since_epoch / 1'000'000 : (since_epoch - 999'999) / 1'000'000;
  std::tm local{};
  localtime_r(&seconds, &local);
  const std::string_view given = bound[0]->text();
  if (given.size() > 4096) return InvalidInput("the format of strftime_now is longer than 4096 bytes");
  std::string result;
  for (size_t i = 0; i < given.size(); ++i) {
    if (given[i] != '%' || i + 1 == given.size()) {
      result += given[i];
      continue;
    }
    size_t end = i + 1;
    while (end + 1 < given.size() &&
           (given[end] == '-' || given[end] == '_' || given[end] == '0' || given[end] == '^' || given[end] == '#')) {
      ++end;
    }
    const std::string directive(given.substr(i, end - i + 1));
    i = end;
    if (directive == "%f") {
      result += fmt::format("{:06}", since_epoch - static_cast<int64_t>(seconds) * 1'000'000);
    } else if (directive != "%z" && directive != "%Z") {
      char buffer[256];
      result.append(buffer, std::strftime(buffer, sizeof(buffer), directive.c_str(), &local));
    }
  }
  return Value::String(&runtime.budget, std::move(result));
}

// cycler('a', 'b'): next(), reset(), current.
struct CyclerObject : FunctionObject {
  CyclerObject(Budget* budget, const Value& values) : FunctionObject(budget, 96), items(values) {
    SetNesting(values.nesting() + 1);
  }
  Result<Value> Call(Runtime&, const Arguments&) override { return InvalidInput("'Cycler' object is not callable"); }
  Result<bool> Attribute(Runtime& runtime, std::string_view name, Value* value) override;
  Value items;
  size_t position = 0;
};

CyclerObject& Cycler(const Value& self) { return static_cast<CyclerObject&>(self.function()); }

Result<Value> CyclerNext(Runtime&, const Value& self, const Arguments&) {
  CyclerObject& cycler = Cycler(self);
  Value value = cycler.items.items()[cycler.position];
  cycler.position = (cycler.position + 1) % cycler.items.items().size();
  return value;
}

Result<Value> CyclerReset(Runtime&, const Value& self, const Arguments&) {
  Cycler(self).position = 0;
  return Value::None();
}

Result<bool> CyclerObject::Attribute(Runtime& runtime, std::string_view name, Value* value) {
  if (name == "current") {
    *value = items.items()[position];
  } else if (name == "next" || name == "reset") {
    *value = MakeFunction(&runtime.budget, Value::FromObject(Kind::kFunction, this),
                          name == "next" ? CyclerNext : CyclerReset, name);
  } else {
    return false;
  }
  return true;
}

Result<Value> MakeCycler(Runtime& runtime, const Value&, const Arguments& arguments) {
  if (arguments.positional.empty()) return InvalidInput("at least one item has to be provided");
  const Value items = Value::List(&runtime.budget, arguments.positional);
  return Value::FromObject(Kind::kFunction, new CyclerObject(&runtime.budget, items));
}

// joiner(", "): '' when first called, the separator from then on.
struct JoinerObject : FunctionObject {
  JoinerObject(Budget* budget, const Value& text) : FunctionObject(budget, 96), separator(text) {
    SetNesting(text.nesting() + 1);
  }
  Result<Value> Call(Runtime&, const Arguments&) override {
    return std::exchange(used, true) ? separator : Value::Text("");
  }
  Value separator;
  bool used = false;
};

Result<Value> MakeJoiner(Runtime& runtime, const Value&, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "joiner", {"sep"}, 0));
  const Value separator = bound[0] != nullptr ? *bound[0] : Value::Text(", ");
  return Value::FromObject(Kind::kFunction, new JoinerObject(&runtime.budget, separator));
}

constexpr NamedBuiltin kGlobals[] = {
    {"range", Range},
    {"dict", MakeDictionary},
    {"namespace", MakeNamespace},
    {"raise_exception", RaiseException},
    {"strftime_now", StrftimeNow},
    {"cycler", MakeCycler},
    {"joiner", MakeJoiner},
};

}  // namespace

Builtin FindGlobal(std::string_view name) { return FindIn(std::begin(kGlobals), std::end(kGlobals), name); }

}  // namespace swiftkv::jinja
